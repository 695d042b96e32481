import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { native } from './index.ts';
import { ADDON_PATH, loopDevice, systemError, temporaryDirectory } from './testing.ts';

test('an exclusive lock keeps every other open file out, a shared one only writers', (context) => {
  const path = join(temporaryDirectory(context), 'image');
  writeFileSync(path, 'x');
  const [first, second, third] = [openSync(path, 'r+'), openSync(path, 'r+'), openSync(path, 'r+')];
  assert.equal(native.lockFile(first, 'exclusive', 0, 0), true);
  assert.equal(native.lockFile(first, 'exclusive', 0, 0), true);
  assert.equal(native.lockFile(second, 'exclusive', 0, 0), false);
  assert.equal(native.lockFile(second, 'shared', 100, 1), false);
  assert.equal(native.lockFile(first, 'shared', 0, 0), true);
  assert.equal(native.lockFile(second, 'shared', 0, 0), true);
  assert.equal(native.lockFile(third, 'exclusive', 0, 0), false);
  closeSync(first);
  closeSync(second);
  assert.equal(native.lockFile(third, 'exclusive', 0, 0), true);
  closeSync(third);
});

test('locks are ranges', (context) => {
  const path = join(temporaryDirectory(context), 'image');
  writeFileSync(path, '');
  const [first, second] = [openSync(path, 'r+'), openSync(path, 'r+')];
  assert.equal(native.lockFile(first, 'exclusive', 0, 100), true);
  assert.equal(native.lockFile(second, 'exclusive', 100, 0), true);
  assert.equal(native.lockFile(second, 'exclusive', 99, 1), false);
  closeSync(first);
  closeSync(second);
});

test('a lock belongs to the open file: a duplicate keeps it, another close of the same path does not drop it', (context) => {
  const path = join(temporaryDirectory(context), 'image');
  writeFileSync(path, '');
  const [first, second] = [openSync(path, 'r+'), openSync(path, 'r+')];
  assert.equal(native.lockFile(first, 'exclusive', 0, 0), true);
  closeSync(openSync(path, 'r'));
  const copy = native.duplicate(first);
  closeSync(first);
  assert.equal(native.lockFile(second, 'exclusive', 0, 0), false);
  native.close(copy);
  assert.equal(native.lockFile(second, 'exclusive', 0, 0), true);
  closeSync(second);
});

test('a lock ends with the process that held it', async (context) => {
  const path = join(temporaryDirectory(context), 'image');
  writeFileSync(path, '');
  const script = `
    const native = require(${JSON.stringify(ADDON_PATH)});
    const fd = require('fs').openSync(${JSON.stringify(path)}, 'r+');
    console.log(native.lockFile(fd, 'exclusive', 0, 0));
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(child.stdout, 'data');
  assert.equal(String(line).trim(), 'true');
  const fd = openSync(path, 'r+');
  assert.equal(native.lockFile(fd, 'shared', 0, 0), false);
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.equal(native.lockFile(fd, 'shared', 0, 0), true);
  closeSync(fd);
});

test('a lock that cannot be asked for throws', (context) => {
  const path = join(temporaryDirectory(context), 'image');
  writeFileSync(path, '');
  const fd = openSync(path, 'r');
  assert.throws(() => native.lockFile(fd, 'exclusive', 0, 0), systemError('EBADF', 'fcntl'));
  assert.throws(() => native.lockFile(fd, 'both' as 'shared', 0, 0), RangeError);
  assert.throws(() => native.lockFile(fd, 'shared', -1, 0), RangeError);
  closeSync(fd);
});

test('blockDevice tells size and blocks', (context) => {
  const device = loopDevice(context, 8 * 1024 * 1024);
  if (typeof device !== 'string') return context.skip(device.skip);
  const fd = openSync(device, 'r');
  const found = native.blockDevice(fd);
  closeSync(fd);
  assert.deepEqual(found, { sizeBytes: 8 * 1024 * 1024, logicalBlockBytes: 512, physicalBlockBytes: 512, readOnly: false });
});

test('blockDevice throws ENOTTY for a file', () => {
  const fd = native.createMemoryFile('no device', 512);
  assert.throws(() => native.blockDevice(fd), systemError('ENOTTY', 'ioctl'));
  native.close(fd);
});
