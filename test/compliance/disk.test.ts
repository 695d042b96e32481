import { after } from 'node:test';
import { NativeRegion } from '../../native/region.ts';
import { type DiskSourceOptions, openDiskSource } from '../../src/backends/disk/disk.ts';
import type { Device } from '../../src/device/device.ts';
import { bounce } from '../../src/filters/bounce.ts';
import { ManualClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { makeImage } from '../support/disk-image.ts';
import { type DeviceFixture, deviceCompliance } from './device-compliance.ts';

const MIB = 1024 * 1024;
const image = await makeImage(8 * MIB);
const region = NativeRegion.allocate(16 * MIB);
after(async () => {
  region.release();
  await image.remove();
});

type Options = Partial<DiskSourceOptions>;

async function fixture(options: Options, wrap?: (device: Device) => Device): Promise<DeviceFixture> {
  const source = await openDiskSource({ path: image.path, clock: new ManualClock(), log: silentLog, ...options });
  const device = source.open();
  return {
    device: wrap === undefined ? device : wrap(device),
    region,
    content: options.readOnly ? 'kept' : 'kept',
    quietAt: wrap === undefined ? 'close' : 'cut',
    dispose: () => source.close(),
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
