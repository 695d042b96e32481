/** Live-migrates a running guest from one QEMU to another over QMP, as a management layer does, and says how long each part took. */

import { systemClock } from '../../src/lib/clock.ts';
import type { QmpEvents } from '../../src/vmm/qmp-events.ts';
import type { Guest } from './guest.ts';

/** Generous: they end a migration that hangs and say nothing about speed. In milliseconds. */
const MIGRATION_MS_MAX = 120_000;
const RESUME_MS_MAX = 60_000;

/** As fast as it goes: the hosts are on one machine. Beside it the guest is stopped when what is left takes no longer than this, in milliseconds. */
const BANDWIDTH_BYTES_MAX = 4 * 1024 ** 3;
const DOWNTIME_MS_MAX = 20;

export interface MigrateOptions {
  /** Where the destination listens; both QEMUs see it alike. */
  readonly uri: string;
  /** The guest is stopped, and its devices with it, and the source waits. With false the migration is cancelled. */
  readonly atSwitchover?: () => Promise<boolean>;
}

export interface GuestMigration {
  /** By QEMU: from the beginning to the end, and of it the time in which the guest was stopped. */
  readonly totalMs: number;
  readonly downtimeMs: number;
  /** When it began, the guest stopped here and ran there, by this process's `performance.now()`. */
  readonly beganAtMs: number;
  readonly stoppedAtMs: number;
  readonly resumedAtMs: number;
  /** QEMU's own phases, in order, with the time of each from the beginning. */
  readonly phases: readonly { readonly name: string; readonly atMs: number }[];
}

/** A migration that did not happen: the source has the guest, unless QEMU itself has ended. */
export class MigrationFailed extends Error {
  readonly status: string;

  constructor(status: string, reason: string) {
    super(`the migration ${status}: ${reason}`);
    this.status = status;
  }
}

/** `to` was started with `incoming`. Resolves when the guest runs there; the source's QEMU, which is stopped for good, still exists. */
export async function migrateGuest(from: Guest, to: Guest, options: MigrateOptions): Promise<GuestMigration> {
  const arrival = to.qmp.events();
  const events = from.qmp.events();
  try {
    await to.qmp.execute('migrate-incoming', { uri: options.uri });
    await setUp(from);
    const beganAtMs = performance.now();
    await from.qmp.execute('migrate', { uri: options.uri });
    const { phases, stoppedAt } = await watch(from, events, options);
    const { timeMs } = await arrival.find(({ name }) => name === 'RESUME', { timeoutMs: RESUME_MS_MAX });
    const answer = (await from.qmp.execute('query-migrate')) as { 'total-time': number; downtime: number };
    return {
      totalMs: answer['total-time'],
      downtimeMs: answer.downtime,
      beganAtMs,
      stoppedAtMs: onOurClock(stoppedAt),
      resumedAtMs: onOurClock(timeMs),
      phases: phases.map(({ name, timeMs }) => ({ name, atMs: onOurClock(timeMs) - beganAtMs })),
    };
  } finally {
    events.close();
    arrival.close();
  }
}

/** The memory of both is one file: it is not copied. Before the migration. */
export async function keepMemory(from: Guest, to: Guest): Promise<void> {
  const capabilities = [{ capability: 'x-ignore-shared', state: true }];
  for (const { qmp } of [from, to]) await qmp.execute('migrate-set-capabilities', { capabilities });
}

async function setUp({ qmp }: Guest): Promise<void> {
  const capabilities = ['pause-before-switchover', 'events'].map((capability) => ({ capability, state: true }));
  await qmp.execute('migrate-set-capabilities', { capabilities });
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': BANDWIDTH_BYTES_MAX, 'downtime-limit': DOWNTIME_MS_MAX });
}

/** Follows it to its end. Rejects where that is another one than `completed`. */
async function watch({ qmp }: Guest, events: QmpEvents, { atSwitchover }: MigrateOptions) {
  const phases: { name: string; timeMs: number }[] = [];
  const end = systemClock.now() + MIGRATION_MS_MAX;
  let stoppedAt = Number.NaN;
  for (;;) {
    const { name, data, timeMs } = await events.next({ timeoutMs: Math.max(0, end - systemClock.now()) });
    if (name === 'STOP') stoppedAt = timeMs;
    if (name !== 'MIGRATION') continue;
    const status = String(data.status);
    phases.push({ name: status, timeMs });
    switch (status) {
      case 'pre-switchover': {
        const goesOn = (await atSwitchover?.()) ?? true;
        if (goesOn) await qmp.execute('migrate-continue', { state: 'pre-switchover' });
        else await qmp.execute('migrate_cancel');
        break;
      }
      case 'completed':
        return { phases, stoppedAt };
      case 'failed':
      case 'cancelled': {
        const answer = (await qmp.execute('query-migrate')) as { 'error-desc'?: string };
        throw new MigrationFailed(status, answer['error-desc'] ?? 'QEMU gives no reason');
      }
    }
  }
}

/** QEMU's events carry the wall clock. */
function onOurClock(wallMs: number): number {
  return wallMs - performance.timeOrigin;
}
