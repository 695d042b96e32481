import { NativeRegion } from '../../native/region.ts';
import { openDiskSource } from '../../src/backends/disk/disk.ts';
import { openNullSource } from '../../src/backends/null/null.ts';
import type { AllocateStaging } from '../../src/bus/staging.ts';
import { NetbusError } from '../../src/device/errors.ts';
import type { BackendSource } from '../../src/device/source.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { busPair } from '../support/bus-pair.ts';
import { makeImage } from '../support/disk-image.ts';
import { HeldDevice } from '../support/held-device.ts';
import { MemoryRegion } from '../support/memory-region.ts';
import { type DeviceFixture, deviceCompliance } from './device-compliance.ts';

const MIB = 1024 * 1024;

/** A session over loopback TLS, its lease granted; what stands at the other end is `source`. */
async function remote(source: BackendSource, depth: number, allocate?: AllocateStaging): Promise<DeviceFixture> {
  const pair = await busPair(allocate && { allocate });
  pair.host.depth = depth;
  const lease = pair.host.add('a1', source);
  const session = await pair.open('a1');
  const { device } = await session.activate();
  return {
    device,
    region: new MemoryRegion(8 * MIB),
    content: 'zeroes',
    quietAt: 'cut',
    lose: () => void lease.revoke(new NetbusError('ended', 'the test ends it')),
    dispose: async () => {
      session.close();
      await pair.close();
      if (pair.staging.regions > 0) throw new Error(`${pair.staging.regions} staging regions were not given back`);
    },
  };
}

async function held(): Promise<DeviceFixture> {
  const nothing = openNullSource({ capacityBytes: 8 * MIB });
  const device = new HeldDevice(nothing.profile, 64);
  const fixture = await remote({ ...nothing, open: () => device }, 64);
  return {
    ...fixture,
    stall: { begin: () => device.hold(), end: () => device.release() },
    event: () => device.changeCapacity(16 * MIB),
    lose: () => device.lose(new NetbusError('device', 'the test takes the device away')),
  };
}

deviceCompliance('remote, over null', () => remote(openNullSource({ capacityBytes: 8 * MIB }), 256));
deviceCompliance('remote, read-only', () => remote(openNullSource({ capacityBytes: 8 * MIB, readOnly: true }), 256));
deviceCompliance('remote, depth 1', () => remote(openNullSource({ capacityBytes: 8 * MIB }), 1));
deviceCompliance('remote, a device with less depth than the session', () =>
  remote(openNullSource({ capacityBytes: 8 * MIB, depth: 3 }), 64),
);
deviceCompliance('remote, over a device that can be held', held);

/** Over a real disk image; staging is what the kernel's I/O needs. */
async function overDisk(direct: boolean): Promise<DeviceFixture> {
  const image = await makeImage(8 * MIB);
  const source = await openDiskSource({ path: image.path, clock: systemClock, log: silentLog, direct });
  const fixture = await remote(source, 64, (bytes) => NativeRegion.allocate(bytes));
  return {
    ...fixture,
    content: 'kept',
    dispose: async () => {
      await fixture.dispose?.();
      await source.close();
      await image.remove();
    },
  };
}

deviceCompliance('remote, over a disk', () => overDisk(false));
deviceCompliance('remote, over a disk, direct', () => overDisk(true));
