/** A host that is made up: what `netbus doctor` sees of it. All is well unless a test says otherwise. */
import type { MemberProbe, Status } from '../../src/api/types.ts';
import type { FileFacts, HostFacts, SpaceFacts } from '../../src/daemon/doctor/facts.ts';
import { NetbusError } from '../../src/device/errors.ts';
import type { Identity } from '../../src/directory/identity.ts';

const MIB = 1024 * 1024;

interface FakeFile {
  type: FileFacts['type'];
  mode: number;
  uid: number;
  gid: number;
  ino: number;
  dev: number;
  /** Of a file, its text; of a symbolic link in /proc, where it leads. */
  text: string;
  /** Reading or writing it fails so. */
  error?: string;
}

export const CONFIG = `cluster: lab
host: m1
listen: 10.0.0.1:7443
hosts:
  m1: { address: 10.0.0.1 }
  m2: { address: 10.0.0.2 }
`;

const STATUS: Status = {
  host: 'm1',
  cluster: 'lab',
  release: '1.0.0',
  pid: 42,
  startedAt: '2026-01-01T00:00:00Z',
  time: '2026-01-01T00:00:00Z',
  bootId: 'b',
  address: '10.0.0.1:7443',
  certificateExpiresAt: '2026-02-01T00:00:00Z',
  links: [],
  exports: [],
  attachments: [],
  sessions: [],
  jobs: [],
  waits: [],
  warnings: [],
};

const LIMITS = `Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 65536                files
Max locked memory         8388608              8388608              bytes
`;

export class FakeHost implements HostFacts {
  release = '1.0.0';
  nodeVersion = '20.19.0';
  kernel = '6.1.0-38-amd64';
  architecture = 'x64';
  user = { uid: 0, groups: [0] };
  addresses = ['127.0.0.1', '10.0.0.1'];
  now = Date.UTC(2026, 0, 1, 1);
  identity: Identity | NetbusError = {
    cluster: 'lab',
    host: 'm1',
    ca: '',
    certificate: '',
    key: '',
    serialNumber: '01',
    expiresAt: 0,
  };
  /** Undefined: no daemon listens. */
  daemon: Status | NetbusError | undefined = STATUS;
  members: MemberProbe[] | NetbusError = [
    { host: 'm2', address: '10.0.0.2:7443', reachable: true, release: '1.0.0', roundTripMs: 0.5, clockAheadMs: 1 },
  ];
  addonError: Error | undefined;
  ioUringError: NodeJS.ErrnoException | undefined;
  /** Output by program and arguments. */
  programs = new Map<string, { status: number; output: string }>([
    ['qemu-system-x86_64 --version', { status: 0, output: 'QEMU emulator version 7.2.22 (Debian)\n' }],
    ['qemu-system-x86_64 -machine none -device help', { status: 0, output: 'name "vhost-user-blk-pci", bus PCI\n' }],
    ['nft --stateless list ruleset', { status: 0, output: '' }],
  ]);
  /** How often the hosts were asked without the daemon. */
  asked = 0;
  readonly #files = new Map<string, FakeFile>();
  readonly #spaces = new Map<string, SpaceFacts>();

  constructor() {
    for (const folder of ['/var/lib/netbus', '/run/netbus', '/dev/shm', '/etc/netbus/pki']) this.folder(folder);
    this.folder('/var/lib/netbus', { mode: 0o700 });
    this.file('/etc/netbus/netbus.yaml', CONFIG);
    this.file('/etc/netbus/pki/ca.crt', '');
    this.file('/etc/netbus/pki/host.crt', '');
    this.file('/etc/netbus/pki/host.key', '', { mode: 0o600 });
    this.file('/run/netbus/netbus.sock', '', { type: 'socket', mode: 0o660, gid: 998 });
    this.file('/proc/42/limits', LIMITS);
    this.file('/proc/self/limits', LIMITS);
    this.folder('/proc/42');
    this.file('/etc/group', 'root:x:0:\nnetbus:x:998:alice\n');
    this.file('/etc/passwd', 'root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n');
  }

  /** As on a host where no daemon runs. */
  stopDaemon(): void {
    this.daemon = undefined;
    this.remove('/run/netbus/netbus.sock');
  }

  file(path: string, text: string, facts: Partial<FakeFile> = {}): void {
    this.#files.set(path, { type: 'file', mode: 0o644, uid: 0, gid: 0, ino: this.#files.size + 1, dev: 1, text, ...facts });
  }

  folder(path: string, facts: Partial<FakeFile> = {}): void {
    this.file(path, '', { type: 'folder', mode: 0o755, ...facts });
  }

  change(path: string, facts: Partial<FakeFile>): void {
    Object.assign(this.#get(path), facts);
  }

  remove(path: string): void {
    this.#files.delete(path);
  }

  setSpace(path: string, facts: Partial<SpaceFacts>): void {
    const plenty = { freeBytes: 1024 * MIB, totalBytes: 4096 * MIB, freeInodes: 1000, totalInodes: 2000 };
    this.#spaces.set(path, { ...plenty, ...facts });
  }

  wallTime(): number {
    return this.now;
  }

  async readText(path: string): Promise<string> {
    const { error, text } = this.#get(path);
    if (error !== undefined) throw systemError(error, path);
    return text;
  }

  async list(folder: string): Promise<string[]> {
    if (folder !== '/proc') this.#get(folder);
    const prefix = `${folder}/`;
    const below = [...this.#files.keys()].filter((path) => path.startsWith(prefix));
    return [...new Set(below.map((path) => path.slice(prefix.length).split('/')[0]))];
  }

  async stat(path: string): Promise<FileFacts> {
    const { error, ...file } = this.#get(path);
    if (error === 'EACCES') throw systemError(error, path);
    return file;
  }

  async readLink(path: string): Promise<string> {
    return this.#get(path).text;
  }

  async space(path: string): Promise<SpaceFacts> {
    if (!this.#spaces.has(path)) this.setSpace(path, {});
    return this.#spaces.get(path)!;
  }

  async tryWrite(folder: string): Promise<void> {
    const { error } = this.#get(folder);
    if (error !== undefined) throw systemError(error, folder);
  }

  async run(argv: readonly string[]): Promise<{ status: number; output: string } | undefined> {
    return this.programs.get(argv.join(' '));
  }

  async loadAddon(): Promise<void> {
    if (this.addonError !== undefined) throw this.addonError;
  }

  async openIoUring(): Promise<void> {
    if (this.ioUringError !== undefined) throw this.ioUringError;
  }

  async status(): Promise<Status> {
    if (this.daemon instanceof NetbusError) throw this.daemon;
    if (this.daemon !== undefined) return this.daemon;
    throw new NetbusError('unreachable', 'no daemon listens', { cause: systemError('ENOENT', '/run/netbus/netbus.sock') });
  }

  async probe(): Promise<MemberProbe[]> {
    if (this.members instanceof NetbusError) throw this.members;
    return this.members;
  }

  async loadIdentity(): Promise<Identity> {
    if (this.identity instanceof NetbusError) throw this.identity;
    return this.identity;
  }

  async probeDirectly(): Promise<MemberProbe[]> {
    this.asked++;
    return await this.probe();
  }

  #get(path: string): FakeFile {
    const file = this.#files.get(path);
    if (file === undefined) throw systemError('ENOENT', path);
    return file;
  }
}

export function systemError(code: string, path = ''): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
