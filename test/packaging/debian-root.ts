/**
 * This machine's Debian with changes that nobody else sees: an overlay over / in a mount namespace. A package is installed there by the
 * real dpkg, with its real scripts; systemd is there as far as scripts can tell, and writes down what it is asked for.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { Cleanup } from '../support/cleanup.ts';
import { type RunningProcess, type RunResult, run, startProcess } from '../support/process.ts';
import { waitForListener } from '../support/wait.ts';

const ROOT = '/mnt';
const CALLS = '/var/tmp/systemctl-calls';
const RUN_MS_MAX = 120_000;
/** Where Debian 12's QEMU has it. */
const VIRTIOFSD = '/usr/lib/qemu/virtiofsd';

/**
 * The upper layer is a tmpfs, /run is the overlay's own. What systemctl does to links it does; what it would ask of a running systemd
 * is only written down, and is taken for done. policy-rc.d may be there to keep a container from starting services. Without the
 * file auto-update the index of all manual pages is not made again each time.
 */
const PREPARE_SCRIPT = `
set -e
mount -t tmpfs tmpfs ${ROOT}
mkdir ${ROOT}/upper ${ROOT}/work ${ROOT}/root
mount -t overlay -o lowerdir=/,upperdir=${ROOT}/upper,workdir=${ROOT}/work overlay ${ROOT}/root
cd ${ROOT}/root
mount --rbind /proc proc
mount --rbind /dev dev
mkdir -p run/systemd/system
rm -f usr/sbin/policy-rc.d var/lib/man-db/auto-update
mv usr/bin/systemctl usr/bin/systemctl.real
cat >usr/bin/systemctl <<'END'
#!/bin/sh
echo "$@" >>${CALLS}
case "$*" in *preset* | *is-enabled*) SYSTEMD_OFFLINE=1 exec systemctl.real "$@" ;; esac
END
chmod 755 usr/bin/systemctl
echo ready
exec sleep infinity
`;

const UNSHARE = ['unshare', '--mount', '--propagation', 'private'];

/** Why there can be no such root here, or undefined where there can. */
export async function debianRootProblem(): Promise<string | undefined> {
  if (process.geteuid?.() !== 0) return 'an overlay over / needs root';
  const { status, stderr } = await run([...UNSHARE, 'sh', '-c', PREPARE_SCRIPT.replace('exec sleep infinity', '')]);
  return status === 0 ? undefined : `an overlay over / does not work here: ${stderr.trim()}`;
}

export class DebianRoot {
  readonly #holder: RunningProcess;

  private constructor(holder: RunningProcess) {
    this.#holder = holder;
  }

  static async start(cleanup: Cleanup): Promise<DebianRoot> {
    const holder = startProcess([...UNSHARE, 'sh', '-c', PREPARE_SCRIPT], cleanup);
    await holder.waitForLine(/^ready$/);
    return new DebianRoot(holder);
  }

  /** Offers the root to a guest: it mounts it by virtiofs, from this unix socket. The guest's changes are its own (image/init). */
  async share(socket: string, cleanup: Cleanup): Promise<void> {
    const options = [`--socket-path=${socket}`, '-o', `source=${ROOT}/root`, '-o', 'cache=always', '-o', 'sandbox=chroot'];
    const server = startProcess([...this.#enter, VIRTIOFSD, ...options], cleanup);
    await waitForListener(socket, server.pid, RUN_MS_MAX);
  }

  /** Where this process finds a path of that root. Links are not to be followed: they would lead out of it. */
  path(path: string): string {
    return `/proc/${this.#holder.pid}/root${ROOT}/root${path}`;
  }

  /** Runs a program there; any exit is a result. */
  run(...argv: readonly string[]): Promise<RunResult> {
    return run([...this.#enter, 'chroot', `${ROOT}/root`, ...argv], {
      timeoutMs: RUN_MS_MAX,
      env: { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' },
    });
  }

  get #enter(): string[] {
    return ['nsenter', '--target', String(this.#holder.pid), '--mount', '--wd=/', '--'];
  }

  /** As `run`, and throws unless the program ends with 0. Returns stdout. */
  async runOk(...argv: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(...argv);
    if (status !== 0) throw new Error(`"${argv.join(' ')}" ended with ${status}: ${stderr}${stdout}`);
    return stdout;
  }

  /** Installs a package of a file of the real root. */
  async install(file: string): Promise<void> {
    const target = `/var/tmp/${basename(file)}`;
    writeFileSync(this.path(target), readFileSync(file));
    // Node may be here without its package, from nodejs.org.
    const { status } = await this.run('dpkg-query', '--show', 'nodejs');
    await this.runOk('dpkg', ...(status === 0 ? [] : ['--force-depends']), '--install', target);
  }

  /** What systemctl was asked for since the last call, as lines. */
  async systemctlCalls(): Promise<string[]> {
    if (!existsSync(this.path(CALLS))) return [];
    const lines = readFileSync(this.path(CALLS), 'utf8').trim().split('\n');
    await this.runOk('rm', CALLS);
    return lines;
  }
}
