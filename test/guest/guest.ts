/**
 * A real guest for tests and the demo: Debian's kernel in QEMU, without hardware virtualisation (TCG), so that it runs
 * everywhere. The test drives it step by step through the agent; its console goes to a file.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/lib/clock.ts';
import { QmpConnection } from '../../src/vmm/qmp-connection.ts';
import type { Cleanup } from '../support/cleanup.ts';
import { type RunningProcess, startProcess } from '../support/process.ts';
import { waitForListener, withDeadline } from '../support/wait.ts';
import { AgentClient, type CommandResult } from './agent.ts';
import { guestImage } from './image.ts';

/** Bounds of the harness's waits, in milliseconds. Generous: they end a test that hangs and say nothing about speed. */
const QEMU_START_MS_MAX = 30_000;
const BOOT_MS_MAX = 120_000;
const COMMAND_MS_DEFAULT = 120_000;
const POWER_OFF_MS_MAX = 60_000;

/** A unix socket's path, without the zero at its end, in bytes. */
const SOCKET_PATH_BYTES_MAX = 107;

/** A fixed model, so that a guest can move between machines; with rdrand, or the kernel's first random numbers take 4 s. */
const CPU = 'qemu64,+rdrand';

/** Lines of the console that an error shows. */
const CONSOLE_TAIL_LINES = 25;

export interface GuestOptions {
  /** Host name in the guest, and QEMU's -name. */
  name: string;
  cleanup: Cleanup;
  /** Default q35. */
  machine?: 'q35' | 'pc';
  /** Default 256; 384 with fio. */
  memoryMiB?: number;
  /** A file that is its memory, for two QEMUs that have it one after the other; otherwise its memory is QEMU's own. */
  memoryFile?: string;
  /** Default 1. */
  cpus?: number;
  /** More arguments for QEMU: disks (see disks.ts, or what `netbus attach` prints), network cards. */
  arguments?: readonly string[];
  /** Where QEMU runs; the harness's own namespaces by default. */
  host?: { command(argv: readonly string[]): string[] };
  /** Whether fio is in the image (83 MB more to boot). */
  fio?: boolean;
  /** `disk`: the firmware boots what is on its first disk, and no agent answers. Default `kernel`. */
  boot?: 'kernel' | 'disk';
  /** A disk of the guest, such as /dev/vda, that becomes its root filesystem (see root-disk.ts). */
  root?: string;
  /** More words for the kernel's command line. */
  append?: string;
  /** Waits for a migration instead of booting (-incoming defer); the agent answers once the guest has arrived. */
  incoming?: boolean;
  /** Lets `reset` work; without it a reboot ends QEMU, so that a kernel panic is seen at once. */
  resettable?: boolean;
  /** Told at once, before the guest has booted. */
  started?: (qemu: RunningProcess) => void;
}

/** Starts QEMU and waits until the guest's agent answers (or, with `incoming`, until QEMU takes commands). */
export async function startGuest(options: GuestOptions): Promise<Guest> {
  const folder = mkdtempSync(join(tmpdir(), 'nb-guest-'));
  // Removed last: actions run in the reverse order, so QEMU has ended by then.
  options.cleanup.add(`the folder ${folder}`, () => rmSync(folder, { recursive: true, force: true }));
  const sockets = { qmp: join(folder, 'qmp'), agent: join(folder, 'agent') };
  for (const path of Object.values(sockets)) {
    if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX)
      throw new Error(`the socket path ${path} is too long: set TMPDIR to a shorter folder`);
  }
  const started = performance.now();
  const argv = qemuArguments(options, folder, sockets);
  const qemu = startProcess(options.host?.command(argv) ?? argv, options.cleanup);
  options.started?.(qemu);
  const guest = new Guest(options.name, qemu, join(folder, 'console.log'));
  try {
    await waitForListener(sockets.agent, qemu.pid, QEMU_START_MS_MAX);
    await guest.connect(sockets.qmp, sockets.agent);
    if (options.incoming !== true && options.boot !== 'disk') await guest.waitUntilReady();
  } catch (error) {
    qemu.signal('SIGKILL');
    await qemu.exited;
    throw new Error(
      `guest ${options.name} did not start: ${String(error)}${qemu.stderr === '' ? '' : `\nQEMU: ${qemu.stderr}`}`,
    );
  }
  guest.bootMs = performance.now() - started;
  return guest;
}

export class Guest {
  readonly name: string;
  /** The QEMU process. */
  readonly qemu: RunningProcess;
  /** File with all that the guest wrote to its console. */
  readonly consolePath: string;
  /** From QEMU's start to the agent's first answer, in milliseconds. */
  bootMs = 0;
  #qmp: QmpConnection | undefined;
  #agent: AgentClient | undefined;

  constructor(name: string, qemu: RunningProcess, consolePath: string) {
    this.name = name;
    this.qemu = qemu;
    this.consolePath = consolePath;
  }

  get qmp(): QmpConnection {
    if (this.#qmp === undefined) throw new Error(`guest ${this.name} is not connected`);
    return this.#qmp;
  }

  /** Connects to QEMU's monitor and to the agent's port. */
  async connect(qmpPath: string, agentPath: string): Promise<void> {
    this.#agent = await AgentClient.connect(agentPath);
    this.#qmp = await QmpConnection.open({ path: qmpPath, clock: systemClock, greetingMs: QEMU_START_MS_MAX });
  }

  /** Waits until the agent answers. */
  async waitUntilReady(timeoutMs = BOOT_MS_MAX): Promise<void> {
    await this.run('true', { timeoutMs });
  }

  /**
   * Runs shell commands in the guest; any status is a result. Several may run at a time. Rejects, with the end of the
   * console, where the guest ends first or the time is over (the commands then still run).
   */
  async run(commands: string, { timeoutMs = COMMAND_MS_DEFAULT }: { timeoutMs?: number } = {}): Promise<CommandResult> {
    if (this.#agent === undefined) throw new Error(`guest ${this.name} is not connected`);
    try {
      return await withDeadline(`"${commands}" in guest ${this.name}`, timeoutMs, this.#agent.run(commands));
    } catch (error) {
      throw new Error(`guest ${this.name}: "${commands}": ${(error as Error).message}\n${this.consoleTail()}`);
    }
  }

  /** As `run`, and rejects unless the status is 0. Returns the output without the newline at its end. */
  async succeed(commands: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { status, output } = await this.run(commands, options);
    if (status !== 0)
      throw new Error(`guest ${this.name}: "${commands}" ended with ${status}: ${output}\n${this.consoleTail()}`);
    return output.trimEnd();
  }

  /** Powers off as an operating system does (filesystems unmounted) and waits for QEMU's end. */
  async powerOff(timeoutMs = POWER_OFF_MS_MAX): Promise<void> {
    // The answer is the guest's end.
    this.#agent?.run('/sbin/power-off').catch(() => {});
    await this.#ended('its power to go off', timeoutMs);
  }

  /** Ends QEMU by its monitor: the guest has gone to another one. */
  async quit(): Promise<void> {
    // The answer may be QEMU's end.
    await this.qmp.execute('quit').catch(() => {});
    await this.#ended('its end', POWER_OFF_MS_MAX);
  }

  /** Takes the power away at once: nothing is flushed or unmounted. */
  async kill(): Promise<void> {
    this.qemu.signal('SIGKILL');
    await this.#ended('its end', POWER_OFF_MS_MAX);
  }

  /** Presses the reset button (needs `resettable`) and waits until the agent answers again. */
  async reset(): Promise<void> {
    this.#agent?.restart();
    await this.qmp.execute('system_reset');
    await this.waitUntilReady();
  }

  /** The last lines of the console, with the escape sequences of the firmware taken out. */
  consoleTail(lines = CONSOLE_TAIL_LINES): string {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: terminal escape sequences start with one.
    const text = readFileSync(this.consolePath, 'utf8').replace(/\x1b[[c][?0-9;]*[A-Za-z]?|\r/g, '');
    return text.trimEnd().split('\n').slice(-lines).join('\n');
  }

  async #ended(what: string, timeoutMs: number): Promise<void> {
    await withDeadline(`guest ${this.name}: ${what}`, timeoutMs, this.qemu.exited).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${this.consoleTail()}`);
    });
    this.#qmp?.close();
    this.#agent?.close(new Error('the guest ended'));
  }
}

/** What QEMU is started with. A fixed machine without defaults, so that the guest's devices are exactly those given. */
function qemuArguments(options: GuestOptions, folder: string, sockets: { qmp: string; agent: string }): string[] {
  const memoryMiB = options.memoryMiB ?? (options.fio === true ? 512 : 256);
  const extra = options.arguments ?? [];
  const machine = options.machine ?? 'q35';
  // vhost-user backends map the guest's memory. `netbus attach` prints these arguments too; then its own are used.
  const bringsMemory = extra.some((argument) => argument.startsWith('memory-backend-'));
  const { memoryFile } = options;
  const backend = memoryFile === undefined ? 'memory-backend-memfd' : `memory-backend-file,mem-path=${memoryFile}`;
  const memory = `${backend},id=mem,size=${memoryMiB}M,share=on`;
  return [
    ...[
      'qemu-system-x86_64',
      '-name',
      options.name,
      '-accel',
      'tcg',
      '-cpu',
      CPU,
      '-m',
      `${memoryMiB}M`,
      '-smp',
      `${options.cpus ?? 1}`,
    ],
    ...(bringsMemory ? ['-machine', machine] : ['-object', memory, '-machine', `${machine},memory-backend=mem`]),
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...(options.resettable === true ? [] : ['-no-reboot']),
    ...(options.incoming === true ? ['-incoming', 'defer'] : []),
    ...(options.boot === 'disk' ? [] : kernelArguments(options)),
    ...['-chardev', `file,id=console,path=${join(folder, 'console.log')}`, '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=qmp,path=${sockets.qmp},server=on,wait=off`, '-mon', 'chardev=qmp,mode=control'],
    ...['-device', 'virtio-serial-pci', '-chardev', `socket,id=agent,path=${sockets.agent},server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=agent,name=netbus.agent'],
    ...extra,
  ];
}

function kernelArguments(options: GuestOptions): string[] {
  const image = guestImage();
  const initramfs = options.fio === true ? image.initramfsWithFio : image.initramfs;
  return ['-kernel', image.kernel, '-initrd', initramfs, '-append', kernelCommandLine(options)];
}

/** A panic ends the guest; self-tests, timer checks and mitigations, which cost a second or more under TCG, are off. */
function kernelCommandLine(options: GuestOptions): string {
  return [
    'console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests no_timer_check tsc=reliable random.trust_cpu=on',
    `netbus.name=${options.name}`,
    options.root === undefined ? '' : `netbus.root=${options.root}`,
    options.append ?? '',
  ]
    .filter((word) => word !== '')
    .join(' ');
}
