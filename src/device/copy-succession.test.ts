import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type CopyEnd, type CopyMark, markText, sourceStates, targetStates } from './copy-mark.ts';
import { begun, completed, givenUp, handedOver, isDecided, type Swappable, stamped, superseded } from './copy-succession.ts';
import { NetbusError } from './errors.ts';
import { fenced, granted, prepared, quiesced, takenOver } from './succession.ts';

const to = { host: 'd2', export: 'fast' };
const from: CopyEnd = { host: 'd1', export: 'data', attachment: 'a1' };
/** The VM is at m1, which uses the old device. */
const old: Swappable = { host: 'm1', lease: { epoch: 4, holder: 'm1' }, generation: 1 };
const copied = begun(old, 'm1', to);
const handingOver = handedOver(copied, 'm1', 2);
const replaced = superseded(handingOver, 2);
const filling: Swappable = {
  host: 'm1',
  lease: { epoch: 0, holder: null },
  generation: 2,
  copy: { state: 'filling', generation: 2, from },
};
const complete = completed(granted(filling, 'm1', { fills: 2 }), 'm1', 2);
const decided = granted(complete, 'm1', { decides: 2 });
const aborted = givenUp(complete, 2);

const refused = (code: string, work: () => unknown, message = /./) => assert.throws(work, { code, message });

describe('the marks of a hot-swap', () => {
  test('step by step, old and new device', () => {
    assert.deepEqual(copied, { ...old, generation: 2, copy: { state: 'copied', generation: 2, to } });
    assert.deepEqual(handingOver.copy, { state: 'handing-over', generation: 2, to });
    assert.deepEqual([replaced.copy?.state, replaced.lease.holder], ['superseded', null]);
    assert.deepEqual(complete, {
      ...filling,
      lease: { epoch: 1, holder: null },
      copy: { state: 'complete', generation: 2, from },
    });
    const { copy: _, ...rest } = complete;
    assert.deepEqual(decided, { ...rest, lease: { epoch: 2, holder: 'm1' }, swapped: { generation: 2, from } });
    assert.ok(isDecided(decided, 2) && isDecided(replaced, 2));
    assert.ok(!isDecided(aborted, 2) && !isDecided(handingOver, 2) && !isDecided(decided, 3));
  });

  test('what was done is success again, and changes nothing', () => {
    assert.equal(completed(complete, 'm1', 2), complete);
    assert.equal(completed(decided, 'm1', 2), decided);
    for (const state of [handingOver, replaced]) assert.equal(handedOver(state, 'm1', 2), state);
    assert.equal(superseded(replaced, 2), replaced);
    for (const state of [aborted, decided, replaced, givenUp(copied, 2)]) assert.equal(givenUp(state, 2), state);
  });

  test('a generation is given once, also to tries that were given up', () => {
    const given = givenUp(handingOver, 2);
    assert.deepEqual(given, { ...old, generation: 2 });
    refused('ended', () => handedOver(given, 'm1', 2), /generation 2 of the swap is over here: no swap is about this device/);
    const next = begun(given, 'm1', to);
    assert.equal(next.generation, 3);
    refused('ended', () => handedOver(next, 'm1', 2));
    refused('ended', () => superseded(next, 3));
    assert.equal(givenUp(next, 2), next, 'a late abort of the try before');
    assert.equal(
      begun(next, 'm1', { ...to }).generation,
      4,
      'asked again: the abort of the try before may still be on its way',
    );
    refused(
      'in_use',
      () => begun(next, 'm1', { host: 'd3', export: 'other' }),
      /being copied to d2\/fast, for a swap: end that/,
    );
  });

  test('what was given up is never decided, and what was decided is never given up', () => {
    refused('ended', () => granted(aborted, 'm1', { decides: 2 }));
    refused('ended', () => completed(aborted, 'm1', 2));
    refused('ended', () => granted(filling, 'm1', { decides: 2 }));
    refused('ended', () => granted(decided, 'm1', { fills: 2 }));
    assert.deepEqual(granted(decided, 'm1', { decides: 2 }), granted(decided, 'm1'));
    refused('ended', () => granted(decided, 'm1', { decides: 3 }));
    refused('ended', () => granted(old, 'm1', { decides: 1 }));
  });

  test('without a purpose the guest gets the device that is in use, and no other', () => {
    for (const state of [old, copied, decided]) assert.equal(granted(state, 'm1').lease.epoch, state.lease.epoch + 1);
    for (const state of [handingOver, replaced, filling, complete, aborted]) refused('in_use', () => granted(state, 'm1'));
    for (const state of [old, copied, handingOver, complete]) refused('ended', () => granted(state, 'm1', { fills: 2 }));
    refused('ended', () => granted(filling, 'm1', { fills: 3 }));
    // The next swap, from the device that this one brought.
    const again = begun(decided, 'm1', { host: 'd3', export: 'third' });
    assert.deepEqual([again.generation, granted(again, 'm1', { decides: 2 }).copy], [3, again.copy]);
    refused('ended', () => granted(handedOver(again, 'm1', 3), 'm1', { decides: 2 }));
  });

  test('each step is the business of the host that has the VM', () => {
    refused('denied', () => begun(old, 'm2', to));
    refused('denied', () => completed(filling, 'm2', 2));
    refused('denied', () => handedOver(copied, 'm2', 2));
    refused('denied', () => granted(complete, 'm2', { decides: 2 }));
    refused('fenced', () => handedOver(fenced(copied, 'm1'), 'm1', 2));
    refused('fenced', () => begun(fenced(old, 'm1'), 'm1', to));
  });

  test('a guest that moves is not swapped, and one that is swapped does not move', () => {
    refused('in_use', () => begun(prepared(old, { host: 'm2' }), 'm1', to), /expected at host m2/);
    const expected = quiesced(prepared(old, { host: 'm2' }), 'm1', {
      queues: [{ fetched: 1, usedIndex: 1, heads: [], lastBatch: [] }],
    });
    refused('in_use', () => begun(granted(expected, 'm2'), 'm2', to), /just come from another host/);
    for (const state of [copied, handingOver, replaced, filling, complete, aborted]) {
      refused('in_use', () => prepared(state, { host: 'm2' }));
    }
  });

  test('a VM starts anew on a device that is copied, and the dead host gets no further with the copy', () => {
    const taken = takenOver(fenced(copied, 'm1'), { host: 'm2' });
    assert.deepEqual([taken.copy, taken.generation], [undefined, 2]);
    refused('fenced', () => handedOver(taken, 'm1', 2));
    refused('ended', () => handedOver(taken, 'm2', 2));
    for (const state of [handingOver, replaced, filling, complete, aborted]) {
      refused('in_use', () => takenOver(fenced(state, 'm1'), { host: 'm2' }));
    }
  });

  test('a fence of the host that would have decided: what is undecided at the new device is given up', () => {
    for (const state of [filling, complete]) {
      assert.equal(fenced(state, 'm1').copy?.state, 'aborted');
      assert.equal(fenced(state, 'm2'), state);
    }
    assert.deepEqual(fenced(handingOver, 'm1').copy, handingOver.copy);
  });

  test('a mark has the time since when it is what it is', () => {
    const at = '2026-01-01T00:00:00.000Z';
    assert.equal(stamped(old, copied, at).copy?.since, at);
    assert.equal(stamped(copied, copied, at), copied);
    assert.equal(stamped(copied, givenUp(copied, 2), at).copy, undefined);
    const marks = [
      ...sourceStates.map((state) => ({ state, generation: 2, to })),
      ...targetStates.map((state) => ({ state, generation: 2, from })),
    ];
    assert.equal(new Set(marks.map((mark) => markText(mark as CopyMark))).size, 6);
  });
});

/** One try of the job. `three`: step 3 may have been sent. */
interface Try {
  generation: number | undefined;
  three: boolean;
  over: boolean;
}

/** A call on its way: it may arrive late, often, or never, and its answer may be lost. */
interface Call {
  readonly name: string;
  readonly apply: () => unknown;
  readonly answered: (value: unknown) => void;
}

/** A job by the rules, hosts that lose and repeat what it says, and people who fence it and start the VM elsewhere. */
class World {
  old: Swappable = old;
  /** New devices, by generation: an attachment for each try. */
  readonly targets = new Map<number, Swappable>();
  readonly calls: Call[] = [];
  try: Try | undefined;

  /** Devices that a guest may use. */
  get usable(): number {
    return [this.old, ...this.targets.values()].filter(isUsable).length;
  }

  begin(): void {
    if (this.try !== undefined && !this.try.over) return;
    const made: Try = { generation: undefined, three: false, over: false };
    this.try = made;
    this.send(
      'begin',
      () => {
        this.old = begun(this.old, 'm1', to);
        return this.old.generation;
      },
      (generation) => {
        if (made.generation !== undefined) return;
        made.generation = generation as number;
        this.#fill(made, made.generation);
      },
    );
  }

  #fill(made: Try, g: number): void {
    const put = () => {
      if (!this.targets.has(g))
        this.targets.set(g, { ...filling, generation: g, copy: { state: 'filling', generation: g, from } });
    };
    this.send(
      'fill',
      put,
      once(() => {
        if (made.over) return;
        this.send(
          'grant to fill',
          () => this.#target(g, (state) => granted(state, 'm1', { fills: g })),
          once(() => {}),
        );
        this.send(
          'complete',
          () => this.#target(g, (state) => completed(state, 'm1', g)),
          once(() => {
            if (made.over) return;
            made.three = true;
            this.send(
              'hand over',
              () => (this.old = handedOver(this.old, 'm1', g)),
              once(() => {
                if (!made.over)
                  this.send(
                    'decide',
                    () => this.#target(g, (state) => granted(state, 'm1', { decides: g })),
                    once(() => this.#supersede(g)),
                  );
              }),
            );
          }),
        );
      }),
    );
  }

  /** From step 3 on the new device's host says first what can become of it. */
  giveUp(): void {
    const made = this.try;
    const g = made?.generation;
    if (made === undefined || g === undefined || made.over) return;
    made.over = true;
    const abortOld = () =>
      this.send(
        'abort at the old',
        () => (this.old = givenUp(this.old, g)),
        () => {},
      );
    if (!made.three) abortOld();
    this.send(
      'abort at the new',
      () => {
        this.#target(g, (state) => givenUp(state, g));
        const now = this.targets.get(g);
        return now !== undefined && isDecided(now, g);
      },
      once((value) => (value === true ? this.#supersede(g) : made.three && abortOld())),
    );
  }

  /** The old device's host asks, for whoever wants to start the VM there. */
  settle(): void {
    const { copy } = this.old;
    if (copy?.state !== 'handing-over' || !this.old.fenced?.includes('m1')) return;
    const { generation } = copy;
    this.#target(generation, (state) => givenUp(state, generation));
    const now = this.targets.get(generation);
    if (now === undefined) return;
    this.old = isDecided(now, generation) ? superseded(this.old, generation) : givenUp(this.old, generation);
  }

  send(name: string, apply: () => unknown, answered: (value: unknown) => void): void {
    this.calls.push({ name, apply, answered });
  }

  change(index: number, change: (state: Swappable) => Swappable): void {
    const generations = [...this.targets.keys()];
    const target = index % (generations.length + 1);
    if (target === 0) this.old = change(this.old);
    else this.#target(generations[target - 1], change);
  }

  #supersede(g: number): void {
    this.send(
      'supersede',
      () => (this.old = superseded(this.old, g)),
      () => {},
    );
  }

  #target(generation: number, change: (state: Swappable) => Swappable): void {
    const state = this.targets.get(generation);
    if (state !== undefined) this.targets.set(generation, change(state));
  }
}

function once(then: (value: unknown) => void): (value: unknown) => void {
  let done = false;
  return (value) => {
    if (done) return;
    done = true;
    then(value);
  };
}

function isUsable(state: Swappable): boolean {
  return quietly(() => granted({ ...state, lease: { ...state.lease, holder: null }, fenced: undefined }, state.host));
}

function quietly(work: () => unknown): boolean {
  try {
    work();
    return true;
  } catch (thrown) {
    assert.ok(thrown instanceof NetbusError, String(thrown));
    return false;
  }
}

test('calls that come late, often, in another order, or not at all: never two devices that a guest may use', () => {
  let swaps = 0;
  const step = fc.oneof(
    {
      weight: 30,
      arbitrary: fc.record({
        do: fc.constant('deliver' as const),
        which: fc.nat(),
        newest: fc.integer({ min: 0, max: 3 }),
        lost: fc.boolean(),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('begin' as const, 'giveUp' as const, 'settle' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constantFrom('fence' as const, 'takeOver' as const, 'stranger' as const, 'wrong' as const),
        which: fc.nat(),
      }),
    },
  );
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 80 }), (steps) => {
      const world = new World();
      world.begin();
      for (const one of steps) {
        quietly(() => {
          switch (one.do) {
            case 'deliver': {
              if (world.calls.length === 0) return;
              const call = one.newest > 0 ? world.calls[world.calls.length - 1] : world.calls[one.which % world.calls.length];
              const value = call.apply();
              if (!one.lost) call.answered(value);
              return;
            }
            case 'begin':
            case 'giveUp':
            case 'settle':
              return world[one.do]();
            case 'fence':
              return world.change(one.which, (state) => fenced(state, 'm1'));
            case 'takeOver':
              return world.change(one.which, (state) => takenOver(state, { host: 'm2' }));
            case 'stranger':
              return world.change(one.which, (state) => handedOver(completed(state, 'm3', 2), 'm3', 2));
            case 'wrong':
              return world.change(one.which, (state) => givenUp(superseded(state, 99), 99));
          }
        });
        assert.ok(world.usable <= 1, JSON.stringify([world.old, ...world.targets]));
      }
      if (world.old.copy?.state === 'superseded') swaps++;
    }),
    { numRuns: 1_000, seed: 6 },
  );
  assert.ok(swaps > 20, `only ${swaps} swaps came to their end: the property shows little`);
});
