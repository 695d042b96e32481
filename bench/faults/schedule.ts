/** Which fault comes when: drawn from a seed, alone and overlapping. */
import type { SeededRandom } from '../../test/support/random.ts';
import type { FaultKind } from './kinds.ts';

export interface PlannedFault {
  readonly kind: FaultKind;
  /** After the round's beginning. */
  readonly atMs: number;
  /** How long its cause lasts. */
  readonly durationMs: number;
  /** In [0, 1): how bad, where a kind has degrees, and which side, where it has two. */
  readonly dice: number;
}

/** Faults that overlap; after each round everything is checked. */
export type Round = readonly PlannedFault[];

/** Of each cause, in milliseconds. */
const DURATION_MS: Record<FaultKind, readonly [number, number]> = {
  cut: [100, 2500],
  'kill-vm-side': [0, 800],
  'kill-device-side': [0, 800],
  'stop-continue': [100, 2500],
  'device-host-power-loss': [0, 500],
  'disk-full': [300, 800],
  'io-error': [300, 800],
  delay: [500, 2000],
  throttle: [500, 2000],
  'half-open': [200, 2500],
  stall: [200, 2500],
};
/** A silence that only the heartbeat ends, in milliseconds; and how many of a hundred half-open connections it befalls, where it may. */
const LONG_SILENCE_MS = 17_000;
const LONG_SILENCE_PERCENT = 10;
/** The second and third of a round begin within this time of the first, in milliseconds. */
const OVERLAP_MS = 1_000;
/** Of a hundred rounds: those of one fault, and those of at most two. */
const ALONE_PERCENT = 45;
const AT_MOST_TWO_PERCENT = 80;

/**
 * Rounds without end. Each kind comes once before any comes again, so that every prefix has about as many of each; a round has no
 * kind twice.
 */
export function* planRounds(
  kinds: readonly FaultKind[],
  random: SeededRandom,
  { longSilences = false }: { longSilences?: boolean } = {},
): Generator<Round, never> {
  let bag: FaultKind[] = [];
  const draw = (): FaultKind => {
    if (bag.length === 0) bag = shuffled(kinds, random);
    return bag.pop()!;
  };
  for (;;) {
    const dice = random.below(100);
    const size = Math.min(dice < ALONE_PERCENT ? 1 : dice < AT_MOST_TWO_PERCENT ? 2 : 3, kinds.length);
    const drawn: FaultKind[] = [];
    const aside: FaultKind[] = [];
    while (drawn.length < size) {
      const kind = draw();
      if (drawn.includes(kind)) aside.push(kind);
      else drawn.push(kind);
    }
    bag.push(...aside);
    yield drawn.map((kind, i) => plan(kind, i === 0, random, longSilences));
  }
}

function plan(kind: FaultKind, first: boolean, random: SeededRandom, longSilences: boolean): PlannedFault {
  const [least, most] = DURATION_MS[kind];
  const atMs = first ? 0 : random.below(OVERLAP_MS);
  const usualMs = least + random.below(most - least + 1);
  // Drawn in any case, so that a seed means the same faults with and without.
  const rare = random.below(100) < LONG_SILENCE_PERCENT;
  const long = longSilences && kind === 'half-open' && rare;
  return { kind, atMs, durationMs: long ? LONG_SILENCE_MS : usualMs, dice: random.below(1_000_000) / 1_000_000 };
}

function shuffled(kinds: readonly FaultKind[], random: SeededRandom): FaultKind[] {
  const left = [...kinds];
  return kinds.map(() => left.splice(random.below(left.length), 1)[0]);
}
