import { truncateSync } from 'node:fs';
import { after } from 'node:test';
import { NativeRegion } from '../../native/region.ts';
import { type DiskSourceOptions, openDiskSource } from '../../src/backends/disk/disk.ts';
import { openNullSource } from '../../src/backends/null/null.ts';
import type { Device } from '../../src/device/device.ts';
import { NetbusError } from '../../src/device/errors.ts';
import { bounce } from '../../src/filters/bounce.ts';
import { ManualClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { makeImage } from '../support/disk-image.ts';
import { HeldDevice } from '../support/held-device.ts';
import { StallingCalls } from '../support/stalling-calls.ts';
import { type DeviceFixture, deviceCompliance } from './device-compliance.ts';

const MIB = 1024 * 1024;
const image = await makeImage(8 * MIB);
const region = NativeRegion.allocate(16 * MIB);
after(async () => {
  region.release();
  await image.remove();
});

type Options = Partial<DiskSourceOptions>;

/** A disk whose storage hangs when the suite says so, and whose image grows when it wants an event. */
async function fixture(options: Options, wrap?: (device: Device) => Device): Promise<DeviceFixture> {
  const calls = new StallingCalls();
  const source = await openDiskSource({ path: image.path, clock: new ManualClock(), log: silentLog, calls, ...options });
  const device = source.open();
  return {
    device: wrap === undefined ? device : wrap(device),
    region,
    content: 'kept',
    quietAt: wrap === undefined ? 'close' : 'cut',
    stall: { begin: () => calls.stall(), end: () => calls.goOn() },
    event: () => {
      truncateSync(image.path, 9 * MIB);
      void source.refresh();
    },
    dispose: async () => {
      await source.close();
      truncateSync(image.path, 8 * MIB);
    },
  };
}

const kinds: [string, Options][] = [
  ['io_uring', { engine: 'io_uring' }],
  ['io_uring, direct', { engine: 'io_uring', direct: true }],
  ['threads', { engine: 'threads' }],
  ['threads, direct', { engine: 'threads', direct: true }],
  ['read-only', { readOnly: true }],
];
for (const [name, options] of kinds) {
  deviceCompliance(`disk, ${name}`, () => fixture(options));
  deviceCompliance(`disk, ${name}, behind bounce`, () => fixture(options, bounce()));
}
deviceCompliance('disk behind a bounce with little staging', () => fixture({}, bounce(4 * MIB)));

deviceCompliance('held device with late memory, behind bounce', () => {
  const { profile } = openNullSource({ capacityBytes: 8 * MIB });
  const inner = new HeldDevice(profile, 16, { lateMemory: true });
  return {
    device: bounce()(inner),
    region,
    content: 'zeroes',
    quietAt: 'cut',
    stall: { begin: () => inner.hold(), end: () => inner.release() },
    lose: () => inner.lose(new NetbusError('ended', 'the test lost it')),
    event: () => inner.changeCapacity(16 * MIB),
  };
});
