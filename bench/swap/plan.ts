/** Which disks are swapped where to, drawn from a seed. */
import type { SeededRandom } from '../../test/support/random.ts';

/** The guest is on the second of them all the time; its disk begins at the first. */
export const HOSTS = ['m1', 'm2', 'm3'] as const;
export type HostName = (typeof HOSTS)[number];
export const VM_HOST: HostName = HOSTS[1];

/** `sparse`: nothing but what the guest has written; `full`: no hole. */
export const contents = ['sparse', 'full'] as const;
export type Content = (typeof contents)[number];

/** Where the disk is, as the guest sees it. */
export type Placement = 'remote to local' | 'local to remote' | 'remote to remote';

export interface Step {
  readonly from: HostName;
  readonly to: HostName;
  readonly placement: Placement;
}

/** One guest with one disk, which is swapped so often. */
export interface Group {
  readonly sizeGiB: number;
  readonly content: Content;
  readonly steps: readonly Step[];
}

/** So many swaps in all, as evenly over the disks as that goes. */
export function planSwaps(swaps: number, sizesGiB: readonly number[], random: SeededRandom): Group[] {
  const disks = sizesGiB.flatMap((sizeGiB) => contents.map((content) => ({ sizeGiB, content })));
  return disks.flatMap((disk, i) => {
    const count = Math.floor(swaps / disks.length) + (i < swaps % disks.length ? 1 : 0);
    return count === 0 ? [] : [{ ...disk, steps: planSteps(count, random) }];
  });
}

/** Rounds over all hosts, each in one direction or the other: so all placements are met as often. */
export function planSteps(count: number, random: SeededRandom): Step[] {
  const [m1, m2, m3] = HOSTS;
  const steps: Step[] = [];
  while (steps.length < count) {
    const round: HostName[] = random.below(2) === 0 ? [m1, m2, m3, m1] : [m1, m3, m2, m1];
    for (let i = 1; i < round.length; i++) {
      const [from, to] = [round[i - 1]!, round[i]!];
      steps.push({ from, to, placement: placementOf(from, to) });
    }
  }
  return steps.slice(0, count);
}

function placementOf(from: HostName, to: HostName): Placement {
  if (from === VM_HOST) return 'local to remote';
  return to === VM_HOST ? 'remote to local' : 'remote to remote';
}
