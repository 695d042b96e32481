/** This machine, as the checks see it. */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { type FileHandle, open, readdir, readlink, stat, statfs, unlink } from 'node:fs/promises';
import { release as kernelRelease, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import packageJson from '../../../package.json' with { type: 'json' };
import { ControlClient } from '../../api/client.ts';
import type { MemberProbe, Status } from '../../api/types.ts';
import { Endpoint } from '../../bus/endpoint.ts';
import { Links } from '../../bus/links.ts';
import { type Identity, type IdentityFiles, loadIdentity } from '../../directory/identity.ts';
import type { Address } from '../../lib/address.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { probeMembers } from '../probe.ts';
import { errorCode, type FileFacts, type HostFacts, type SpaceFacts } from './facts.ts';

const TEXT_BYTES_MAX = 4 * 1024 * 1024;
const PROGRAM_MS_MAX = 5_000;
const PROGRAM_OUTPUT_BYTES_MAX = 4 * 1024 * 1024;
/** The daemon asks all members within this. */
const DAEMON_MS_MAX = 15_000;
/** Of a block that is written for trial. */
const TRIAL_BYTES = 4096;
/** O_TMPFILE is __O_TMPFILE, which differs from machine to machine but not on those that Node runs on, with O_DIRECTORY. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
/** What a filesystem answers that has no such files. */
const WITHOUT_TMPFILE = ['ENOTSUP', 'EOPNOTSUPP', 'EISDIR'];

export class Machine implements HostFacts {
  readonly release = packageJson.version;
  readonly nodeVersion = process.versions.node;
  readonly kernel = kernelRelease();
  readonly architecture = process.arch;
  readonly user = { uid: process.geteuid!(), groups: process.getgroups!() };
  readonly addresses = Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address));

  wallTime(): number {
    return Date.now();
  }

  async readText(path: string): Promise<string> {
    const file = await open(path, 'r');
    try {
      const parts: Buffer[] = [];
      let bytes = 0;
      for await (const part of file.createReadStream({ autoClose: false })) {
        bytes += (part as Buffer).length;
        if (bytes > TEXT_BYTES_MAX) throw new Error(`${path} has more than ${TEXT_BYTES_MAX} bytes`);
        parts.push(part as Buffer);
      }
      return Buffer.concat(parts).toString('utf8');
    } finally {
      await file.close();
    }
  }

  list(folder: string): Promise<string[]> {
    return readdir(folder);
  }

  async stat(path: string): Promise<FileFacts> {
    const facts = await stat(path);
    const type = facts.isFile() ? 'file' : facts.isDirectory() ? 'folder' : facts.isSocket() ? 'socket' : 'other';
    const { uid, gid, dev, ino } = facts;
    return { type, mode: facts.mode & 0o7777, uid, gid, dev, ino };
  }

  readLink(path: string): Promise<string> {
    return readlink(path);
  }

  async space(path: string): Promise<SpaceFacts> {
    const { bsize, blocks, bavail, files, ffree } = await statfs(path);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize, freeInodes: ffree, totalInodes: files };
  }

  async tryWrite(folder: string): Promise<void> {
    const { file, remove } = await openTrial(folder);
    try {
      await file.write(Buffer.alloc(TRIAL_BYTES));
      await file.sync();
    } finally {
      await file.close();
      await remove();
    }
  }

  run([program, ...argv]: readonly string[]): Promise<{ status: number; output: string } | undefined> {
    const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` };
    return new Promise((resolve) => {
      const options = { env, timeout: PROGRAM_MS_MAX, maxBuffer: PROGRAM_OUTPUT_BYTES_MAX, killSignal: 'SIGKILL' as const };
      execFile(program, argv, options, (error, stdout) => {
        // A number is an exit status, a text the system's error, and neither is a signal.
        if (error === null) resolve({ status: 0, output: stdout });
        else resolve(typeof error.code === 'number' ? { status: error.code, output: stdout } : undefined);
      });
    });
  }

  async loadAddon(): Promise<void> {
    await import('../../../native/index.ts');
  }

  async openIoUring(): Promise<void> {
    const { native } = await import('../../../native/index.ts');
    native.ioDestroy(native.ioCreate({ entries: 1, engine: 'io_uring' }, () => {}));
  }

  status(socketPath: string): Promise<Status> {
    return new ControlClient({ socketPath, timeoutMs: DAEMON_MS_MAX }).status();
  }

  async probe(socketPath: string): Promise<MemberProbe[]> {
    return (await new ControlClient({ socketPath, timeoutMs: DAEMON_MS_MAX }).probe()).members;
  }

  loadIdentity(files: IdentityFiles): Promise<Identity> {
    return loadIdentity(files, systemClock);
  }

  async probeDirectly(identity: Identity, targets: ReadonlyMap<string, Address>): Promise<MemberProbe[]> {
    const endpoint = new Endpoint({
      identity,
      bootId: 'doctor',
      release: this.release,
      clock: systemClock,
      log: silentLog,
      admits: (host) => (targets.has(host) ? undefined : `host ${host} is not a member`),
    });
    const targetOf = (host: string) => {
      const address = targets.get(host);
      return address && { host, address: address.host, port: address.port };
    };
    const links = new Links({ endpoint, handlers: {}, targetOf });
    // Clock callbacks alone do not keep the process alive.
    const alive = setInterval(() => {}, 1_000);
    try {
      return await probeMembers(links, targets, systemClock);
    } finally {
      clearInterval(alive);
      links.close();
      endpoint.close();
    }
  }
}

/** A new file without a name, so that nothing is left, whatever happens; with one for a moment where the filesystem (an overlay, NFS) needs it. */
async function openTrial(folder: string): Promise<{ file: FileHandle; remove: () => Promise<void> }> {
  try {
    return { file: await open(folder, constants.O_WRONLY | O_TMPFILE, 0o600), remove: async () => {} };
  } catch (thrown) {
    if (!WITHOUT_TMPFILE.includes(errorCode(thrown))) throw thrown;
    const path = join(folder, `.doctor-${process.pid}`);
    return { file: await open(path, 'wx', 0o600), remove: () => unlink(path) };
  }
}
