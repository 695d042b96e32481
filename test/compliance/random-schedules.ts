import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { DiskFlag, DiskKind, DiskStatus } from '../../src/device/disk.ts';
import { assertUnfinished, BLOCK_BYTES, type DeviceFixture, type MakeFixture } from './device-compliance.ts';
import type { TestGuest } from './test-guest.ts';

const RUNS = 25;
const STEPS_MAX = 120;
/** Each place of the disk has one request at a time, so that what it must contain is known. */
const PLACES = 32;

type Step =
  | { readonly do: 'read' | 'discard' | 'push' | 'turn' | 'flush' }
  | { readonly do: 'write'; readonly byte: number; readonly durable: boolean }
  | { readonly do: 'zero'; readonly unmap: boolean; readonly durable: boolean };

const step: fc.Arbitrary<{ place: number; step: Step }> = fc.record({
  place: fc.nat(PLACES - 1),
  step: fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constant('read' as const) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('write' as const),
        byte: fc.integer({ min: 1, max: 255 }),
        durable: fc.boolean(),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('zero' as const), unmap: fc.boolean(), durable: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('discard' as const, 'flush' as const, 'turn' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('push' as const) }) },
  ),
});
const ending = fc.constantFrom('answered', 'quiesce', 'cut', 'close');

type WithGuest = (make: MakeFixture, body: (guest: TestGuest, fixture: DeviceFixture) => Promise<void>) => Promise<void>;

/** Random requests in random batches, against a model of the disk, with each of the ways to end. `NETBUS_SEED` repeats a run. */
export function randomSchedules(make: MakeFixture, withGuest: WithGuest): void {
  test('random schedules', { timeout: 120_000 }, async (t) => {
    const seed = Number(process.env.NETBUS_SEED ?? Date.now() % 2 ** 31);
    t.diagnostic(`NETBUS_SEED=${seed}`);
    const property = fc.asyncProperty(fc.array(step, { maxLength: STEPS_MAX }), ending, (steps, end) =>
      withGuest(make, async (guest, fixture) => {
        const model = new DiskModel(guest, fixture);
        for (const { place, step } of steps) await model.run(place, step);
        await model.end(end);
        assert.deepEqual(model.mistakes, []);
      }),
    );
    await fc.assert(property, { seed, numRuns: RUNS });
  });
}

/** What the disk must contain, and how each request must end. */
class DiskModel {
  readonly mistakes: string[] = [];
  readonly #guest: TestGuest;
  readonly #fixture: DeviceFixture;
  /** The byte that each place is full of; undefined = anything. */
  readonly #content: (number | undefined)[] = new Array(PLACES).fill(undefined);
  readonly #busy = new Map<number, { place: number; step: Step }>();

  constructor(guest: TestGuest, fixture: DeviceFixture) {
    this.#guest = guest;
    this.#fixture = fixture;
    guest.onReply = (row, status) => this.#answered(row, status);
  }

  async run(place: number, step: Step): Promise<void> {
    const guest = this.#guest;
    if (step.do === 'turn') return void (await turn());
    if (step.do === 'push') return void guest.pushAll();
    const placeBusy =
      step.do !== 'flush' && [...this.#busy.values()].some((busy) => busy.step.do !== 'flush' && busy.place === place);
    if (placeBusy || guest.rowsFree === 0) {
      guest.pushAll();
      await guest.answered();
    }
    this.#busy.set(this.#add(place, step), { place, step });
  }

  async end(end: string): Promise<void> {
    const guest = this.#guest;
    guest.pushAll(end === 'answered');
    if (end === 'answered') await guest.answered();
    else if (end === 'close') await guest.close();
    else assertUnfinished(guest, await guest.quiesce(end === 'cut' ? AbortSignal.abort() : new AbortController().signal));
    if (end === 'quiesce') assert.equal(guest.lent.size, 0);
  }

  #add(place: number, step: Step): number {
    const guest = this.#guest;
    const position = place * BLOCK_BYTES;
    switch (step.do) {
      case 'read': {
        const row = guest.add({ kind: DiskKind.read, position, inBytes: BLOCK_BYTES });
        guest.fill(row, new Uint8Array(BLOCK_BYTES).fill(0xee));
        return row;
      }
      case 'write': {
        const flags = step.durable ? DiskFlag.durable : 0;
        const row = guest.add({ kind: DiskKind.write, position, flags, outBytes: BLOCK_BYTES });
        guest.fill(row, new Uint8Array(BLOCK_BYTES).fill(step.byte));
        return row;
      }
      case 'zero': {
        const flags = (step.unmap ? DiskFlag.unmap : 0) | (step.durable ? DiskFlag.durable : 0);
        return guest.add({ kind: DiskKind.writeZeroes, position, flags, extent: BLOCK_BYTES });
      }
      case 'discard':
        return guest.add({ kind: DiskKind.discard, position, extent: BLOCK_BYTES });
      default:
        return guest.add({ kind: DiskKind.flush });
    }
  }

  #answered(row: number, status: number): void {
    const busy = this.#busy.get(row);
    if (busy === undefined) return;
    this.#busy.delete(row);
    const { place, step } = busy;
    const { content, device } = this.#fixture;
    const refused = content === 'failed' || (device.profile.readOnly && step.do !== 'read' && step.do !== 'flush');
    const expected = refused ? DiskStatus.ioError : DiskStatus.ok;
    if (status !== expected) this.mistakes.push(`${step.do} of place ${place} was answered ${status}`);
    if (refused) return;
    if (step.do === 'write') this.#content[place] = step.byte;
    if (step.do === 'zero') this.#content[place] = 0;
    if (step.do === 'discard') this.#content[place] = undefined;
    if (step.do === 'read') this.#compare(row, place);
  }

  #compare(row: number, place: number): void {
    const expected = this.#fixture.content === 'zeroes' ? 0 : this.#content[place];
    const bytes = this.#guest.payload(row, BLOCK_BYTES);
    const wrong = bytes.findIndex((byte) => byte !== (expected ?? bytes[0]));
    if (wrong !== -1) this.mistakes.push(`place ${place} has ${bytes[wrong]} at ${wrong}, not ${expected}`);
  }
}
