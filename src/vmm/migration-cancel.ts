/** Cancels a migration of a QEMU, and brings the guest back to life at the source. */
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { pause } from './bounded.ts';
import { runState } from './machine.ts';
import { isUnderWay, migrationState } from './migration-state.ts';
import type { QmpConnection } from './qmp-connection.ts';

export const CANCEL_MS_MAX = 60_000;
export const CANCEL_PAUSE_MS = 50;
/** QEMU lets the guest go on by itself, a little later. */
const RESUME_MS_MAX = 10_000;

/** What helps where a migration hangs after the switch-over. */
export const END_THE_DESTINATION = 'end the QEMU at the destination, and the VM goes on here';

/** Cancels a migration that nobody watches any more, and brings the guest back. Rejects with `not_found` where none is under way. */
export async function cancelMigration(qmp: QmpConnection, clock: Clock): Promise<void> {
  const state = await migrationState(qmp);
  if (!isUnderWay(state)) throw new NetbusError('not_found', 'no migration of this VM is under way (query-migrate)');
  if (state.status === 'device') throw tooLate();
  await qmp.execute('migrate_cancel');
  const end = clock.now() + CANCEL_MS_MAX;
  while (isUnderWay(await migrationState(qmp))) {
    if (clock.now() >= end) throw new NetbusError('timeout', `QEMU did not cancel within ${CANCEL_MS_MAX / 1000} s`);
    await pause(clock, CANCEL_PAUSE_MS);
    await wakeCancelled(qmp);
  }
  // Whoever began it may have been killed at the switch-over: the guest is stopped for it.
  await resume(qmp, clock, state.status === 'pre-switchover');
}

/**
 * A cancellation that comes in the moment between the stop of the guest and `pre-switchover` is noted by QEMU (7.2), whose migration then waits to be
 * continued all the same. Told so it looks, and ends. Without effect where it does not wait.
 */
export async function wakeCancelled(qmp: QmpConnection): Promise<void> {
  await qmp.execute('migrate-continue', { state: 'cancelling' }).catch((thrown: unknown) => {
    // It is in another state by now.
    if (NetbusError.from(thrown).code !== 'device') throw thrown;
  });
}

/** Lets the guest go on after a migration that did not happen. `ours`: it is stopped for the migration, and not by somebody else. */
export async function resume(qmp: QmpConnection, clock: Clock, ours: boolean): Promise<void> {
  const end = clock.now() + RESUME_MS_MAX;
  for (;;) {
    const { word } = await runState(qmp);
    switch (word) {
      case 'running':
        return;
      case 'paused':
      case 'postmigrate':
        if (!ours) throw new NetbusError('device', `it was stopped meanwhile ("${word}"); QMP "cont" lets it go on`);
        await qmp.execute('cont');
        break;
      case 'finish-migrate':
        break;
      default:
        throw new NetbusError('device', `its state is "${word}" (query-status)`);
    }
    if (clock.now() >= end)
      throw new NetbusError('timeout', `its state is still "${word}" (query-status): QMP "cont" lets it go on`);
    await pause(clock, CANCEL_PAUSE_MS);
  }
}

function tooLate(): NetbusError {
  return new NetbusError(
    'in_use',
    `the migration is being completed, which cannot be cancelled; where it hangs, ${END_THE_DESTINATION}`,
  );
}
