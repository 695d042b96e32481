/** A real QEMU that runs no guest and has no device: for what only its monitor is asked. */
import { systemClock } from '../../src/lib/clock.ts';
import { QmpConnection } from '../../src/vmm/qmp-connection.ts';
import type { Cleanup } from './cleanup.ts';
import { type RunningProcess, startProcess } from './process.ts';
import { waitFor } from './wait.ts';

const START_MS_MAX = 60_000;

export interface IdleQemu {
  readonly process: RunningProcess;
  /** A monitor of the test's own. */
  readonly qmp: QmpConnection;
  /** The path of another monitor, which nobody uses. */
  readonly monitor: string;
}

/** QEMU's command line; `monitor` is the path of a QMP socket. */
export function idleQemuArguments(monitor: string, ...argv: readonly string[]): string[] {
  const fixed = ['-accel', 'tcg', '-display', 'none', '-nodefaults', '-no-user-config', '-machine', 'q35', '-m', '32M'];
  return ['qemu-system-x86_64', ...fixed, '-qmp', `unix:${monitor},server=on,wait=off`, ...argv];
}

/** `path` is where its monitors go; what comes behind it is added. */
export async function startIdleQemu(path: string, cleanup: Cleanup, ...argv: readonly string[]): Promise<IdleQemu> {
  const own = `${path}-own`;
  const process = startProcess(idleQemuArguments(path, '-qmp', `unix:${own},server=on,wait=off`, ...argv), cleanup);
  return { process, qmp: await connectQmp(own, process), monitor: path };
}

/** Waits until a QEMU greets there. */
export function connectQmp(path: string, process?: RunningProcess): Promise<QmpConnection> {
  return waitFor(
    `a monitor at ${path}`,
    async () => {
      if (process?.ended) throw new Error(process.stderr);
      return QmpConnection.open({ path, clock: systemClock, greetingMs: START_MS_MAX }).catch(() => undefined);
    },
    START_MS_MAX,
  );
}
