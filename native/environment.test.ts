import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { native } from './index.ts';
import { ADDON_PATH, openDescriptors, temporaryDirectory } from './testing.ts';

const TIMEOUT = { timeout: 180_000 };

/** A worker thread whose script has `native`, `post` and `fs`. */
function work(script: string, workerData: unknown = null): Worker {
  const prelude = `
    const native = require(${JSON.stringify(ADDON_PATH)});
    const fs = require('fs');
    const { parentPort, workerData } = require('worker_threads');
    const post = (value) => parentPort.postMessage(value);`;
  return new Worker(`${prelude}${script}`, { eval: true, workerData });
}

test('each thread has handles of its own', TIMEOUT, async () => {
  const region = native.allocateRegion(4096);
  const worker = work(
    `
    let error = null;
    try { native.regionWindow(workerData, 0, 1); } catch (caught) { error = caught.name; }
    post([error, native.regionCount(), native.allocateRegion(1) > 0, native.regionCount()]);`,
    region,
  );
  const [message] = await once(worker, 'message');
  assert.deepEqual(message, ['RangeError', 0, true, 1]);
  await once(worker, 'exit');
  assert.equal(native.regionCount(), 1);
  native.unmapRegion(region);
});

test('a worker that ends by itself leaves nothing', TIMEOUT, async () => {
  const script = `
    const fd = native.createMemoryFile('worker', 1 << 20);
    const region = native.mapRegion(fd, 0, 1 << 20);
    const windows = [0, 4096, 8192].map((offset) => new Uint8Array(native.regionWindow(region, offset, 4096)));
    const event = native.createEvent();
    let engine;
    const watch = native.watch(event, { readable: true, writable: false }, () => {
      native.unwatch(watch);
      native.close(event);
      native.close(fd);
      post(windows.length);
    });
    for (const name of ['threads', 'io_uring']) {
      try { engine = native.ioCreate({ entries: 64, engine: name }, () => {}); } catch {}
    }
    native.signalEvent(event);`;
  // The first worker opens what the process keeps for itself.
  await once(work(script), 'exit');
  const before = openDescriptors();
  for (let count = 0; count < 5; count++) {
    const worker = work(script);
    const [[message]] = await Promise.all([once(worker, 'message'), once(worker, 'exit')]);
    assert.equal(message, 3);
  }
  assert.ok(openDescriptors() <= before);
});

for (const engine of ['io_uring', 'threads']) {
  test(`a worker that is terminated in the midst of I/O waits for it (${engine})`, TIMEOUT, async (context) => {
    const path = join(temporaryDirectory(context), 'image');
    openSync(path, 'w');
    const script = `
      const fd = fs.openSync(workerData, 'r+');
      const region = native.allocateRegion(64 << 16);
      const window = new Uint8Array(native.regionWindow(region, 0, 64 << 16)).fill(1);
      let engine;
      try {
        engine = native.ioCreate({ entries: 64, engine: '${engine}' }, () => {});
      } catch {
        engine = native.ioCreate({ entries: 64, engine: 'threads' }, () => {});
      }
      const event = native.createEvent();
      native.watch(event, { readable: true, writable: false }, () => {});
      const words = [];
      for (let tag = 0; tag < 64; tag++) words.push(tag % 2 === 0 ? 3 : 1, fd, tag, tag << 16, 0, 1, region, tag << 16, 1 << 16);
      native.ioSubmit(engine, new Float64Array(words), 64);
      native.unmapRegion(region);
      post('submitted');
      for (;;);`;
    for (let count = 0; count < 5; count++) {
      const worker = work(script, path);
      await once(worker, 'message');
      await worker.terminate();
    }
  });
}

test('threads load and unload the addon at the same time', TIMEOUT, async () => {
  const script = `
    for (let count = 0; count < 200; count++) {
      const fd = native.createMemoryFile('many', 4096);
      const region = native.mapRegion(fd, 0, 4096);
      native.close(fd);
      new Uint8Array(native.regionWindow(region, 0, 4096))[0] = 1;
      native.unmapRegion(region);
    }
    post(native.regionCount());`;
  const workers = [work(script), work(script), work(script), work(script)];
  const messages = await Promise.all(workers.map((worker) => once(worker, 'message')));
  assert.deepEqual(messages.flat(), [0, 0, 0, 0]);
  await Promise.all(workers.map((worker) => (worker.threadId === -1 ? undefined : once(worker, 'exit'))));
});

test('the SIGBUS guard outlives the thread that loaded the addon first, and guards every thread', TIMEOUT, (context) => {
  const path = join(temporaryDirectory(context), 'file');
  const script = `
    const { Worker, isMainThread, parentPort } = require('worker_threads');
    const fs = require('fs');
    function fault() {
      const native = require(${JSON.stringify(ADDON_PATH)});
      const fd = fs.openSync(${JSON.stringify(path)}, 'w+');
      fs.ftruncateSync(fd, 8192);
      const region = native.mapRegion(fd, 0, 8192);
      const window = new Uint8Array(native.regionWindow(region, 0, 8192));
      fs.ftruncateSync(fd, 0);
      console.log(window[0] + window[8191], native.regionFaults(region));
    }
    const source = 'const fs = require("fs"); (' + fault + ')()';
    new Worker(source, { eval: true }).on('exit', () => new Worker(source, { eval: true }).on('exit', fault));`;
  const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', timeout: 180_000 });
  assert.equal(child.stdout, '0 2\n0 2\n0 2\n', child.stderr);
  assert.equal(child.signal, null);
});

test('the handler stays in memory when the only thread that loaded the addon has ended', TIMEOUT, () => {
  const script = `
    const { Worker } = require('worker_threads');
    const source = 'const native = require(' + ${JSON.stringify(JSON.stringify(ADDON_PATH))} + ');' +
      'native.mapRegion(native.createMemoryFile("any", 4096), 0, 4096);';
    new Worker(source, { eval: true }).on('exit', () => {
      console.log(require('fs').readFileSync('/proc/self/maps', 'utf8').includes(${JSON.stringify(ADDON_PATH)}));
    });`;
  const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', timeout: 180_000 });
  assert.equal(child.stdout, 'true\n', child.stderr);
});

test('a process that exits in the midst of everything exits', TIMEOUT, (context) => {
  const path = join(temporaryDirectory(context), 'file');
  const script = `
    const native = require(${JSON.stringify(ADDON_PATH)});
    const fd = require('fs').openSync(${JSON.stringify(path)}, 'w+');
    const region = native.allocateRegion(1 << 20);
    const window = native.regionWindow(region, 0, 1 << 20);
    const event = native.createEvent();
    native.signalEvent(event);
    native.watch(event, { readable: true, writable: false }, () => process.exit(3));
    for (const engine of ['threads', 'io_uring']) {
      try {
        const created = native.ioCreate({ entries: 8, engine }, () => {});
        native.ioSubmit(created, new Float64Array([3, fd, 0, 0, 0, 1, region, 0, 1 << 20, 4, fd, 1, 0, 0, 0]), 2);
      } catch {}
    }`;
  const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', timeout: 180_000 });
  assert.equal(child.status, 3, child.stderr);
});

test('an engine keeps the process alive while operations are in flight, and no longer', TIMEOUT, (context) => {
  const path = join(temporaryDirectory(context), 'file');
  for (const engine of ['threads', 'io_uring']) {
    const script = `
      const native = require(${JSON.stringify(ADDON_PATH)});
      const fd = require('fs').openSync(${JSON.stringify(path)}, 'w+');
      let engine;
      const done = () => console.log(native.ioReap(engine, new Float64Array(2)), native.ioPending(engine));
      try { engine = native.ioCreate({ entries: 8, engine: '${engine}' }, done); }
      catch { engine = native.ioCreate({ entries: 8, engine: 'threads' }, done); }
      native.ioSubmit(engine, new Float64Array([4, fd, 1, 0, 0, 0]), 1);`;
    const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', timeout: 180_000 });
    assert.equal(child.stdout, '1 0\n', child.stderr);
    assert.equal(child.status, 0);
  }
});
