/** "Did you mean" for names that only the daemon knows: asked of it after it said that there is none. */
import type { Command } from 'commander';
import { NetbusError } from '../device/errors.ts';
import { nearest } from '../lib/nearest.ts';
import { completionOf } from './completion/kinds.ts';
import { knownNames } from './completion/names.ts';

/** The same error, with the name that was most probably meant, where there is one. Takes a second at most, and never fails. */
export async function withGuess(error: NetbusError, command: Command | undefined): Promise<NetbusError> {
  if (error.code !== 'not_found' || command === undefined) return error;
  const { socket, runDir } = command.optsWithGlobals<{ socket?: string; runDir?: string }>();
  for (const [index, argument] of command.registeredArguments.entries()) {
    const typed = command.args[index];
    const value = completionOf(command.name(), argument.name(), argument.name(), undefined);
    if (typed === undefined || value.type !== 'names') continue;
    const near = nearest(typed, await knownNames(value.kind, { socket, runDir }));
    if (near === undefined || near === typed) continue;
    return new NetbusError(error.code, `${error.message}; did you mean ${near}?`, { cause: error });
  }
  return error;
}
