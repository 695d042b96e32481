import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { pattern } from '../../../test/support/vhost-user/disk-bench.ts';
import { withTwoHosts } from '../../../test/support/vhost-user/two-hosts.ts';
import { waitFor } from '../../../test/support/wait.ts';
import { handOverSchema } from '../../device/hand-over.ts';
import { InflightQueue, inflightBytes } from '../../protocols/virtqueue/index.ts';
import { readInflightHandOver } from './inflight-hand-over.ts';

const folder = mkdtempSync(join(tmpdir(), 'netbus-inflight-'));
const path = join(folder, 'region');
after(() => rmSync(folder, { recursive: true }));

/** A region of two queues of eight entries; the second was used up to 5, and has heads 3, 1 and 6 in flight. */
function region(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(2 * inflightBytes(8));
  const window = new ArrayBuffer(inflightBytes(8));
  const queue = new InflightQueue(window, 8);
  queue.begin({ name: 'new' }, 5);
  for (const head of [3, 1, 6]) queue.mark(head);
  bytes.set(new Uint8Array(window), inflightBytes(8));
  return bytes;
}

test('queues that were used and queues that were not, and more than the region has', () => {
  writeFileSync(path, region());
  const unused = { fetched: 0, usedIndex: 0, heads: [], lastBatch: [] };
  const used = { fetched: 8, usedIndex: 5, heads: [3, 1, 6], lastBatch: [0] };
  assert.deepEqual(readInflightHandOver(path, 2), [unused, used]);
  assert.deepEqual(readInflightHandOver(path, 4), [unused, used, unused, unused]);
  assert.equal(readInflightHandOver(path, 1), undefined, 'a device of one queue did not leave that behind');
});

test('no file, no region, none that was used', () => {
  assert.equal(readInflightHandOver(join(folder, 'absent'), 2), undefined);
  writeFileSync(path, new Uint8Array(2 * inflightBytes(8)));
  assert.equal(readInflightHandOver(path, 2), undefined);
  writeFileSync(path, '');
  assert.equal(readInflightHandOver(path, 2), undefined);
  writeFileSync(path, new Uint8Array(100));
  assert.equal(readInflightHandOver(path, 2), undefined);
  writeFileSync(path, new Uint8Array(2 ** 20));
  assert.equal(readInflightHandOver(path, 2), undefined);
  mkdirSync(join(folder, 'folder'));
  assert.equal(readInflightHandOver(join(folder, 'folder'), 2), undefined);
  writeFileSync(path, region());
  symlinkSync(path, join(folder, 'link'));
  assert.equal(readInflightHandOver(join(folder, 'link'), 2), undefined);
});

const spoilt: [string, number, number][] = [
  ['another version', 8, 9],
  ['another size', 10, 7],
  ['a counter beyond 2^53', 16 + 3 * 16 + 15, 0xff],
];
for (const [what, at, value] of spoilt) {
  test(`a region with ${what} is not believed`, () => {
    const bytes = region();
    bytes[inflightBytes(8) + at] = value;
    writeFileSync(path, bytes);
    assert.equal(readInflightHandOver(path, 2), undefined);
  });
}

test('whatever is in the file, looking at it ends, and what it gives can be stored', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 128, maxLength: 128 }), fc.boolean(), (bytes, sane) => {
      const view = new DataView(bytes.buffer);
      if (sane) for (const [i, value] of [1, 4].entries()) view.setUint16(8 + 2 * i, value, true);
      writeFileSync(path, bytes);
      const queues = readInflightHandOver(path, 2);
      if (queues !== undefined) assert.ok(handOverSchema.safeParse({ queues }).success);
    }),
    { numRuns: 300 },
  );
});

test('a daemon that was killed: its guest goes on elsewhere from the file', () =>
  withTwoHosts(async ({ m1, m2, clock, connect }) => {
    const vm = await connect({ queues: 1 });
    m1.disk.holding = true;
    const work = [0, 1, 2, 3, 4].map((i) => vm.write(i, pattern(512, i)));
    await waitFor('they are held', () => m1.disk.device?.held === 5);
    for (const i of [3, 1]) {
      m1.disk.device!.releaseAt(i);
      await work[i];
    }
    writeFileSync(path, readFileSync(m1.inflightPath));
    const left = readInflightHandOver(path, 2)!;
    assert.equal(left[0].heads.length, 3);
    // Here it cannot be killed: it ends, and what it says is not heard.
    vm.disconnect();
    await waitFor('the end', () => {
      clock.advance(1_000);
      return !m1.frontend.status().connected;
    });
    m2.passage.expect();
    await vm.moveTo(m2.path, false);
    m2.passage.arrive(left);
    await Promise.all(work);
    assert.deepEqual(
      m2.disk.seen.map(({ argument }) => argument / 512),
      [0, 2, 4],
    );
  }));
