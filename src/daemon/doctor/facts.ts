/** What the checks know of the host: they see it through this alone, so that each is tested without a machine. Nothing here changes the host. */
import type { MemberProbe, Status } from '../../api/types.ts';
import type { Identity, IdentityFiles } from '../../directory/identity.ts';
import type { Address } from '../../lib/address.ts';

export interface HostFacts {
  /** This program's version. */
  readonly release: string;
  readonly nodeVersion: string;
  /** As `uname -r` says it. */
  readonly kernel: string;
  /** As Node names it: x64, arm64 … */
  readonly architecture: string;
  /** Who runs this program. */
  readonly user: { readonly uid: number; readonly groups: readonly number[] };
  /** IP addresses of this host. */
  readonly addresses: readonly string[];
  /** Milliseconds since 1970. */
  wallTime(): number;
  /** UTF-8 text of a file, of 4 MiB at most. All that concern files reject with the system's error, which has a `code`. */
  readText(path: string): Promise<string>;
  /** Names in a folder. */
  list(folder: string): Promise<string[]>;
  /** Symbolic links are followed. */
  stat(path: string): Promise<FileFacts>;
  readLink(path: string): Promise<string>;
  /** The filesystem that a path is on. */
  space(path: string): Promise<SpaceFacts>;
  /** Writes a block to a file without a name in `folder`, to stable storage, and lets it go. */
  tryWrite(folder: string): Promise<void>;
  /** Runs a program to its end; undefined where it is not installed, or takes too long. */
  run(argv: readonly string[]): Promise<{ status: number; output: string } | undefined>;
  /** Loads the addon. Rejects with what is in the way. */
  loadAddon(): Promise<void>;
  /** Makes an io_uring and gives it back. Rejects with the system's error. */
  openIoUring(): Promise<void>;
  /** The daemon's answers over the control socket. Reject with a NetbusError. */
  status(socket: string): Promise<Status>;
  probe(socket: string): Promise<MemberProbe[]>;
  /** Reads and checks an identity as the daemon does. Rejects with a NetbusError. */
  loadIdentity(files: IdentityFiles): Promise<Identity>;
  /** Asks other hosts from this process; only where no daemon runs, whose links it would end. */
  probeDirectly(identity: Identity, targets: ReadonlyMap<string, Address>): Promise<MemberProbe[]>;
}

export interface FileFacts {
  readonly type: 'file' | 'folder' | 'socket' | 'other';
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly dev: number;
  readonly ino: number;
}

export interface SpaceFacts {
  readonly freeBytes: number;
  readonly totalBytes: number;
  readonly freeInodes: number;
  /** 0 where the filesystem makes them as it needs them. */
  readonly totalInodes: number;
}

/** The system's error code of what was thrown: ENOENT, EACCES … */
export function errorCode(thrown: unknown): string {
  return (thrown as NodeJS.ErrnoException | undefined)?.code ?? '';
}

export function errorText(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
