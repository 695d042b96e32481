/** `netbus migrate --cancel`: from another terminal, or after the command that migrated was killed. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlClient } from '../api/client.ts';
import type { MigrationProgressEntry } from '../api/migration.ts';
import { NetbusError } from '../device/errors.ts';
import { systemClock } from '../lib/clock.ts';
import { CANCEL_MS_MAX, cancelMigration } from '../vmm/live-migration.ts';
import { restoreCapabilities } from '../vmm/migratable.ts';
import { QmpConnection } from '../vmm/qmp-connection.ts';
import type { Context } from './context.ts';

const LOOK_MS = 200;

export interface Cancelled {
  readonly vm: string;
  readonly to?: string | undefined;
  readonly warnings: readonly string[];
}

/** Resolves when the VM goes on here. `path`: QEMU's QMP socket, for where no command is at it any more. */
export async function cancelVm(
  context: Context,
  { vm, path, to }: { vm: string; path: string | undefined; to: string | undefined },
): Promise<Cancelled> {
  const { client } = context;
  let running: MigrationProgressEntry;
  try {
    running = await client.cancelMigration(vm);
  } catch (thrown) {
    const { code } = NetbusError.from(thrown);
    if (path === undefined || (code !== 'not_found' && code !== 'unreachable')) throw thrown;
    return cancelAtMonitor(client, vm, path, to);
  }
  await waitForEnd(client, running);
  return { vm, to: running.to, warnings: [] };
}

/** The command that migrates cancels, and says so to the daemon when all is undone. */
async function waitForEnd(client: ControlClient, { vm, to }: MigrationProgressEntry): Promise<void> {
  // Its own wait for QEMU, and a little for the rest.
  const end = systemClock.now() + 2 * CANCEL_MS_MAX;
  for (;;) {
    try {
      await client.migrationProgress(vm);
    } catch (thrown) {
      if (NetbusError.from(thrown).code !== 'not_found') throw thrown;
      break;
    }
    if (systemClock.now() >= end) throw new NetbusError('timeout', `the command that migrates VM ${vm} has not cancelled yet`);
    await sleep(LOOK_MS);
  }
  const { attachments } = await client.status();
  const here = attachments.some((entry) => entry.vm === vm && entry.state !== 'moved');
  if (!here) throw new NetbusError('ended', `it was too late: VM ${vm} has gone to host ${to}`);
}

async function cancelAtMonitor(client: ControlClient, vm: string, path: string, to: string | undefined): Promise<Cancelled> {
  const qmp = await QmpConnection.open({ path, clock: systemClock });
  try {
    await cancelMigration(qmp, systemClock);
    // As a QEMU begins; what it was before is not known any more.
    await restoreCapabilities(qmp, new Map());
  } finally {
    qmp.close();
  }
  if (to === undefined) {
    return { vm, warnings: ['what was made ready at the destination stays ready there: add --to HOST to take it back'] };
  }
  try {
    await client.endMigration(vm, to, { undo: true });
    return { vm, to, warnings: [] };
  } catch (thrown) {
    const { message } = NetbusError.from(thrown);
    return { vm, to, warnings: [`what was made ready at host ${to} was not taken back: ${message}`] };
  }
}
