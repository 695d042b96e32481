/** The program `netbus`, as tests and the demo start it. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import type { RunResult } from './process.ts';

const SOURCE = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

/** The command line of what NETBUS_PROGRAM names (the build, in the demo and in CI), or of the source, which takes five times as long to start. */
export function netbusProgram(): string[] {
  const built = process.env.NETBUS_PROGRAM;
  return built ? [process.execPath, built] : [process.execPath, '--import', import.meta.resolve('tsx'), SOURCE];
}

/** Asserts a failure: this exit status, nothing on stdout, one line for people on stderr. */
export function assertFails({ status, stdout, stderr }: RunResult, expected: number, message: RegExp): void {
  assert.equal(stdout, '');
  assert.match(stderr, /^netbus: [^\n]+\n$/);
  assert.match(stderr, message);
  assert.equal(status, expected);
}
