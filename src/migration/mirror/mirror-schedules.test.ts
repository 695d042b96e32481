import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { MirrorWorld } from '../../../test/support/mirror-world.ts';
import { InFlightWrites } from '../../filters/write-log/in-flight-writes.ts';
import { Copier } from './copier.ts';
import { DirtyMap } from './dirty-map.ts';
import { Target } from './target.ts';

const FIRST_SEED = Number(process.env.NETBUS_SEED ?? 1);
const RUNS = process.env.NETBUS_SEED === undefined ? Number(process.env.NETBUS_RUNS ?? 30) : 1;
const STEPS = 400;
/** Runs within which each mistake that is built in must be found. */
const BROKEN_RUNS_MAX = 300;

/** Any order of what may happen, and then the switch. */
async function run(seed: number): Promise<void> {
  const world = new MirrorWorld(seed);
  const { random } = world;
  try {
    for (let step = 0; step < STEPS; step++) {
      const choice = random.below(200);
      if (choice < 60) world.request();
      else if (choice < 115) world.answer(world.old);
      else if (choice < 165) world.answer(world.target);
      else if (choice < 172) world.clock.advance(random.below(50));
      else if (choice < 176) world.clock.advance(random.below(1_500));
      else if (choice < 178) world.mirror.pause();
      else if (choice < 182) world.mirror.resume();
      else if (choice === 182) world.mirror.speed = random.below(2) === 0 ? undefined : 1_000_000;
      else if (choice === 183) world.isTargetAway = random.below(4) === 0;
      else if (choice === 184) world.losePower();
      else if (choice === 185) world.target.killDaemon(() => random.below(2) === 0);
      else if (choice === 186) world.old.killDaemon(() => random.below(2) === 0);
      else if (choice < 189) world.restart();
      else if (choice === 189) world.target.flushFails = random.below(3) === 0;
      else if (choice === 190) world.target.writesFail = random.below(6) === 0;
      else if (choice === 191) await world.renew(false);
      else if (choice === 192) await world.renew(false, random.below(30));
      else if (choice === 193) await world.renew(true, random.below(100));
      else if (choice < 196) await world.renew(true);
      else world.startAnew();
      await turn();
    }
    await world.finish();
  } catch (thrown) {
    throw new Error(`NETBUS_SEED=${seed}: ${(thrown as Error).message}`, { cause: thrown });
  } finally {
    await world.dispose();
  }
}

test('whatever happens, the two are the same at the switch, and the guest finds what it wrote', {
  timeout: 300_000,
}, async () => {
  for (let seed = FIRST_SEED; seed < FIRST_SEED + RUNS; seed++) await run(seed);
});

describe('the schedules find', () => {
  async function isFound(): Promise<void> {
    for (let seed = 1; seed <= BROKEN_RUNS_MAX; seed++) {
      try {
        await run(seed);
      } catch {
        return;
      }
    }
    assert.fail(`nothing was found in ${BROKEN_RUNS_MAX} runs`);
  }

  test('a bit that is set after its write left', async (t) => {
    const { markDirty } = DirtyMap.prototype;
    t.mock.method(DirtyMap.prototype, 'markDirty', async function late(this: DirtyMap, position: number, length: number) {
      for (let turns = 0; turns < 3; turns++) await turn();
      markDirty.call(this, position, length);
    });
    await isFound();
  });

  test('a copy of what the guest wrote meanwhile that counts as good', async (t) => {
    t.mock.method(Copier.prototype, 'spoil', () => {});
    await isFound();
  });

  test('a write of the guest that overtakes a copy on the new disk', async (t) => {
    t.mock.method(Copier.prototype, 'covers', () => false);
    t.mock.method(Copier.prototype, 'spoil', () => {});
    await isFound();
  });

  test('two writes to one place whose order is not the same on both', async (t) => {
    t.mock.method(InFlightWrites.prototype, 'overlaps', () => false);
    await isFound();
  });

  test('a region that is clean before it was flushed', async (t) => {
    t.mock.method(DirtyMap.prototype, 'markUnflushed', () => {});
    await isFound();
  });

  test('a flush that counts for what was on its way', async (t) => {
    t.mock.method(Target.prototype, 'eachPending', () => {});
    await isFound();
  });

  test('a new disk that forgot, and is believed to have everything', async (t) => {
    t.mock.method(DirtyMap.prototype, 'forget', () => {});
    await isFound();
  });
});
