/** Servers that go away, hang, lie, or come back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chunk, dataChunk, type FakeRequest, holeChunk, simpleReply } from '../../../test/support/fake-nbd-server.ts';
import { NbdBench } from '../../../test/support/nbd-bench.ts';
import { waitFor } from '../../../test/support/wait.ts';
import { DiskKind, DiskStatus } from '../../device/disk.ts';
import { CHUNK_FLAG_DONE, Chunk, Command, NbdError } from '../../protocols/nbd/constants.ts';

const MIB = 1024 * 1024;
const SILENT_MS = 10_000;

function bench(title: string, body: (bench: NbdBench) => Promise<void>): void {
  test(title, { timeout: 60_000 }, async () => {
    const made = new NbdBench();
    await made.server.listen();
    try {
      await body(made);
    } finally {
      await made.close();
    }
  });
}

bench('a server that was killed is the end of this instance, and nothing that it had is in doubt', async (bench) => {
  const { server } = bench;
  const guest = await bench.start();
  server.holding = true;
  for (let i = 0; i < 4; i++) guest.add({ kind: DiskKind.write, position: i * 4096, outBytes: 4096 });
  guest.pushAll();
  await waitFor('the server to have them', () => server.held.length === 4);
  await server.kill();
  await guest.until(() => guest.lostCauses.length === 1);
  assert.match(guest.lostCauses[0].message, /the NBD server ended the connection/);
  assert.deepEqual(
    bench.losses.map(({ inDoubt }) => inDoubt),
    [false],
  );
  const quiesced = await guest.quiesce(new AbortController().signal);
  assert.deepEqual(quiesced, { outcome: 'cut', unfinished: [...guest.lent] });
  await assert.rejects(bench.source.refresh(), { code: 'device' });
  await guest.close();
  // Whoever opens it all the same is told.
  const late = await bench.start();
  await late.until(() => late.lostCauses.length === 1);
});

bench('a server that ends in order has not done what it refuses', async (bench) => {
  const { server } = bench;
  const guest = await bench.start();
  server.errorOf = () => NbdError.shutdown;
  guest.add({ kind: DiskKind.write, position: 0, outBytes: 4096 });
  guest.pushAll();
  await guest.until(() => guest.lostCauses.length === 1);
  assert.equal(guest.answers.length, 0);
  assert.match(guest.lostCauses[0].message, /is ending/);
  assert.equal(bench.losses[0].inDoubt, false);
});

bench('close waits for what the server has, and what was not sent is never sent', async (bench) => {
  const { server } = bench;
  const guest = await bench.start();
  server.holding = true;
  guest.add({ kind: DiskKind.write, position: 0, outBytes: 4096 });
  guest.pushAll();
  await waitFor('the server to have it', () => server.held.length === 1);
  const quiesced = await guest.quiesce(AbortSignal.abort());
  assert.deepEqual(quiesced, { outcome: 'cut', unfinished: [...guest.lent] });
  let closed = false;
  const closing = guest.close().then(() => {
    closed = true;
  });
  await guest.silence();
  assert.equal(closed, false);
  assert.equal(bench.source.describe().unanswered, 1);
  server.release();
  await closing;
  assert.equal(bench.source.describe().unanswered, 0);
  // The next use has the same connection and instance.
  await bench.start();
  assert.equal(await bench.ask({ kind: DiskKind.read, position: 0, inBytes: 512 }), DiskStatus.ok);
  assert.equal(server.clients, 1);
});

bench('a payload that is on its way at the cut is sent as it was', async (bench) => {
  const { server } = bench;
  const guest = await bench.start();
  // More than the sockets hold: the last ones are not sent, and one is in the middle.
  const rows = [0, 1].map((i) => guest.add({ kind: DiskKind.write, position: 4 * MIB * i, outBytes: 4 * MIB }));
  for (const [i, row] of rows.entries()) guest.fill(row, Buffer.alloc(4 * MIB, i + 1));
  guest.pushAll();
  const quiesced = await guest.quiesce(AbortSignal.abort());
  assert.equal(quiesced.outcome, 'cut');
  bench.region.bytes(0, 16 * MIB).fill(0xa5);
  await guest.close();
  assert.equal(server.storage.includes(0xa5), false);
  const written = server.seen.filter(({ command }) => command === Command.write);
  assert.ok(written.length < rows.length, 'the second one was not sent');
  assert.ok(server.storage.subarray(0, 4 * MIB).every((byte) => byte === 1));
});

bench('a server that says nothing is told of, and waited for', async (bench) => {
  const { server, clock } = bench;
  const guest = await bench.start();
  clock.advance(SILENT_MS);
  assert.equal((await bench.source.refresh()).class, 'disk', 'it was asked nothing');
  server.holding = true;
  guest.add({ kind: DiskKind.read, position: 0, inBytes: 4096 });
  guest.pushAll();
  clock.advance(SILENT_MS - 1);
  await bench.source.refresh();
  clock.advance(1);
  await assert.rejects(bench.source.refresh(), { code: 'timeout', message: /not answered 1 requests for 10 s/ });
  await waitFor('the server to have it', () => server.held.length === 1);
  server.release();
  await guest.answered();
  await bench.source.refresh();
});

bench('a server that is away is waited for, where that is asked for', async (bench) => {
  const { server, clock } = bench;
  await server.kill();
  await assert.rejects(bench.open(), { code: 'unreachable', message: /there is no socket|cannot be reached/ });
  const reasons: string[] = [];
  const giveUp = new AbortController();
  const opening = bench.open({ waitForServer: { signal: giveUp.signal, onWaiting: (reason) => reasons.push(reason) } });
  await waitFor('it to wait', () => reasons.length === 1);
  await server.listen();
  clock.advance(500);
  await opening;
  assert.equal(server.clients, 1);
});

bench('a server that serves somebody else is waited for within a bound, and can be given up', async (bench) => {
  const { clock, server } = bench;
  server.mute = true;
  const opening = assert.rejects(bench.open(), { code: 'timeout', message: /may be serving another client/ });
  await waitFor('it to be connected', () => server.clients === 1);
  clock.advance(10_000);
  await opening;
  const giveUp = new AbortController();
  const givenUp = assert.rejects(bench.open({ waitForServer: { signal: giveUp.signal } }), { code: 'ended' });
  await waitFor('it to be connected', () => server.clients === 2);
  giveUp.abort();
  await givenUp;
});

const lies: [string, (request: FakeRequest) => Buffer][] = [
  ['no answer at all', () => Buffer.alloc(64)],
  ['an answer to nothing', ({ cookie }) => simpleReply(cookie + 1n, 0)],
  ['an answer to another user', ({ cookie }) => simpleReply(cookie + (1n << 32n), 0)],
  ['a read without structure', ({ cookie }) => Buffer.concat([simpleReply(cookie, 0), Buffer.alloc(4096)])],
  ['too little', ({ cookie, position }) => dataChunk(cookie, CHUNK_FLAG_DONE, position, Buffer.alloc(512))],
  ['nothing', ({ cookie }) => chunk(cookie, CHUNK_FLAG_DONE, Chunk.none, Buffer.alloc(0))],
  ['too much', ({ cookie, position }) => dataChunk(cookie, CHUNK_FLAG_DONE, position, Buffer.alloc(8192))],
  ['data before', ({ cookie, position }) => dataChunk(cookie, 0, position - 512, Buffer.alloc(4096))],
  ['data far away', ({ cookie }) => holeChunk(cookie, 0, 2 ** 60, 512)],
  ['a hole beyond', ({ cookie, position }) => holeChunk(cookie, 0, position + 4096, 512)],
  ['a hole of nothing', ({ cookie, position }) => holeChunk(cookie, 0, position, 0)],
  [
    'the same twice, and more than there is',
    ({ cookie, position }) => Buffer.concat([3000, 3000].map((length) => dataChunk(cookie, 0, position, Buffer.alloc(length)))),
  ],
  [
    'two answers',
    ({ cookie, position }) => Buffer.concat([0, 1].map(() => dataChunk(cookie, CHUNK_FLAG_DONE, position, Buffer.alloc(4096)))),
  ],
];
for (const [what, instead] of lies) {
  bench(`a server that lies is left: ${what}`, async (bench) => {
    const guest = await bench.start();
    bench.server.instead = instead;
    guest.add({ kind: DiskKind.read, position: 8192, inBytes: 4096 });
    guest.pushAll();
    await guest.until(() => guest.lostCauses.length === 1);
    assert.equal(guest.lostCauses[0].code, 'protocol');
    assert.equal(bench.losses[0].inDoubt, false, 'it was asked to read alone');
  });
}

bench('what overlaps leaves nothing in memory that was there before', async (bench) => {
  const guest = await bench.start();
  bench.region.bytes(0, MIB).fill(0x77);
  bench.server.instead = ({ cookie, position }) =>
    Buffer.concat([0, CHUNK_FLAG_DONE].map((flags) => dataChunk(cookie, flags, position, Buffer.alloc(2048, 1))));
  const row = guest.add({ kind: DiskKind.read, position: 0, inBytes: 4096 });
  guest.pushAll();
  await guest.answered();
  assert.equal(bench.read.get(row)!.includes(0x77), false);
});

bench('writes that a living server did not answer are in doubt', async (bench) => {
  const { server } = bench;
  const guest = await bench.start();
  server.holding = true;
  guest.add({ kind: DiskKind.write, position: 0, outBytes: 4096 });
  guest.pushAll();
  await waitFor('the server to have it', () => server.held.length === 1);
  server.send(Buffer.alloc(64));
  await guest.until(() => guest.lostCauses.length === 1);
  assert.deepEqual(
    bench.losses.map(({ inDoubt, cause }) => [inDoubt, cause.code]),
    [[true, 'protocol']],
  );
});
