/** The load loop against a device that is a loop itself: what it asks for, and what it reports. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { native } from '../native/index.ts';
import { BlockRequestType, BlockStatus } from '../test/support/vhost-user/block-request.ts';
import { DriverQueue } from '../test/support/vhost-user/driver-queue.ts';
import { EchoDevice } from '../test/support/vhost-user/echo-device.ts';
import { GuestMemory } from '../test/support/vhost-user/guest-memory.ts';
import { parseLoad } from './disk-loads.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import { LoadLoop } from './load-loop.ts';

const WORKING_SET_BYTES = 64 * 4096;

/** Runs a load for a hundred batches and returns the requests that the device saw. */
async function runLoad(name: string, status: number) {
  const memory = new GuestMemory(4 * 1024 * 1024);
  const queue = new DriverQueue(memory, 64);
  queue.eventIndex = true;
  const device = new EchoDevice(memory, queue, () => status);
  const histogram = new LatencyHistogram();
  try {
    // A clock that advances by one at each look: one look for each batch.
    let time = 0;
    const now = () => ++time;
    const load = parseLoad(name);
    const loop = new LoadLoop({ memory, queue, load, workingSetBytes: WORKING_SET_BYTES, seed: 42, histogram, now });
    const totals = await loop.run(10, 100);
    return { totals, requests: device.requests, deepest: device.deepest, histogram };
  } finally {
    device.close();
    queue.close();
    memory.close();
    assert.equal(native.regionCount(), 0);
  }
}

test('random reads at their depth, inside the working set', async () => {
  const { totals, requests, deepest, histogram } = await runLoad('randread-4k-qd8', BlockStatus.ok);
  assert.equal(totals.errors, 0);
  assert.ok(totals.completed > 0 && totals.completed < totals.total);
  assert.equal(totals.total, requests.length);
  assert.equal(histogram.count, totals.completed);
  assert.equal(deepest, 8);
  for (const { type, sector, dataBytes } of requests) {
    assert.equal(type, BlockRequestType.read);
    assert.equal(dataBytes, 4096);
    assert.ok(sector % 8 === 0 && sector < WORKING_SET_BYTES / 512);
  }
  assert.ok(new Set(requests.map(({ sector }) => sector)).size > 1);
});

test('the same seed asks for the same sectors', async () => {
  const [one, other] = [await runLoad('randread-4k-qd2', 0), await runLoad('randread-4k-qd2', 0)];
  const shared = Math.min(one.requests.length, other.requests.length, 100);
  const sectors = (run: typeof one) => run.requests.slice(0, shared).map(({ sector }) => sector);
  assert.deepEqual(sectors(one), sectors(other));
});

test('sequential writes begin anew at the end of the working set', async () => {
  const { requests } = await runLoad('write-16k-qd4', BlockStatus.ok);
  const blocks = WORKING_SET_BYTES / 16384;
  requests.slice(0, 3 * blocks).forEach(({ type, sector }, i) => {
    assert.equal(type, BlockRequestType.write);
    assert.equal(sector, (i % blocks) * 32);
  });
});

test('a mix has both', async () => {
  const { requests } = await runLoad('randmix50-4k-qd8', BlockStatus.ok);
  const types = new Set(requests.map(({ type }) => type));
  assert.deepEqual([...types].sort(), [BlockRequestType.read, BlockRequestType.write]);
});

test('every request that fails is counted', async () => {
  const { totals } = await runLoad('randread-4k-qd4', BlockStatus.ioError);
  assert.equal(totals.errors, totals.total);
});
