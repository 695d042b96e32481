/** One move of a guest that copies files, by `netbus migrate`, and what came of it. */

import type { Guest } from '../../test/guest/guest.ts';
import type { Traveller } from '../../test/guest/traveller.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import { longestGapMs } from '../../test/support/gaps.ts';
import type { Host } from '../../test/support/hosts.ts';
import { waitFor } from '../../test/support/wait.ts';
import type { CopyWork } from './copy-work.ts';
import type { Story } from './story.ts';
import type { Happening } from './timeline.ts';

/** Undisturbed work between two happenings, in milliseconds. */
export const CALM_MS = 2_500;
/** The guest's gap is looked for until so long after it has arrived, in milliseconds. */
const AFTERWARDS_MS = 1_000;
/** Generous: it ends a wait that hangs, and says nothing about speed. In milliseconds. */
const BACK_MS_MAX = 60_000;

/** What `netbus migrate --json` answers, as far as it is told here. */
interface Migrated {
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly addedStallMs: number;
  readonly longestDrainMs: number;
}

/** In milliseconds. */
export interface Moved {
  readonly from: string;
  readonly to: string;
  readonly totalMs: number;
  /** The guest was stopped, by QEMU. */
  readonly downtimeMs: number;
  /** What its disk added, by the daemons on both sides. */
  readonly addedStallMs: number;
  readonly drainMs: number;
  /** Without a sign of the guest, on the host's clock. */
  readonly longestGapMs: number;
}

/** Who travels, and what it works on. */
export interface Travel {
  readonly story: Story;
  readonly cluster: Cluster;
  readonly traveller: Traveller;
  readonly work: CopyWork;
}

/** Moves the guest as a user does, and waits until it has worked there for a while. */
export async function moveGuest(travel: Travel, to: Host): Promise<{ moved: Moved; happening: Happening }> {
  const { story, traveller, work } = travel;
  const from = traveller.host;
  const there = await traveller.expect(to);
  story.say(`A QEMU waits for it on ${to.name}, with the same command line and -incoming.`);
  const fromMs = performance.now();
  const migrated = await traveller.moveBy((_, there, { uri }) => migrate(travel, to, there, uri), to, { there });
  const toMs = performance.now();
  await worksOn(work);
  const gapMs = longestGapMs(traveller.ticks.timesMs, { fromMs, toMs: toMs + AFTERWARDS_MS });
  const { totalMs, downtimeMs, addedStallMs, longestDrainMs: drainMs } = migrated;
  const moved = { from: from.name, to: to.name, totalMs, downtimeMs, addedStallMs, drainMs, longestGapMs: tenth(gapMs) };
  const stalls = `stopped for ${downtimeMs} ms, its disk added ${tenth(addedStallMs)} ms, longest gap ${moved.longestGapMs} ms`;
  story.good(`the guest works on ${to.name}: ${stalls}`);
  const what = `${from.name} to ${to.name}: ${stalls}`;
  return { moved, happening: { what, fromMs: work.at(fromMs), toMs: work.at(toMs) } };
}

/** Files are copied again, and then for a while more. */
export async function worksOn(work: CopyWork): Promise<void> {
  const before = work.copies;
  await waitFor('the guest to go on', () => work.copies > before + 1, BACK_MS_MAX);
  await rest(CALM_MS);
}

export function tenth(value: number): number {
  return Math.round(value * 10) / 10;
}

export function rest(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** On the host where the guest is, as a user types it. */
async function migrate({ story, cluster, traveller }: Travel, to: Host, there: Guest, uri: string): Promise<Migrated> {
  await there.qmp.execute('migrate-incoming', { uri });
  const from = traveller.host.name;
  const argv = ['migrate', there.name, '--to', to.name, '--qmp', traveller.monitorPath, '--uri', uri];
  story.command(from, `netbus ${argv.join(' ')}`);
  return await cluster.ask<Migrated>(from, ...argv);
}
