/**
 * The compliance suite: every rule of `src/device/device.ts` that a disk's guest can see, for any Device of the disk class,
 * whatever it is: a backend, a remote device, a filter, a gate, the slot.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Device } from '../../src/device/device.ts';
import { DiskKind, DiskStatus } from '../../src/device/disk.ts';
import { TABLE_ROWS_MAX } from '../../src/device/message-table.ts';
import { DISK_TRANSFER_BYTES_MAX } from '../../src/device/profile.ts';
import type { Region } from '../../src/device/region.ts';
import { randomSchedules } from './random-schedules.ts';
import { TestGuest } from './test-guest.ts';

const TEST_TIMEOUT_MS = 30_000;
/** Answers to one request at a time, each pushed in the reply to the one before: nothing stays so long in one turn of the loop. */
const ANSWERS_A_TURN_MAX = 10_000;
/** Rows that every test may use. */
const ROWS_MIN = 64;
export const BLOCK_BYTES = 4096;

/** One device under test, freshly made, not started. Its capacity is at least 1 MiB. */
export interface DeviceFixture {
  readonly device: Device;
  /** Memory for payloads, at least 8 MiB. */
  readonly region: Region;
  /** What comes back: the data that was written, zeroes, or nothing but `ioError`. */
  readonly content: 'kept' | 'zeroes' | 'failed';
  /**
   * From when on guest memory is left alone: from the cut, as the contract has it, or from the moment that `close` resolves, which is as
   * much as a device whose I/O is in the kernel can promise (docs/decisions/0005).
   */
  readonly quietAt: 'cut' | 'close';
  /** Called after `start`, for devices that need a push from outside to begin. */
  readonly started?: () => void;
  /** Lets what the device holds hang, until `end`. Where it can be had, the cut is tested for certain. */
  readonly stall?: { begin(): void; end(): void };
  /** Makes the device lost. */
  readonly lose?: () => void;
  /** Makes the device send an event. */
  readonly event?: () => void;
  /** Called last, after `close`. */
  readonly dispose?: () => Promise<void> | void;
}

export type MakeFixture = () => Promise<DeviceFixture> | DeviceFixture;

/** Runs the suite: one `describe` named after the device. */
export function deviceCompliance(name: string, make: MakeFixture): void {
  const check = (title: string, body: (guest: TestGuest, fixture: DeviceFixture) => Promise<void>) =>
    test(title, { timeout: TEST_TIMEOUT_MS }, () => withGuest(make, body));

  describe(`compliance: ${name}`, () => {
    check('answers every request once, after push, with the right status', async (guest, { content, device }) => {
      const done = content === 'failed' ? DiskStatus.ioError : DiskStatus.ok;
      const changed = device.profile.readOnly ? DiskStatus.ioError : done;
      const expected = new Map<number, number>();
      for (let i = 0; i < 8; i++) {
        const position = i * BLOCK_BYTES;
        expected.set(guest.add({ kind: DiskKind.write, position, outBytes: BLOCK_BYTES }), changed);
        expected.set(guest.add({ kind: DiskKind.read, position: position + 65536, inBytes: BLOCK_BYTES }), done);
        expected.set(guest.add({ kind: DiskKind.discard, position: position + 131072, extent: BLOCK_BYTES }), changed);
        expected.set(guest.add({ kind: DiskKind.writeZeroes, position: position + 262144, extent: BLOCK_BYTES }), changed);
      }
      expected.set(guest.add({ kind: DiskKind.flush }), done);
      guest.pushAll();
      assert.equal(guest.answers.length, 0);
      await guest.answered();
      assert.equal(guest.answers.length, expected.size);
      for (const { row, status, length } of guest.answers) {
        assert.equal(status, expected.get(row), `status of kind ${guest.requests.kind[row]}`);
        if (status === DiskStatus.ok) assert.equal(length, guest.requests.inLength[row]);
      }
    });

    check('refuses what is no request of its class, or not inside it', async (guest, { content, device }) => {
      const { capacityBytes, readOnly } = device.profile;
      const { ioError, unsupported } = DiskStatus;
      const expected = new Map<number, number>();
      const refused = (status: number, ...request: Parameters<TestGuest['add']>) =>
        expected.set(guest.add(...request), content === 'failed' ? ioError : status);
      refused(unsupported, { kind: 99 });
      refused(unsupported, { kind: 0 });
      refused(ioError, { kind: DiskKind.read, position: capacityBytes, inBytes: 512 });
      refused(ioError, { kind: DiskKind.read, position: capacityBytes - 512, inBytes: BLOCK_BYTES });
      refused(ioError, { kind: DiskKind.read, position: 2 ** 52, inBytes: BLOCK_BYTES });
      refused(ioError, { kind: DiskKind.read, position: 1, inBytes: BLOCK_BYTES });
      refused(ioError, { kind: DiskKind.read, position: 0, inBytes: 100 });
      refused(ioError, { kind: DiskKind.read, position: 0, inBytes: 0 });
      refused(ioError, { kind: DiskKind.read, position: 0, extent: DISK_TRANSFER_BYTES_MAX + 512, inBytes: 512 });
      refused(ioError, { kind: DiskKind.write, position: capacityBytes, outBytes: 512 });
      refused(ioError, { kind: DiskKind.write, position: 0, extent: 512, inBytes: 512 });
      refused(ioError, { kind: DiskKind.discard, position: capacityBytes, extent: 512 });
      refused(ioError, { kind: DiskKind.writeZeroes, position: 0, extent: capacityBytes + 512 });
      if (readOnly) refused(ioError, { kind: DiskKind.write, position: 0, outBytes: BLOCK_BYTES });
      guest.pushAll();
      await guest.answered();
      for (const { row, status } of guest.answers) {
        assert.equal(status, expected.get(row), `kind ${guest.requests.kind[row]} at ${guest.requests.argument[row]}`);
      }
      assert.equal(guest.answers.length, expected.size);
    });

    check('holds no more than its depth, and says when there is room', async (guest, { device }) => {
      const rows = Math.min(guest.requests.capacity, device.depth + 8);
      for (let i = 0; i < rows; i++) guest.add({ kind: DiskKind.flush });
      const taken = guest.pushAll();
      assert.ok(taken <= device.depth);
      await guest.answered();
      assert.equal(guest.answers.length, rows);
      if (rows > device.depth) assert.ok(guest.readyCalls > 0);
    });

    check('may be pushed to from inside reply', async (guest) => {
      let left = 100;
      guest.onReply = () => {
        if (left === 0) return;
        left--;
        guest.add({ kind: DiskKind.read, position: left * BLOCK_BYTES, inBytes: BLOCK_BYTES });
        guest.pushAll();
      };
      for (let i = 0; i < 4; i++) guest.add({ kind: DiskKind.flush });
      guest.pushAll();
      await guest.until(() => guest.answers.length === 104);
    });

    check('leaves the event loop its turns while the guest pushes from inside reply', async (guest) => {
      let loopTurned = false;
      guest.onReply = () => {
        if (loopTurned || guest.answers.length > ANSWERS_A_TURN_MAX) return;
        guest.add({ kind: DiskKind.flush });
        guest.pushAll();
      };
      guest.add({ kind: DiskKind.flush });
      guest.pushAll();
      setImmediate(() => {
        loopTurned = true;
      });
      await guest.until(() => guest.answers.length > 0 && guest.lent.size === 0);
      assert.ok(guest.answers.length <= ANSWERS_A_TURN_MAX, 'answered and answered, and nothing else could run');
    });

    check('may be closed from inside reply', async (guest) => {
      const closed = new Promise<void>((resolve) => {
        guest.onReply = () => {
          guest.onReply = () => {};
          void guest.close().then(resolve);
        };
      });
      for (let i = 0; i < 8; i++) guest.add({ kind: DiskKind.flush });
      guest.pushAll();
      await closed;
      await guest.silence();
    });

    check('becomes quiet when asked: everything answered, nothing taken any more', async (guest) => {
      for (let i = 0; i < 8; i++) guest.add({ kind: DiskKind.read, position: i * BLOCK_BYTES, inBytes: BLOCK_BYTES });
      guest.pushAll(false);
      // What was not taken stays with the guest, which does not wait for it here.
      const taken = guest.lent.size;
      const quiesced = await guest.quiesce(new AbortController().signal);
      assert.deepEqual(quiesced, { outcome: 'clean' });
      assert.equal(guest.answers.length, taken);
      guest.waiting.clear();
      guest.add({ kind: DiskKind.flush });
      assert.equal(guest.pushAll(), 0);
      await guest.silence();
    });

    check('becomes quiet when it holds nothing', async (guest) => {
      assert.deepEqual(await guest.quiesce(new AbortController().signal), { outcome: 'clean' });
    });

    check('is cut at the bound: the rest comes back in order, and then it is silent', async (guest, fixture) => {
      for (let i = 0; i < 16; i++) guest.add({ kind: DiskKind.read, position: i * BLOCK_BYTES, inBytes: BLOCK_BYTES });
      guest.pushAll(false);
      const quiesced = await guest.quiesce(AbortSignal.abort());
      assertUnfinished(guest, quiesced);
      await assertMemoryQuiet(guest, fixture);
    });

    check('is cut at the bound while it waits', async (guest, fixture) => {
      if (fixture.stall === undefined) return;
      fixture.stall.begin();
      for (let i = 0; i < 16; i++) guest.add({ kind: DiskKind.read, position: i * BLOCK_BYTES, inBytes: BLOCK_BYTES });
      guest.pushAll();
      // A device that has to connect first takes nothing before that.
      await guest.until(() => guest.lent.size > 0);
      await guest.silence();
      const taken = [...guest.lent];
      const bound = new AbortController();
      const quiescing = guest.quiesce(bound.signal);
      await guest.silence();
      bound.abort();
      assert.deepEqual(await quiescing, { outcome: 'cut', unfinished: taken });
      await assertMemoryQuiet(guest, fixture);
    });

    check('finishes what hangs where the bound allows it', async (guest, fixture) => {
      if (fixture.stall === undefined) return;
      fixture.stall.begin();
      for (let i = 0; i < 8; i++) guest.add({ kind: DiskKind.read, position: i * BLOCK_BYTES, inBytes: BLOCK_BYTES });
      guest.pushAll();
      await guest.until(() => guest.lent.size === 8);
      const quiescing = guest.quiesce(new AbortController().signal);
      fixture.stall.end();
      assert.deepEqual(await quiescing, { outcome: 'clean' });
      assert.equal(guest.lent.size, 0);
    });

    check('can be closed at any time, twice, while busy', async (guest, fixture) => {
      for (let i = 0; i < 16; i++) guest.add({ kind: DiskKind.read, position: i * BLOCK_BYTES, inBytes: BLOCK_BYTES });
      guest.pushAll(false);
      const first = guest.close();
      const second = guest.close();
      await Promise.all([first, second]);
      await assertMemoryQuiet(guest, fixture);
      guest.waiting.clear();
      guest.add({ kind: DiskKind.flush });
      assert.equal(guest.pushAll(), 0);
    });

    check('can be closed while quiescing, which is then a cut', async (guest, fixture) => {
      fixture.stall?.begin();
      for (let i = 0; i < 8; i++) guest.add({ kind: DiskKind.read, position: i * BLOCK_BYTES, inBytes: BLOCK_BYTES });
      guest.pushAll(false);
      const quiescing = guest.quiesce(new AbortController().signal);
      const closing = guest.close();
      const quiesced = await quiescing;
      assertUnfinished(guest, quiesced);
      fixture.stall?.end();
      await closing;
      await guest.silence();
    });

    check('can be quiesced after close, and closed before anything came', async (guest) => {
      await guest.close();
      const quiesced = await guest.quiesce(new AbortController().signal);
      assertUnfinished(guest, quiesced);
    });

    check('is lost once, and quiesce is then a cut at once', async (guest, fixture) => {
      if (fixture.lose === undefined) return;
      fixture.stall?.begin();
      for (let i = 0; i < 8; i++) guest.add({ kind: DiskKind.read, position: i * BLOCK_BYTES, inBytes: BLOCK_BYTES });
      guest.pushAll(false);
      fixture.lose();
      fixture.lose();
      await guest.until(() => guest.lostCauses.length === 1);
      const quiesced = await guest.quiesce(new AbortController().signal);
      assertUnfinished(guest, quiesced);
      await assertMemoryQuiet(guest, fixture);
    });

    check('waits with its events until the guest has room', async (guest, fixture) => {
      if (fixture.event === undefined) return;
      guest.eventRoom = 0;
      fixture.event();
      await guest.silence();
      assert.equal(guest.events.length, 0);
      guest.eventRoom = 10;
      guest.readyForEvents();
      await guest.until(() => guest.events.length > 0);
      assert.equal(guest.events[0].kind, DiskKind.capacityChanged);
    });

    randomSchedules(make, withGuest);
  });
}

/** The rows without a reply, in the order in which they were taken. */
export function assertUnfinished(guest: TestGuest, quiesced: Awaited<ReturnType<Device['quiesce']>>): void {
  const unfinished = quiesced.outcome === 'clean' ? [] : [...quiesced.unfinished];
  assert.deepEqual(unfinished, [...guest.lent]);
}

/** After a cut or close the payloads' memory does not change, whatever the device's I/O still does. */
async function assertMemoryQuiet(guest: TestGuest, fixture: DeviceFixture): Promise<void> {
  const memory = fixture.region.bytes(0, 1024 * 1024);
  if (fixture.quietAt === 'cut') memory.fill(0xa5);
  fixture.stall?.end();
  await guest.close();
  if (fixture.quietAt === 'close') memory.fill(0xa5);
  await guest.silence();
  assert.equal(
    memory.findIndex((byte) => byte !== 0xa5),
    -1,
    'guest memory changed after the end',
  );
}

async function withGuest(make: MakeFixture, body: (guest: TestGuest, fixture: DeviceFixture) => Promise<void>): Promise<void> {
  const fixture = await make();
  const guest = new TestGuest(
    fixture.device,
    fixture.region,
    Math.min(Math.max(ROWS_MIN, fixture.device.depth + 8), TABLE_ROWS_MAX),
  );
  fixture.started?.();
  try {
    await body(guest, fixture);
    assert.deepEqual(guest.breaches, []);
  } finally {
    fixture.stall?.end();
    await guest.close();
    await fixture.dispose?.();
  }
  assert.deepEqual(guest.breaches, []);
}
