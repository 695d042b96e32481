/** The device that a session has while its disk is copied, in each of its modes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { NativeRegion } from '../../native/region.ts';
import { openDiskSource } from '../../src/backends/disk/disk.ts';
import { openNullSource } from '../../src/backends/null/null.ts';
import type { Device } from '../../src/device/device.ts';
import { NetbusError } from '../../src/device/errors.ts';
import { bounce } from '../../src/filters/bounce.ts';
import { ManualClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { DirtyMap } from '../../src/migration/mirror/dirty-map.ts';
import { Mirror } from '../../src/migration/mirror/mirror.ts';
import { makeImage } from '../support/disk-image.ts';
import { HeldDevice } from '../support/held-device.ts';
import { type DeviceFixture, deviceCompliance } from './device-compliance.ts';

const MIB = 1024 * 1024;
const { profile } = openNullSource({ capacityBytes: 8 * MIB, depth: 64 });
const folder = mkdtempSync(join(tmpdir(), 'netbus-mirror-'));
const region = NativeRegion.allocate(16 * MIB);
const images = [await makeImage(8 * MIB), await makeImage(8 * MIB)];
after(async () => {
  region.release();
  rmSync(folder, { recursive: true });
  for (const image of images) await image.remove();
});

/** `isBehind`: the first pass is behind it, and nothing is dirty. */
async function mirror(old: Device, target: Device | undefined, isBehind: boolean) {
  const options = { path: join(folder, 'map'), owner: 'test', capacityBytes: old.profile.capacityBytes };
  const map = DirtyMap.create(options, isBehind ? [] : undefined);
  map.blocking = isBehind;
  let tellOpen = () => {};
  const opened = new Promise<void>((resolve) => {
    tellOpen = resolve;
  });
  const mirror = new Mirror({
    map,
    clock: new ManualClock(),
    allocate: (bytes) => NativeRegion.allocate(bytes),
    openTarget: async () => {
      if (target === undefined) throw new NetbusError('unreachable', 'the test has no new disk');
      return { device: target, ids: { bootId: 'boot', instance: 'one' }, close: () => {} };
    },
    onConverged: () => {},
    onFailed: () => {},
    onTarget: () => tellOpen(),
  });
  const device = mirror.wrap(old);
  if (target !== undefined) await opened;
  const dispose = async () => {
    await mirror.close();
    map.close();
  };
  return { device, mirror, dispose };
}

function held(target: Device | undefined, isBehind: boolean) {
  return async (): Promise<DeviceFixture> => {
    const old = new HeldDevice(profile, 64);
    return {
      ...(await mirror(old, target && new HeldDevice(profile, 32), isBehind)),
      region,
      content: 'zeroes',
      quietAt: 'cut',
      stall: { begin: () => old.hold(), end: () => old.release() },
      lose: () => old.lose(new NetbusError('ended', 'the test lost it')),
      event: () => old.changeCapacity(16 * MIB),
    };
  };
}

const other = new HeldDevice(profile, 1);
deviceCompliance('mirror without its new disk', held(undefined, false));
deviceCompliance('mirror in its first pass', held(other, false));
deviceCompliance('mirror to both', held(other, true));

deviceCompliance('mirror between two images, the switch behind it', async () => {
  const open = ({ path }: { path: string }) => openDiskSource({ path, clock: new ManualClock(), log: silentLog });
  const sources = await Promise.all(images.map(open));
  const [old, target] = sources.map((source) => bounce()(source.open()));
  const fixture = await mirror(old, target, true);
  fixture.mirror.finish = true;
  const dispose = async () => {
    await fixture.dispose();
    for (const source of sources) await source.close();
  };
  return { ...fixture, dispose, region, content: 'kept', quietAt: 'cut' };
});
