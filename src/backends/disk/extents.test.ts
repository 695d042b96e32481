import assert from 'node:assert/strict';
import { closeSync, openSync, truncateSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { loopDevice } from '../../../native/testing.ts';
import { makeImage } from '../../../test/support/disk-image.ts';
import type { BackendSource } from '../../device/source.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { type DiskSourceOptions, openDiskSource } from './disk.ts';

const MIB = 1024 * 1024;

let image: Awaited<ReturnType<typeof makeImage>>;
const open: BackendSource[] = [];

beforeEach(async () => {
  image = await makeImage(256 * MIB);
});
afterEach(async () => {
  for (const source of open.splice(0)) await source.close();
  await image.remove();
});

async function openSource(options: Partial<DiskSourceOptions> = {}): Promise<BackendSource> {
  const source = await openDiskSource({ path: image.path, clock: systemClock, log: silentLog, ...options });
  open.push(source);
  return source;
}

function write(position: number, bytes: Buffer): void {
  const fd = openSync(image.path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, position);
  closeSync(fd);
}

test('an image of holes is blank; one with data says where it is', async () => {
  const source = await openSource();
  assert.deepEqual(await source.extents!(0), { ranges: [] });
  assert.equal(await source.isBlank!(), true);
  write(16 * MIB, Buffer.alloc(MIB, 7));
  assert.deepEqual(await source.extents!(0), { ranges: [[16 * MIB, MIB]] });
  assert.deepEqual(await source.extents!(17 * MIB), { ranges: [] });
  assert.deepEqual(await source.extents!(1024 * MIB), { ranges: [] });
  assert.equal(await source.isBlank!(), false);
});

test('a little data is read, also past the page cache: zeroes are blank, one other byte is not', async (context) => {
  write(3 * MIB, Buffer.alloc(5 * MIB));
  const direct = await openSource({ direct: true }).catch((thrown: Error) => thrown);
  if (direct instanceof Error) return context.skip(`no direct I/O here: ${direct.message}`);
  assert.equal(await direct.isBlank!(), true);
  write(8 * MIB - 1, Buffer.alloc(1, 1));
  assert.equal(await direct.isBlank!(), false);
});

test('more data than is read counts as data, whatever it is', async () => {
  write(0, Buffer.alloc(65 * MIB));
  assert.equal(await (await openSource()).isBlank!(), false);
});

test('a block device is data all over; a small one of zeroes is blank', async (context) => {
  const device = loopDevice(context, 8 * MIB);
  if (typeof device !== 'string') return context.skip(device.skip);
  const source = await openSource({ path: device });
  assert.deepEqual(await source.extents!(4096), { ranges: [[4096, 8 * MIB - 4096]] });
  assert.equal(await source.isBlank!(), true);
});

test('an image that shrank, and one that is closed meanwhile', async () => {
  const source = await openSource();
  write(200 * MIB, Buffer.alloc(MIB, 1));
  truncateSync(image.path, 100 * MIB);
  assert.deepEqual(await source.extents!(0), { ranges: [] });
  const looking = source.extents!(0);
  await source.close();
  assert.deepEqual(await looking, { ranges: [] });
  await assert.rejects(source.extents!(0), { code: 'device', message: /is closed/ });
});
