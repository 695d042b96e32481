/** The folders that a daemon makes its own before it does anything in them, and what is left in them of a daemon that could not. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { NetbusError } from '../device/errors.ts';
import type { Events } from './events.ts';
import { LOCK_FILE, lockFolder } from './folder-lock.ts';

const STATE_FOLDER_MODE = 0o700;
/** Others pass through on their way to the sockets, whose folders have modes of their own. */
const RUN_FOLDER_MODE = 0o755;

/** Both, or none: then nothing is left in the other one. Returns how they are released. Throws as `lockFolder`. */
export async function takeFolders({ stateDir, runDir }: { stateDir: string; runDir: string }): Promise<() => Promise<void>> {
  const state = await lockFolder(stateDir, 'state folder', STATE_FOLDER_MODE);
  try {
    const run = await lockFolder(runDir, 'run folder', RUN_FOLDER_MODE);
    return async () => {
      await run.release();
      await state.release();
    };
  } catch (thrown) {
    await state.undo();
    throw thrown;
  }
}

/** The history tells why a daemon did not start, also where that was before its history was open; but neither in a folder that is another daemon's, nor in one that is nobody's yet. */
export async function keepFailure(events: Events, stateDir: string, error: NetbusError): Promise<void> {
  if (!existsSync(join(stateDir, LOCK_FILE))) return;
  try {
    const lock = await lockFolder(stateDir, 'state folder', STATE_FOLDER_MODE);
    await events.open();
    events.failed(error);
    await events.close();
    await lock.release();
  } catch {
    // It is in use, or cannot be used at all: what is wrong is said on stderr.
  }
}
