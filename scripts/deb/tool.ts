/** Programs that the packaging calls. */

import { spawnSync } from 'node:child_process';

const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

/** Runs a program to its end and returns its stdout. Throws where it is missing or fails, with its words. */
export function runTool(program: string, argv: readonly string[]): string {
  const { error, status, signal, stdout, stderr } = spawnSync(program, argv, { encoding: 'utf8', maxBuffer: OUTPUT_BYTES_MAX });
  if (error !== undefined) throw new Error(`${program} cannot be run: ${error.message}`);
  if (status !== 0) throw new Error(`"${program} ${argv.join(' ')}" ended with ${signal ?? status}: ${stderr.trim()}`);
  return stdout;
}
