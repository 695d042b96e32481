import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLoad, smokeLoads } from './disk-loads.ts';

test('a name says what the load is', () => {
  assert.deepEqual(parseLoad('randread-4k-qd32'), {
    name: 'randread-4k-qd32',
    readPercent: 100,
    random: true,
    blockBytes: 4096,
    depth: 32,
  });
  assert.deepEqual(parseLoad('mix70-128k-qd1'), {
    name: 'mix70-128k-qd1',
    readPercent: 70,
    random: false,
    blockBytes: 131072,
    depth: 1,
  });
  for (const name of smokeLoads) assert.equal(parseLoad(name).name, name);
});

test('a name that is none says what is expected', () => {
  assert.throws(() => parseLoad('fast'), /unknown load "fast": expected .*randread-4k-qd32/);
  assert.throws(() => parseLoad('read-4k-qd0'), /depth is 1 to 128/);
  assert.throws(() => parseLoad('read-4k-qd129'), /depth is 1 to 128/);
  assert.throws(() => parseLoad('read-2048k-qd1'), /1k to 1024k/);
  assert.throws(() => parseLoad('mix101-4k-qd1'), /0 to 100 percent/);
});
