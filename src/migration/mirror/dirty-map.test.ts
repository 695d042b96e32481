import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { DirtyMap } from './dirty-map.ts';

const KIB = 1024;
const folder = mkdtempSync(join(tmpdir(), 'netbus-map-'));
after(() => rmSync(folder, { recursive: true }));
const options = { path: join(folder, 'map'), owner: 'job 1\nboot 1', capacityBytes: 640 * KIB + 512 };

describe('the map of a copy', () => {
  test('begins with the whole disk, or with what it is told', () => {
    const whole = DirtyMap.create(options);
    assert.equal(whole.dirty, 11);
    assert.equal(whole.dirtyBytes, options.capacityBytes);
    whole.close();
    const parts = DirtyMap.create(options, [
      { position: 100 * KIB, length: 64 * KIB },
      { position: 640 * KIB, length: 512 },
    ]);
    assert.deepEqual(
      [1, 2, 10].map((region) => parts.has(region)),
      [true, true, true],
    );
    assert.equal(parts.dirty, 3);
    parts.close();
  });

  test('goes on behind a restart: what was on its way to the new disk is dirty', () => {
    const before = DirtyMap.create(options, [{ position: 0, length: 1 }]);
    before.blocking = true;
    before.target = 77;
    before.markDirty(128 * KIB, 4 * KIB);
    before.clean(0);
    before.markUnflushed(300 * KIB, 512);
    before.close();
    const after = DirtyMap.open(options)!;
    assert.deepEqual(
      [0, 2, 4].map((region) => after.has(region)),
      [false, true, true],
    );
    assert.equal(after.dirty, 2);
    assert.equal(after.unflushed, 0);
    assert.equal(after.blocking, true);
    assert.equal(after.target, 77);
    assert.equal(after.wasTouched(256 * KIB, 512), true);
    assert.equal(after.wasTouched(0, 256 * KIB), false);
    after.close();
  });

  test('a flush covers what was answered when it left', () => {
    const map = DirtyMap.create(options, []);
    map.markUnflushed(0, 512);
    map.markUnflushed(64 * KIB, 512);
    map.beginFlush();
    // Was on its way.
    map.markUnflushed(64 * KIB, 512);
    map.markUnflushed(128 * KIB, 512);
    assert.equal(map.unflushed, 3);
    map.flushed();
    assert.equal(map.unflushed, 2);
    map.beginFlush();
    map.flushEnded();
    map.beginFlush();
    map.flushed();
    assert.equal(map.unflushed, 0);
    map.close();
  });

  test('a flush without an answer covers nothing', () => {
    const map = DirtyMap.create(options, []);
    map.markUnflushed(0, 512);
    map.beginFlush();
    map.flushEnded();
    map.forget();
    assert.equal(map.dirty, 1);
    assert.equal(map.unflushed, 0);
    map.close();
  });

  test('one of another owner, of another disk, cut short or of something else is not used', () => {
    DirtyMap.create(options).close();
    assert.equal(DirtyMap.open({ ...options, owner: 'job 2\nboot 1' }), undefined);
    assert.equal(DirtyMap.open({ ...options, capacityBytes: 640 * KIB }), undefined);
    truncateSync(options.path, 4096);
    assert.equal(DirtyMap.open(options), undefined);
    writeFileSync(options.path, Buffer.alloc(4096 + 3 * 8));
    assert.equal(DirtyMap.open(options), undefined);
    DirtyMap.remove(options.path);
    DirtyMap.remove(options.path);
    assert.equal(DirtyMap.open(options), undefined);
  });

  test('a file that is cut while it is used makes the map faulty', () => {
    const map = DirtyMap.create({ ...options, capacityBytes: 2 ** 40 });
    assert.equal(map.faulty, false);
    truncateSync(options.path, 4096);
    map.clean(2 ** 20);
    assert.equal(map.faulty, true);
    map.close();
  });

  test('is used no more once it is closed', () => {
    const map = DirtyMap.create(options);
    map.close();
    map.close();
    map.markDirty(0, 512);
    map.markUnflushed(0, 512);
    map.beginFlush();
    map.flushed();
    map.forget();
    assert.equal(map.nextDirty(0), -1);
    assert.equal(map.faulty, true);
  });

  test('a larger disk has larger regions, and never more than 8 MiB of each map', () => {
    const large = DirtyMap.create({ ...options, capacityBytes: 2 ** 42 + 512 });
    assert.equal(large.regionBytes, 128 * KIB);
    assert.ok(statSync(options.path).size <= 4096 + 3 * 8 * 1024 * KIB);
    large.close();
    const small = DirtyMap.create({ ...options, capacityBytes: 512 });
    assert.equal(small.regionBytes, 64 * KIB);
    assert.equal(small.dirty, 1);
    small.close();
    assert.equal(existsSync(`${options.path}.new`), false);
  });
});
