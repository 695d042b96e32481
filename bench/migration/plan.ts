/** Where the guest goes, drawn from a seed. */
import type { SeededRandom } from '../../test/support/random.ts';

/** The hosts that the guest is at; the first of them has the disk. */
export const HOSTS = ['m1', 'm2', 'm3'] as const;
export type HostName = (typeof HOSTS)[number];
export const DEVICE_HOST: HostName = HOSTS[0];

/** Where the disk is, as the guest sees it. */
export type Placement = 'local to remote' | 'remote to local' | 'remote to remote';

export interface Move {
  readonly from: HostName;
  readonly to: HostName;
  readonly placement: Placement;
  /** The guest stays and works for so long before it goes, in milliseconds. */
  readonly restMs: number;
}

const REST_MS_MIN = 300;
const REST_MS_MAX = 1_500;

/** Rounds over all hosts from the disk's own on, each in one direction or the other: so all placements are met as often. */
export function planMoves(count: number, random: SeededRandom): Move[] {
  const moves: Move[] = [];
  while (moves.length < count) {
    const [m1, m2, m3] = HOSTS;
    const round: HostName[] = random.below(2) === 0 ? [m1, m2, m3, m1] : [m1, m3, m2, m1];
    for (let i = 1; i < round.length; i++) {
      const [from, to] = [round[i - 1]!, round[i]!];
      const restMs = REST_MS_MIN + random.below(REST_MS_MAX - REST_MS_MIN);
      moves.push({ from, to, placement: placementOf(from, to), restMs });
    }
  }
  return moves.slice(0, count);
}

export function placementOf(from: string, to: string): Placement {
  if (from === DEVICE_HOST) return 'local to remote';
  return to === DEVICE_HOST ? 'remote to local' : 'remote to remote';
}
