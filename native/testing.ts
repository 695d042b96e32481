/** What the addon's tests share. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** The addon that `index.ts` loads, for child processes and workers that load it by themselves. */
export const ADDON_PATH = process.env.NETBUS_ADDON ?? fileURLToPath(new URL('./build/netbus.node', import.meta.url));

/** A directory of the test's own, removed after it. */
export function temporaryDirectory(context: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'netbus-native-'));
  context.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A number that no descriptor has. One that was just closed may be another thread's already: the loader's, for example. */
export const NO_DESCRIPTOR = 2 ** 30;

/**
 * Descriptors that this process has open, files with a path aside: those the loader of the tests opens and closes at any
 * time, on a thread of its own. Node closes some of its own too, so a test asks for no more than before.
 */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return !target.startsWith('/') || target.startsWith('/memfd:');
    } catch {
      return false;
    }
  }).length;
}

let collect: (() => void) | undefined;

/** A full garbage collection. */
export function collectGarbage(): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
  }
  collect();
}

/** One turn of the event loop, with its immediates. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Turns of the event loop until `condition` holds. The test's own timeout bounds it. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await nextTurn();
}

/** Asserts with assert.throws: an Error of a system call. */
export function systemError(code: string, syscall: string): { code: string; syscall: string } {
  return { code, syscall };
}

/** A loop device over a new file of `bytes`, or why there is none. */
export function loopDevice(context: TestContext, bytes: number): string | { skip: string } {
  if (process.getuid?.() !== 0) return { skip: 'needs root, for losetup' };
  if (!existsSync('/dev/loop-control')) return { skip: 'needs loop devices: modprobe loop' };
  const image = join(temporaryDirectory(context), 'image');
  execFileSync('truncate', ['-s', String(bytes), image]);
  const device = execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim();
  context.after(() => execFileSync('losetup', ['--detach', device]));
  return device;
}
