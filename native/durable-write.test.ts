import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { native } from './index.ts';
import { ADDON_PATH, temporaryDirectory } from './testing.ts';

const { ENOENT, ELOOP, EISDIR } = constants.errno;

function write(path: string, position: number, bytes: Uint8Array, offset = 0, length = bytes.length - offset): Promise<number> {
  return new Promise((resolve) => native.writeDurably(path, position, bytes, offset, length, resolve));
}

test('a part of a file is written over, and the rest of it stays', async (context) => {
  const path = join(temporaryDirectory(context), 'file');
  writeFileSync(path, 'abcdefgh');
  assert.equal(await write(path, 2, Buffer.from('xXYZx'), 1, 3), 0);
  assert.equal(readFileSync(path, 'latin1'), 'abXYZfgh');
  assert.equal(await write(path, 0, new Uint8Array(0)), 0);
  assert.equal(readFileSync(path, 'latin1'), 'abXYZfgh');
});

test('the bytes are those of the call, whatever becomes of the buffer', async (context) => {
  const path = join(temporaryDirectory(context), 'file');
  writeFileSync(path, '');
  const bytes = new Uint8Array(1024 * 1024).fill(1);
  const written = write(path, 0, bytes);
  bytes.fill(2);
  assert.equal(await written, 0);
  assert.deepEqual(readFileSync(path), Buffer.alloc(bytes.length, 1));
});

test('many at a time are all answered', async (context) => {
  const path = join(temporaryDirectory(context), 'file');
  writeFileSync(path, '');
  const results = await Promise.all(Array.from({ length: 64 }, (_, i) => write(path, i, Uint8Array.of(i))));
  assert.deepEqual(results, new Array(64).fill(0));
  assert.deepEqual(readFileSync(path), Buffer.from(Array.from({ length: 64 }, (_, i) => i)));
});

test('what the world says no to is a negative errno, and makes nothing', async (context) => {
  const folder = temporaryDirectory(context);
  writeFileSync(join(folder, 'file'), 'abc');
  symlinkSync('file', join(folder, 'link'));
  assert.equal(await write(join(folder, 'none'), 0, Uint8Array.of(1)), -ENOENT);
  assert.equal(await write(join(folder, 'link'), 0, Uint8Array.of(1)), -ELOOP);
  assert.equal(await write(folder, 0, Uint8Array.of(1)), -EISDIR);
  assert.equal(readFileSync(join(folder, 'file'), 'latin1'), 'abc');
});

test('what only a bug can ask for is thrown', (context) => {
  const path = join(temporaryDirectory(context), 'file');
  const bytes = new Uint8Array(4);
  const tooMany = new Uint8Array(4 * 1024 * 1024 + 1);
  const none = () => assert.fail('it was called');
  assert.throws(() => native.writeDurably(path, -1, bytes, 0, 4, none), RangeError);
  assert.throws(() => native.writeDurably(path, 0, bytes, 0, 5, none), RangeError);
  assert.throws(() => native.writeDurably(path, 0, bytes, 4, 1, none), RangeError);
  assert.throws(() => native.writeDurably(path, 0, tooMany, 0, tooMany.length, none), RangeError);
  assert.throws(() => native.writeDurably(`${path}\0x`, 0, bytes, 0, 4, none), RangeError);
  assert.throws(() => native.writeDurably(path, 0, 'abcd' as unknown as Uint8Array, 0, 4, none), TypeError);
  assert.throws(() => native.writeDurably(path, 0, bytes, 0, 4, 1 as unknown as () => void), TypeError);
  assert.throws(() => native.writeDurably('x'.repeat(5000), 0, bytes, 0, 4, none), { code: 'ENAMETOOLONG', syscall: 'open' });
});

test('it keeps the event loop alive, and what its callback throws is an uncaught exception', (context) => {
  const path = join(temporaryDirectory(context), 'file');
  writeFileSync(path, 'abc');
  const script = `
    process.on('uncaughtException', (error) => console.log(error.message));
    require(${JSON.stringify(ADDON_PATH)}).writeDurably(${JSON.stringify(path)}, 0, Buffer.from('x'), 0, 1, (result) => {
      throw new Error('answered ' + result);
    });`;
  const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  assert.equal(child.stdout.trim(), 'answered 0', child.stderr);
});

test('a thread that ends does not wait for its callback', async (context) => {
  const path = join(temporaryDirectory(context), 'file');
  writeFileSync(path, 'abc');
  const worker = new Worker(
    `const native = require(${JSON.stringify(ADDON_PATH)});
    for (let i = 0; i < 16; i++) native.writeDurably(${JSON.stringify(path)}, 0, Buffer.alloc(65536), 0, 65536, () => {});
    process.exit(3);`,
    { eval: true },
  );
  const code = await new Promise((resolve) => worker.once('exit', resolve));
  assert.equal(code, 3);
});
