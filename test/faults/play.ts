/** A campaign of faults as the tests play it: on hosts of its own, for as long as they have time. */
import { fileURLToPath } from 'node:url';
import { Campaign } from '../../bench/faults/campaign.ts';
import type { FaultKind } from '../../bench/faults/kinds.ts';
import type { FaultReport } from '../../bench/faults/report.ts';
import type { Round } from '../../bench/faults/schedule.ts';
import { Stage } from '../../bench/faults/stage.ts';
import { Cleanup } from '../support/cleanup.ts';
import { hostKind } from '../support/hosts.ts';
import { NOT_POSSIBLE_HERE } from '../support/skip.ts';

export const PROGRAM = fileURLToPath(new URL('../../dist/netbus.js', import.meta.url));
const CAMPAIGN_MS_MAX = 60_000;

// From the source a daemon takes five times as long to start.
process.env.NETBUS_PROGRAM ??= PROGRAM;

const { kind, reason } = await hostKind();
export const skip = kind === 'namespace' ? false : `${NOT_POSSIBLE_HERE}${reason}`;

export interface Play {
  readonly kinds: readonly FaultKind[];
  readonly seed: number;
  readonly guest: boolean;
  readonly ledgerBlocks?: number;
  readonly rounds: Iterator<Round, never>;
  readonly faults: number;
  readonly backMsMax: number;
  readonly vmmMsMax?: number;
  readonly untilFound?: boolean;
  readonly programs?: ReadonlyMap<string, readonly string[]>;
  readonly say: (text: string) => void;
}

export async function play({
  rounds,
  faults,
  backMsMax,
  vmmMsMax,
  untilFound = false,
  say,
  ...what
}: Play): Promise<FaultReport> {
  const { seed, kinds } = what;
  const cleanup = new Cleanup();
  try {
    const stage = await Stage.set({ cleanup, program: PROGRAM, ...what }, say);
    const untilMs = performance.now() + CAMPAIGN_MS_MAX;
    const bounds = { backMsMax, ...(vmmMsMax !== undefined && { vmmMsMax }) };
    return await new Campaign(stage, { seed, kinds, rounds, faults, untilMs, ...bounds, untilFound }, say).run();
  } finally {
    await cleanup.run();
  }
}
