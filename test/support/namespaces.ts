/** Linux namespaces as hosts: a sleeping process holds each set of them, and all end with it. */

import { readdirSync, readlinkSync } from 'node:fs';
import type { Cleanup } from './cleanup.ts';
import { type RunningProcess, run, runOk, startProcess } from './process.ts';
import { waitFor } from './wait.ts';

/** Hosts are 10.77.0.1 and up, inside their namespaces only. */
const NETWORK = '10.77.0';
const PREFIX_LENGTH = 24;

/**
 * Runs inside the new namespaces: $1 is the host's name, $2 its folder (none for the bridge). The state folder is the real
 * one, so that a flush there is a real flush; it is entered before /run and /var/lib are covered.
 */
const PREPARE_SCRIPT = `
set -e
hostname "$1"
ip link set lo up
if [ -n "$2" ]; then
  cd "$2"
  mount -t tmpfs -o mode=0755 tmpfs /run
  mount -t tmpfs -o mode=0755 tmpfs /var/lib
  mkdir /run/netbus /var/lib/netbus
  mount --bind state /var/lib/netbus
  cd /
fi
echo ready
exec sleep infinity
`;

/** Why hosts cannot be namespaces here, or undefined where they can. */
export async function namespacesProblem(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const script = 'ip link add name br0 type bridge && ip link add name a0 type veth peer name b0 && mount -t tmpfs tmpfs /run';
  const probe = await run(['unshare', '--net', '--mount', '--uts', '--propagation', 'private', 'sh', '-c', script]);
  return probe.status === 0 ? undefined : `network namespaces do not work here: ${probe.stderr.trim()}`;
}

/** One set of namespaces. */
export class NamespaceHolder {
  readonly name: string;
  readonly #process: RunningProcess;
  readonly #network: string;

  private constructor(name: string, holder: RunningProcess) {
    this.name = name;
    this.#process = holder;
    this.#network = readlinkSync(`/proc/${holder.pid}/ns/net`);
  }

  /** Makes the namespaces and prepares them. With a folder, its `state` becomes /var/lib/netbus there. */
  static async start(name: string, folder: string | undefined, cleanup: Cleanup): Promise<NamespaceHolder> {
    if (folder !== undefined && /^\/(run|var\/lib)(\/|$)/.test(folder)) {
      throw new Error(`${folder} would be hidden on the hosts: set TMPDIR to a folder outside /run and /var/lib`);
    }
    const unshare = ['unshare', '--net', '--mount', '--uts', '--propagation', 'private'];
    const holder = startProcess([...unshare, 'sh', '-c', PREPARE_SCRIPT, 'sh', name, folder ?? ''], cleanup);
    await holder.waitForLine(/^ready$/);
    return new NamespaceHolder(name, holder);
  }

  get pid(): number {
    return this.#process.pid;
  }

  command(argv: readonly string[]): string[] {
    // The working directory stays: it is on the real filesystem, and relative paths of the caller go on to work.
    // --root: the holder's root, which is not that of its mount namespace where all of this runs in a chroot.
    return [
      'nsenter',
      '--target',
      String(this.pid),
      '--net',
      '--mount',
      '--uts',
      '--root',
      `--wd=${process.cwd()}`,
      '--',
      ...argv,
    ];
  }

  path(hostPath: string): string {
    return `/proc/${this.pid}/root${hostPath}`;
  }

  /** Kills everything that runs in the namespaces, also what its starter forgot, and waits until it is gone. */
  async remove(): Promise<void> {
    await waitFor(`the processes of host ${this.name} to end`, () => {
      const pids = this.#processes();
      for (const pid of pids) kill(pid);
      return pids.length === 0;
    });
    await this.#process.exited;
  }

  #processes(): number[] {
    const pids = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number);
    return pids.filter((pid) => networkOf(pid) === this.#network);
  }
}

/** Joins hosts through a bridge and gives them addresses, which are returned in the same order. */
export async function joinHosts(bridge: NamespaceHolder, hosts: readonly NamespaceHolder[]): Promise<string[]> {
  await ipBatch(bridge, ['link add name bridge type bridge', 'link set bridge up']);
  const addresses = hosts.map((_, index) => `${NETWORK}.${index + 1}`);
  for (const [index, host] of hosts.entries()) {
    const port = `port${index}`;
    await ipBatch(bridge, [
      `link add name ${port} type veth peer name eth0 netns ${host.pid}`,
      `link set ${port} master bridge`,
      `link set ${port} up`,
    ]);
    await ipBatch(host, [`address add ${addresses[index]}/${PREFIX_LENGTH} dev eth0`, 'link set eth0 up']);
  }
  // The kernel moves a bridge's port to forwarding a moment after its link is up, and drops what comes earlier.
  await waitFor('the bridge to forward', async () => {
    const links = await runOk(bridge.command(['ip', '-details', 'link', 'show', 'master', 'bridge']));
    return links.match(/state forwarding/g)?.length === hosts.length;
  });
  return addresses;
}

async function ipBatch(holder: NamespaceHolder, commands: readonly string[]): Promise<void> {
  await runOk(holder.command(['ip', '-batch', '-']), { input: `${commands.join('\n')}\n` });
}

/** A process may end between two looks; then it has no network. */
function networkOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return undefined;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
