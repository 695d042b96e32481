/** Where a migration of a QEMU stands: query-migrate's answer as a checked value. */
import { NetbusError } from '../device/errors.ts';
import { isObject, type QmpObject } from '../protocols/qmp/message.ts';
import type { QmpConnection } from './qmp-connection.ts';

/** QEMU's words, those that matter here; others of a migration that is under way (postcopy, colo, wait-unplug) count as `active`. */
export type MigrationStatus =
  /** There was none. */
  | 'none'
  /** It connects to the destination. */
  | 'setup'
  /** The guest runs here while its memory is copied. */
  | 'active'
  /** The guest is stopped here; `migrate-continue` lets it go. */
  | 'pre-switchover'
  /** The rest is on its way; from here on the destination may have the guest. */
  | 'device'
  | 'cancelling'
  | 'cancelled'
  | 'completed'
  | 'failed';

/** How far the guest's memory has come. */
export interface MigratedRam {
  readonly transferredBytes: number;
  readonly remainingBytes: number;
  readonly totalBytes: number;
  readonly bytesPerSecond: number;
  /** What the guest writes anew meanwhile. */
  readonly dirtyBytesPerSecond: number;
  /** Times that all that was written anew was looked for. */
  readonly passes: number;
}

export interface MigrationState {
  readonly status: MigrationStatus;
  /** Why it failed, in QEMU's words. */
  readonly error?: string;
  /** Why this VM cannot be migrated, in QEMU's words; mostly empty. */
  readonly blockers: readonly string[];
  readonly totalMs?: number;
  /** From the guest's stop here to the end, by QEMU. */
  readonly downtimeMs?: number;
  readonly ram?: MigratedRam;
}

/** The longest text of QEMU's that is passed on, in characters. */
const TEXT_CHARACTERS_MAX = 500;
const BLOCKERS_MAX = 16;

const STATUSES: readonly MigrationStatus[] = [
  'none',
  'setup',
  'active',
  'pre-switchover',
  'device',
  'cancelling',
  'cancelled',
  'completed',
  'failed',
];

export async function migrationState(qmp: QmpConnection): Promise<MigrationState> {
  return decodeMigrationState(await qmp.execute('query-migrate'));
}

/** True where a migration is under way. */
export function isUnderWay({ status }: MigrationState): boolean {
  return ['setup', 'active', 'pre-switchover', 'device', 'cancelling'].includes(status);
}

/** Unknown members are ignored, and numbers that are none left out. Throws `protocol` where it is no object. */
export function decodeMigrationState(answer: unknown): MigrationState {
  if (!isObject(answer)) throw new NetbusError('protocol', 'query-migrate answered something else than an object');
  const totalMs = count(answer, 'total-time');
  const downtimeMs = count(answer, 'downtime');
  const ram = isObject(answer.ram) ? ramOf(answer.ram) : undefined;
  const blockers = Array.isArray(answer['blocked-reasons']) ? answer['blocked-reasons'] : [];
  return {
    status: statusOf(answer.status),
    blockers: blockers
      .filter((reason) => typeof reason === 'string')
      .slice(0, BLOCKERS_MAX)
      .map(oneLine),
    ...(typeof answer['error-desc'] === 'string' && { error: oneLine(answer['error-desc']) }),
    ...(totalMs !== undefined && { totalMs }),
    ...(downtimeMs !== undefined && { downtimeMs }),
    ...(ram !== undefined && { ram }),
  };
}

/** QEMU says nothing where there was no migration since it began. */
export function statusOf(word: unknown): MigrationStatus {
  if (word === undefined) return 'none';
  return STATUSES.find((status) => status === word) ?? 'active';
}

function ramOf(ram: QmpObject): MigratedRam {
  const pageBytes = count(ram, 'page-size') ?? 4096;
  return {
    transferredBytes: count(ram, 'transferred') ?? 0,
    remainingBytes: count(ram, 'remaining') ?? 0,
    totalBytes: count(ram, 'total') ?? 0,
    // Megabits, of a million bits.
    bytesPerSecond: Math.round(((count(ram, 'mbps') ?? 0) * 1e6) / 8),
    dirtyBytesPerSecond: (count(ram, 'dirty-pages-rate') ?? 0) * pageBytes,
    passes: count(ram, 'dirty-sync-count') ?? 0,
  };
}

function count(object: QmpObject, member: string): number | undefined {
  const value = object[member];
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : undefined;
}

function oneLine(text: string): string {
  return text
    .trim()
    .replace(/\s*\n\s*/g, ' ')
    .slice(0, TEXT_CHARACTERS_MAX);
}
