/** What `netbus migrate` tells: where it is, and how it went. */
import type { Followed } from '../api/jobs.ts';
import type { MigrationArrival, MigrationReport } from '../api/migration.ts';
import { formatBytes } from '../lib/format.ts';
import type { MigrationProgress, MigrationResult } from '../vmm/live-migration.ts';

export interface MigratedDevice {
  readonly name: string;
  readonly device: string;
  /** Left out where the guest did not use it. */
  readonly outcome?: 'clean' | 'cut' | undefined;
  readonly drainMs?: number | undefined;
  readonly stopStallMs?: number | undefined;
  readonly startStallMs?: number | undefined;
}

export interface Migrated extends MigrationResult {
  readonly vm: string;
  readonly to: string;
  readonly uri: string;
  /** The source QEMU's version. */
  readonly qemu: string;
  /** What the devices added to the downtime: their stops one after another, and the longest start. */
  readonly addedStallMs: number;
  readonly longestDrainMs: number;
  readonly devices: readonly MigratedDevice[];
  /** The QEMU at this host was ended. */
  readonly sourceEnded: boolean;
  /** Devices that were to follow it: the jobs at the destination, or why there is none. */
  readonly follows: readonly Followed[];
  readonly warnings: readonly string[];
}

/** `result` is what QEMU says of the migration, `report` what the daemons say of the devices. */
export function summarize(
  place: Pick<Migrated, 'vm' | 'to' | 'uri' | 'qemu'>,
  result: MigrationResult,
  report: MigrationReport,
  rest: Pick<Migrated, 'sourceEnded' | 'follows' | 'warnings'>,
): Migrated {
  const devices = report.stop.map(({ name, device, outcome, drainMs, stallMs }): MigratedDevice => {
    const startStallMs = arrival(report, name)?.stallMs;
    return {
      name,
      device,
      outcome,
      drainMs: rounded(drainMs),
      stopStallMs: rounded(stallMs),
      startStallMs: rounded(startStallMs),
    };
  });
  const stops = devices.map(({ stopStallMs = 0 }) => stopStallMs);
  const starts = devices.map(({ startStallMs = 0 }) => startStallMs);
  return {
    ...place,
    ...result,
    addedStallMs: rounded(stops.reduce((sum, stall) => sum + stall, 0) + Math.max(0, ...starts)),
    longestDrainMs: Math.max(0, ...devices.map(({ drainMs = 0 }) => drainMs)),
    devices,
    ...rest,
  };
}

/** To a microsecond: the rest is noise. */
function rounded(ms: number): number;
function rounded(ms: number | undefined): number | undefined;
function rounded(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Number(ms.toFixed(3));
}

export function arrival({ start }: MigrationReport, name: string): MigrationArrival | undefined {
  return start.find((candidate) => candidate.name === name);
}

export function describeProgress({ phase, ram }: MigrationProgress, to: string): string {
  switch (phase) {
    case 'connecting':
      return `connecting to the QEMU at ${to}`;
    case 'copying': {
      if (ram === undefined) return 'copying the memory';
      const rates = `${formatBytes(ram.bytesPerSecond)}/s, the guest writes ${formatBytes(ram.dirtyBytesPerSecond)}/s`;
      return `copying the memory: ${formatBytes(ram.remainingBytes)} of ${formatBytes(ram.totalBytes)} left, ${rates}, pass ${ram.passes}`;
    }
    case 'switching-over':
      return 'the guest is stopped: are its devices at rest?';
    case 'completing':
      return `handing over to ${to}`;
    case 'cancelling':
      return 'cancelling: the VM stays here';
  }
}
