/** The disk backend on block devices: loop devices, for which it takes root. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmdirSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { NativeRegion } from '../../native/region.ts';
import { openDiskSource } from '../../src/backends/disk/disk.ts';
import { ManualClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { makeLoopDevice } from '../support/loop-device.ts';
import { deviceCompliance } from './device-compliance.ts';

const MIB = 1024 * 1024;
const needs = 'needs root and loop devices: run it as root with losetup installed';
const region = NativeRegion.allocate(16 * MIB);
const clock = new ManualClock();

for (const [name, direct, options] of [
  ['buffered', false, []],
  ['direct', true, []],
  ['direct, 4096-byte blocks', true, ['--sector-size', '4096']],
] as const) {
  const loop = await makeLoopDevice(8 * MIB, options);
  if (loop === undefined) {
    test(`compliance: block device, ${name}`, { skip: needs }, () => {});
    continue;
  }
  after(loop.remove);
  deviceCompliance(`block device, ${name}`, async () => {
    const source = await openDiskSource({ path: loop.path, direct, clock, log: silentLog });
    return { device: source.open(), region, content: 'kept', quietAt: 'close', dispose: () => source.close() };
  });
}
after(() => region.release());

test('a block device: its blocks, its size, and not while it is mounted', async (t) => {
  const loop = await makeLoopDevice(8 * MIB, ['--sector-size', '4096']);
  if (loop === undefined) return t.skip(needs);
  try {
    const source = await openDiskSource({ path: loop.path, clock, log: silentLog });
    assert.equal(source.profile.logicalBlockBytes, 4096);
    assert.equal(source.profile.capacityBytes, 8 * MIB);
    await assert.rejects(openDiskSource({ path: loop.path, clock, log: silentLog }), { code: 'in_use' });
    truncateSync(loop.imagePath, 16 * MIB);
    execFileSync('losetup', ['--set-capacity', loop.path]);
    assert.equal((await source.refresh()).capacityBytes, 16 * MIB);
    await source.close();
    await assertNotWhileMounted(loop.path);
  } finally {
    await loop.remove();
  }
});

async function assertNotWhileMounted(path: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'netbus-mount-'));
  execFileSync('mkfs.ext4', ['-q', path]);
  execFileSync('mount', [path, folder]);
  try {
    await assert.rejects(openDiskSource({ path, clock, log: silentLog }), { code: 'in_use', message: /mounted/ });
  } finally {
    execFileSync('umount', [folder]);
    rmdirSync(folder);
  }
}
