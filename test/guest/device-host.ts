/**
 * A device's host that can lose its power: a machine of its own (QEMU) with its own kernel, page cache and disk, on which the daemon
 * runs as it was built. Its network is that of a namespace host, whose port leads to it. What it had not flushed dies with it.
 *
 * An emulated processor boots and loads the program for long, so the next machine does that beforehand, beside the one that works: it
 * has a kernel, a boot id and a memory of its own, and no disk. When the power of the one is gone, the other gets the disk.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, readdirSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { basename, dirname, join } from 'node:path';
import type { Cleanup } from '../support/cleanup.ts';
import type { Host } from '../support/hosts.ts';
import { type RunningProcess, runOk } from '../support/process.ts';
import { fileDisk } from './disks.ts';
import { type Guest, startGuest } from './guest.ts';
import { makeEmptyDisk } from './root-disk.ts';

export interface DeviceHostOptions {
  readonly host: Host;
  readonly cleanup: Cleanup;
  /** The built program (dist/netbus.js); its chunks and the addon stand beside it. */
  readonly program: string;
  /** Files for /srv/etc by their names there: netbus.yaml, certificates. */
  readonly files: ReadonlyMap<string, string>;
  /** Where the daemon listens. */
  readonly port: number;
  /** Size of its disk, on which state and images are, in MiB. */
  readonly diskMiB: number;
}

const MEMORY_MIB = 384;
/** Beyond the files of the program's disk. */
const PROGRAM_DISK_SPARE_MIB = 32;
/** An emulated processor needs its time; these bound a hang and say nothing about speed. */
const DAEMON_MS_MAX = 120_000;
const LOOK_US = 100_000;
/** The next machine does not take the processors from those that are looked at. */
const NEXT_NICENESS = 5;
/** The one that works is slow enough: starved as well, it would not finish a handshake within its bound. */
const WORKING_NICENESS = -5;
/** QEMU's user network: what a guest has, and where it finds the rest. */
const GUEST_ADDRESS = '10.0.2.15';
const GATEWAY = '10.0.2.2';

const ENVIRONMENT = 'export LD_LIBRARY_PATH=/opt/lib NETBUS_RUN_DIR=/run/netbus';
/** Code that is made at run time is what an emulated processor is slowest at: with less of it the daemon starts in half the time. */
const NODE = '/opt/node --no-opt --no-sparkplug --max-lazy --regexp-interpret-all';
const PROGRAM = '/opt/netbus.js';
const ARGUMENTS = 'daemon --config /srv/etc/netbus.yaml --state-dir /srv/state';
const LOG = '/run/daemon.log';
/** Loads the program, waits for a word on the pipe of its first argument, and is that program from then on. */
const WAITING = `
  import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
  for (const chunk of readdirSync('/opt/chunks')) await import('/opt/chunks/' + chunk);
  const [pipe] = process.argv.splice(1, 2).slice(1);
  writeFileSync(pipe + '.awaited', '');
  readFileSync(pipe);
  await import(process.argv[1]);
`;
/** Posts each of its further arguments to the path of its first one. */
const POST = `
  import { request } from 'node:http';
  const [path, ...bodies] = process.argv.slice(2);
  const post = { socketPath: '/run/netbus/netbus.sock', path, method: 'POST', headers: { 'content-type': 'application/json' } };
  for (const body of bodies) {
    await new Promise((resolve) => {
      request(post, (answer) => {
        if (answer.statusCode >= 400) process.exitCode = 1;
        answer.pipe(process.stdout, { end: false });
        answer.on('end', resolve);
      }).end(body);
    });
  }
`;

export class DeviceHost {
  readonly name: string;
  readonly #options: DeviceHostOptions;
  readonly #programDisk: string;
  readonly #disk: string;
  #guest: Guest | undefined;
  /** The machine that gets the disk next. */
  #next: Promise<Guest> | undefined;
  #nextProcess: RunningProcess | undefined;

  /** Makes its disks; `boot` starts it. */
  static async create(options: DeviceHostOptions): Promise<DeviceHost> {
    const host = new DeviceHost(options);
    await host.#makeProgramDisk();
    await host.#makeDisk();
    return host;
  }

  private constructor(options: DeviceHostOptions) {
    this.#options = options;
    this.name = options.host.name;
    this.#programDisk = join(options.host.folder, 'program.img');
    this.#disk = join(options.host.folder, 'disk.img');
  }

  get guest(): Guest {
    if (this.#guest === undefined) throw new Error(`${this.name} is switched off`);
    return this.#guest;
  }

  /** Switches it on; resolves when its daemon listens. */
  async boot(): Promise<void> {
    const { host, port } = this.#options;
    const next = this.#next ?? this.#prepare(WORKING_NICENESS);
    this.#next = undefined;
    // From now on somebody waits for it.
    const threads = readdirSync(`/proc/${this.#nextProcess!.pid}/task`);
    for (const thread of threads) setPriority(Number(thread), WORKING_NICENESS);
    const guest = await next;
    this.#guest = guest;
    const file = { driver: 'file', filename: this.#disk };
    await guest.qmp.execute('blockdev-add', { 'node-name': 'disk', driver: 'raw', discard: 'unmap', file });
    await guest.qmp.execute('device_add', { driver: 'virtio-blk-pci', id: 'disk', drive: 'disk' });
    const forward = `hostfwd_add net tcp:${host.address}:${port}-${GUEST_ADDRESS}:${port}`;
    const refused = await guest.qmp.execute('human-monitor-command', { 'command-line': forward });
    if (refused !== '') throw new Error(`${this.name}: ${forward}: ${refused}`);
    await guest.succeed(`
      until [ -b /dev/vdb ]; do usleep 20000; done
      mount -t ext4 /dev/vdb /srv || exit 1
      echo >/run/go
      ${this.#untilDaemonListens()}`);
    this.#next = this.#prepare(NEXT_NICENESS);
    // Whoever boots it hears of it.
    this.#next.catch(() => {});
  }

  /** Starts the daemon in it and waits until it listens, for other hosts and for commands. */
  async startDaemon(): Promise<void> {
    await this.guest.succeed(`${startInBackground(`${NODE} ${PROGRAM} ${ARGUMENTS}`)}\n${this.#untilDaemonListens()}`, {
      timeoutMs: DAEMON_MS_MAX,
    });
  }

  /** Kills the daemon alone. */
  async killDaemon(): Promise<void> {
    await this.guest.succeed(
      'pid=$(cat /run/daemon.pid); kill -9 $pid; while [ -d /proc/$pid ]; do usleep 10000; done; rm -f /run/netbus/netbus.sock',
    );
  }

  /** Posts each of these to the control API of its daemon. One process for all, and not the command line: that takes seconds to load there. */
  async post(path: string, bodies: readonly object[]): Promise<void> {
    const words = [path, ...bodies.map((body) => JSON.stringify(body))].map((word) => `'${word}'`).join(' ');
    await this.guest.succeed(`${ENVIRONMENT}\n${NODE} /opt/post.mjs ${words}`, { timeoutMs: DAEMON_MS_MAX });
  }

  /** `netbus ARGV` in it. Returns what it printed; throws unless it ends with 0. */
  netbus(...argv: readonly string[]): Promise<string> {
    return this.guest.succeed(`${ENVIRONMENT}\n${NODE} ${PROGRAM} ${argv.join(' ')}`, { timeoutMs: DAEMON_MS_MAX });
  }

  /** The power goes: the machine with its memory is gone at once, its disk stays as it is. */
  async losePower(): Promise<void> {
    await this.guest.kill();
    this.#guest = undefined;
  }

  /** A machine that has booted and loaded the program, and waits for its disk and a word. */
  async #prepare(niceness: number): Promise<Guest> {
    const { host, cleanup } = this.#options;
    const guest = await startGuest({
      name: this.name,
      cleanup,
      host: { command: (argv) => host.command(['nice', '-n', String(niceness), ...argv]) },
      // Its disks can be plugged in without a port for each.
      machine: 'pc',
      memoryMiB: MEMORY_MIB,
      started: (qemu) => {
        this.#nextProcess = qemu;
      },
      arguments: [
        ...fileDisk({ id: 'program', path: this.#programDisk, readOnly: true }),
        ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net'],
      ],
    });
    await guest.succeed(
      `mkdir -p /opt /srv /run/netbus
      mount -t ext4 -o ro /dev/vda /opt && mkfifo /run/go
      ip link set eth0 up && ip addr add ${GUEST_ADDRESS}/24 dev eth0 && ip route add default via ${GATEWAY}
      ${startInBackground(`${NODE} /opt/waiting.mjs /run/go ${PROGRAM} ${ARGUMENTS}`)}
      until [ -e /run/go.awaited ]; do
        [ -d /proc/$(cat /run/daemon.pid) ] || { cat ${LOG}; exit 1; }
        usleep ${LOOK_US}
      done`,
      { timeoutMs: DAEMON_MS_MAX },
    );
    return guest;
  }

  #untilDaemonListens(): string {
    const listening = this.#options.port.toString(16).toUpperCase().padStart(4, '0');
    return `pid=$(cat /run/daemon.pid)
      until [ -S /run/netbus/netbus.sock ] && grep -q ':${listening} .* 0A ' /proc/net/tcp; do
        [ -d /proc/$pid ] || { tail -n 5 ${LOG}; exit 1; }
        usleep ${LOOK_US} # Each look takes the daemon's only processor from it.
      done`;
  }

  /** Node.js with its libraries, and the program: read-only, so never dirty. */
  async #makeProgramDisk(): Promise<void> {
    const { host, program } = this.#options;
    const tree = join(host.folder, 'program');
    mkdirSync(join(tree, 'lib'), { recursive: true });
    const node = realpathSync(process.execPath);
    copyFileSync(node, join(tree, 'node'));
    for (const name of ['netbus.js', 'chunks', 'netbus.node'])
      cpSync(join(dirname(program), name), join(tree, name), { recursive: true });
    for (const [, library] of execFileSync('ldd', [node], { encoding: 'utf8' }).matchAll(/=> (\/\S+) \(/g)) {
      copyFileSync(library!, join(tree, 'lib', basename(library!)));
    }
    writeFileSync(join(tree, 'waiting.mjs'), WAITING);
    writeFileSync(join(tree, 'post.mjs'), POST);
    const sizeMiB = Math.ceil(statSync(node).size / 2 ** 20) + PROGRAM_DISK_SPARE_MIB;
    makeEmptyDisk(this.#programDisk, sizeMiB);
    await runOk(['mkfs.ext4', '-q', '-F', '-O', '^has_journal', '-m', '0', '-d', tree, this.#programDisk]);
  }

  async #makeDisk(): Promise<void> {
    const { host, files, diskMiB } = this.#options;
    const tree = join(host.folder, 'disk');
    mkdirSync(join(tree, 'state'), { recursive: true });
    for (const [name, text] of files) {
      const path = join(tree, 'etc', name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text, { mode: 0o600 });
    }
    makeEmptyDisk(this.#disk, diskMiB);
    await runOk(['mkfs.ext4', '-q', '-F', '-d', tree, '-E', 'root_owner=0:0', this.#disk]);
  }
}

/** A shell's commands: starts a program as the daemon, whose pid is in /run/daemon.pid then. */
function startInBackground(command: string): string {
  // The shell around it waits for its end, so that nothing is left of one that was killed.
  return `${ENVIRONMENT}
    rm -f /run/daemon.pid
    (sh -c 'echo $$ >/run/daemon.pid; exec ${command} >>${LOG} 2>&1 </dev/null'; true) &
    until [ -s /run/daemon.pid ]; do usleep ${LOOK_US}; done`;
}
