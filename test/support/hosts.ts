/**
 * Several hosts on one machine. As root each is a set of namespaces: its own network (joined to the others through a bridge),
 * its own mounts (a private /run and /var/lib) and host name, so that all use the same paths, as real hosts do. Otherwise each is a loopback
 * address with folders of its own.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Cleanup } from './cleanup.ts';
import { joinHosts, NamespaceHolder, namespacesProblem } from './namespaces.ts';
import { type ProcessOptions, type RunningProcess, startProcess } from './process.ts';

export type HostKind = 'namespace' | 'loopback';

/** A host. Its folder is the same path everywhere; runDir and stateDir are the paths that its own programs see. */
export interface Host {
  readonly name: string;
  readonly kind: HostKind;
  /** Its IPv4 address, reachable from the other hosts. */
  readonly address: string;
  /** On the real filesystem, visible to this process and to all hosts: for images, certificates, configuration, logs. */
  readonly folder: string;
  /** For sockets: /run/netbus in a namespace. */
  readonly runDir: string;
  /** For what has to outlive the daemon, on the real filesystem: /var/lib/netbus in a namespace. */
  readonly stateDir: string;
  /** Where this process finds a path of the host, such as its control socket. */
  path(hostPath: string): string;
  /** A command line that runs `argv` on this host. The process keeps its pid, so signals reach it. */
  command(argv: readonly string[]): string[];
  /** Starts a program on this host; it is stopped with the host at the latest. */
  spawn(argv: readonly string[], options?: ProcessOptions): RunningProcess;
}

/** Hosts that were made together; `remove` ends all that runs on them and leaves nothing behind. */
export interface Hosts {
  readonly kind: HostKind;
  readonly all: readonly Host[];
  get(name: string): Host;
  remove(): Promise<void>;
}

/** Most hosts of one network. */
const HOSTS_MAX = 16;
/** Room that is left for names in a run folder, so that socket paths stay below the kernel's 107 bytes. */
const RUN_DIR_BYTES_MAX = 60;

/** What `createHosts` makes by default here; a reason where it cannot be namespaces. */
export async function hostKind(): Promise<{ kind: HostKind; reason?: string }> {
  const reason = await namespacesProblem();
  return reason === undefined ? { kind: 'namespace' } : { kind: 'loopback', reason };
}

/** Makes hosts that reach each other. `cleanup` removes them at the latest. */
export async function createHosts(names: readonly string[], cleanup: Cleanup, kind?: HostKind): Promise<Hosts> {
  if (names.length > HOSTS_MAX) throw new Error(`at most ${HOSTS_MAX} hosts`);
  const base = mkdtempSync(join(tmpdir(), 'nb-'));
  const folders = names.map((name) => join(base, name));
  for (const folder of folders) mkdirSync(join(folder, 'state'), { recursive: true });
  const made = cleanup.add(`the folder ${base}`, () => rmSync(base, { recursive: true, force: true }));

  const chosen = kind ?? (await hostKind()).kind;
  const own = chosen === 'namespace' ? await namespaceHosts(names, folders, cleanup) : loopbackHosts(names, folders, cleanup);
  let removed: Promise<void> | undefined;
  const remove = (): Promise<void> => {
    removed ??= own.remove().then(() => {
      forget();
      made();
      rmSync(base, { recursive: true, force: true });
    });
    return removed;
  };
  const forget = cleanup.add(`hosts ${names.join(', ')}`, remove);
  return { kind: chosen, all: own.hosts, get: (name) => find(own.hosts, name), remove };
}

interface OwnHosts {
  hosts: Host[];
  remove(): Promise<void>;
}

async function namespaceHosts(names: readonly string[], folders: readonly string[], cleanup: Cleanup): Promise<OwnHosts> {
  const holders: NamespaceHolder[] = [];
  const removeAll = async (): Promise<void> => {
    // The bridge's own namespace goes last.
    for (const holder of [...holders].reverse()) await holder.remove();
  };
  try {
    const bridge = await NamespaceHolder.start('bridge', undefined, cleanup);
    holders.push(bridge);
    for (const [index, name] of names.entries()) holders.push(await NamespaceHolder.start(name, folders[index]!, cleanup));
    const addresses = await joinHosts(bridge, holders.slice(1));
    const hosts = holders.slice(1).map(
      (holder, index): Host => ({
        name: names[index]!,
        kind: 'namespace',
        address: addresses[index]!,
        folder: folders[index]!,
        runDir: '/run/netbus',
        stateDir: '/var/lib/netbus',
        path: (hostPath) => holder.path(hostPath),
        command: (argv) => holder.command(argv),
        spawn: (argv, options) => startProcess(holder.command(argv), cleanup, options),
      }),
    );
    return { hosts, remove: removeAll };
  } catch (error) {
    await removeAll();
    throw error;
  }
}

/** 127.0.0.2 and up. What was spawned is stopped one by one: there is no namespace to find it by. */
function loopbackHosts(names: readonly string[], folders: readonly string[], cleanup: Cleanup): OwnHosts {
  const processes: RunningProcess[] = [];
  const hosts = names.map((name, index): Host => {
    const folder = folders[index]!;
    const runDir = join(folder, 'run');
    if (Buffer.byteLength(runDir) > RUN_DIR_BYTES_MAX) {
      throw new Error(`${runDir} is too long for sockets in it (${RUN_DIR_BYTES_MAX} bytes): set TMPDIR to a shorter folder`);
    }
    mkdirSync(runDir);
    return {
      name,
      kind: 'loopback',
      address: `127.0.0.${2 + index}`,
      folder,
      runDir,
      stateDir: join(folder, 'state'),
      path: (hostPath) => hostPath,
      command: (argv) => [...argv],
      spawn: (argv, options) => {
        const running = startProcess(argv, cleanup, options);
        processes.push(running);
        return running;
      },
    };
  });
  return { hosts, remove: async () => void (await Promise.all(processes.map((running) => running.stop().catch(() => {})))) };
}

function find(hosts: readonly Host[], name: string): Host {
  const host = hosts.find((candidate) => candidate.name === name);
  if (host === undefined) throw new Error(`no host ${name} among ${hosts.map((candidate) => candidate.name).join(', ')}`);
  return host;
}
