/** The embedded directory: the signed member list, kept in the state folder. */
import { mkdir, open, readdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { NetbusError } from '../device/errors.ts';
import { parseAddress } from '../lib/address.ts';
import type { Clock } from '../lib/clock.ts';
import { admissionOf } from './admission.ts';
import type { CertificateFacts, Directory, DirectoryChange, Member } from './directory.ts';
import { syncFolder, writeDurably } from './durable-file.ts';
import type { MemberEntry } from './member-list.ts';
import { isSameList, MEMBER_LIST_BYTES_MAX, type SignedList, verifyMemberList } from './member-list-signature.ts';

/** The serial of the newest list that this host had, for the day when both copies are damaged: an older list is then still refused. */
export const SERIAL_FILE = 'members.serial';
/**
 * The list is stored twice. A file that a failing disk damages must not make this host forget the others' addresses, without which it could ask nobody for the
 * list; and an older list in reserve would let those in who were evicted since.
 */
export const LIST_FILE = 'members.list';
export const COPY_FILE = 'members.copy';
const FOLDER_MODE = 0o700;
/** It is no secret: every member has it. */
export const LIST_MODE = 0o644;

/** A file that could not be used; it was set aside under `keptAs`. */
export interface DamagedList {
  readonly file: string;
  readonly keptAs: string;
  readonly reason: string;
}

export interface SignedDirectoryOptions {
  /** `directory` in the state folder; made where it is missing. */
  readonly folder: string;
  readonly cluster: string;
  /** The root's certificate, PEM. */
  readonly ca: string;
  readonly clock: Clock;
}

export class SignedDirectory implements Directory {
  readonly signed = true;
  /** What `open` has set aside, for the log. With both copies damaged there is no list until `accept` gets one. */
  readonly damaged: readonly DamagedList[];
  readonly #options: SignedDirectoryOptions;
  /** There was a list here, and both copies of it are gone. */
  readonly lost: boolean;
  /** While there is no list: the serial of the newest that was here; undefined where that is not known either. */
  readonly #serialMin: number | undefined;
  readonly #listeners = new Set<(change: DirectoryChange) => void>();
  #list: SignedList | undefined;
  #entries: ReadonlyMap<string, MemberEntry> = new Map();
  #members: ReadonlyMap<string, Member> = new Map();
  /** Lists are taken one after the other, each compared with the one before. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    options: SignedDirectoryOptions,
    found: { list: SignedList | undefined; damaged: readonly DamagedList[]; lost: boolean; serialMin: number | undefined },
  ) {
    const { list, damaged, lost, serialMin } = found;
    this.#options = options;
    this.damaged = damaged;
    this.lost = lost;
    this.#serialMin = serialMin;
    if (list !== undefined) this.#use(list);
  }

  /** Reads the list that is stored. A file that cannot be used is set aside and made again from its copy. Throws `device` where the folder cannot be used. */
  static async open(options: SignedDirectoryOptions): Promise<SignedDirectory> {
    const { folder } = options;
    try {
      await mkdir(folder, { recursive: true, mode: FOLDER_MODE });
      const damaged: DamagedList[] = [];
      const found: SignedList[] = [];
      for (const name of [LIST_FILE, COPY_FILE]) {
        const read = await readList(join(folder, name), options);
        if (read === undefined) continue;
        if ('list' in read) found.push(read);
        else damaged.push(await setAside(join(folder, name), read.reason, options.clock));
      }
      const [list] = found.sort((a, b) => b.list.serial - a.list.serial);
      if (list !== undefined && (found.length < 2 || !isSameList(found[0], found[1]))) await store(folder, list);
      const serialMin = await readSerial(folder);
      // For the sake of another day: a full disk must not stop this one.
      // A list that is older than that came from a backup: the serial stays, for the doctor to tell.
      if (list !== undefined && list.list.serial > (serialMin ?? 0)) await writeSerial(folder, list).catch(() => {});
      const lost = list === undefined && (serialMin !== undefined || (await readdir(folder)).some(isSetAside));
      return new SignedDirectory(options, { list, damaged, lost, serialMin });
    } catch (thrown) {
      throw unusable(folder, thrown);
    }
  }

  members(): ReadonlyMap<string, Member> {
    return this.#members;
  }

  list(): SignedList | undefined {
    return this.#list;
  }

  get trusted(): string {
    return this.#serialMin === undefined ? 'the issuing host' : `any host with serial ${this.#serialMin} or later`;
  }

  accept(bytes: Uint8Array, from?: string): Promise<'newer' | 'known'> {
    const result = this.#turn.then(() => this.#accept(bytes, from));
    this.#turn = result.catch(() => {});
    return result;
  }

  onChange(listener: (change: DirectoryChange) => void): () => void {
    // One function may be given twice; each time is one of its own.
    const own = (change: DirectoryChange) => listener(change);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  admits(host: string, certificate: CertificateFacts): string | undefined {
    const entry = this.#entries.get(host);
    if (this.#list === undefined) {
      return `host ${host} is not in the member list here, because that was damaged: another host has to bring it first`;
    }
    if (entry === undefined)
      return `host ${host} is not in the member list of cluster ${this.#options.cluster}: it has to join`;
    if (entry.state === 'evicted') {
      return `host ${host} was evicted on ${entry.since.slice(0, 10)}: it may join again with a new token`;
    }
    if (admissionOf(certificate.serialNumber) === entry.admission) return undefined;
    return `the certificate is not of the present membership of host ${host}, which began on ${entry.since.slice(0, 10)}`;
  }

  async #accept(bytes: Uint8Array, from: string | undefined): Promise<'newer' | 'known'> {
    const { ca, cluster, clock, folder } = this.#options;
    const list = verifyMemberList(bytes, ca, cluster, clock.wallTime());
    if (this.#list === undefined) this.#checkFirst(list, from);
    else {
      const { serial } = list.list;
      const known = this.#list.list.serial;
      if (serial < known) throw refused(`it is older than the one that is known: serial ${serial} < ${known}`);
      if (serial === known && !isSameList(list, this.#list)) {
        throw refused(`it contradicts the one that is known: both have serial ${serial}, and they differ`);
      }
      if (serial === known) return 'known';
    }
    await store(folder, list).catch((thrown) => {
      throw unusable(folder, thrown);
    });
    const change = this.#use(list);
    for (const listener of [...this.#listeners]) listener(change);
    return 'newer';
  }

  /** Any list is the newest to a host that has none: an evicted host could bring the one that it was still in. */
  #checkFirst({ list }: SignedList, from: string | undefined): void {
    const serialMin = this.#serialMin;
    if (serialMin !== undefined && list.serial < serialMin) {
      throw refused(`it is older than the one that was here: serial ${list.serial} < ${serialMin}`);
    }
    // The issuing host has the newest by definition, and cannot be evicted.
    if (serialMin === undefined && this.lost && from !== undefined && from !== list.issuer) {
      throw refused(
        `which one is the newest is not known here any more: host ${list.issuer} alone, which issues it, may bring it`,
      );
    }
  }

  #use(list: SignedList): DirectoryChange {
    const before = this.#entries;
    const present = list.list.members.filter(({ state }) => state === 'member');
    this.#list = list;
    this.#entries = new Map(list.list.members.map((entry) => [entry.host, entry]));
    this.#members = new Map(present.map((entry) => [entry.host, memberOf(entry)]));
    return difference(before, this.#entries);
  }
}

function memberOf({ host, address, since }: MemberEntry): Member {
  // The list was checked: it is an address.
  return { host, address: parseAddress(address)!, since: Date.parse(since) };
}

function difference(before: ReadonlyMap<string, MemberEntry>, after: ReadonlyMap<string, MemberEntry>): DirectoryChange {
  const isIn = (entry: MemberEntry | undefined, other: MemberEntry | undefined) =>
    entry?.state === 'member' && (other?.state !== 'member' || other.admission !== entry.admission);
  const all = [...after.values()];
  return {
    joined: all.filter((entry) => isIn(entry, before.get(entry.host))).map(({ host }) => host),
    left: [...before.values()].filter((entry) => isIn(entry, after.get(entry.host))).map(({ host }) => host),
    moved: all
      .filter((entry) => {
        const earlier = before.get(entry.host);
        return earlier !== undefined && !isIn(entry, earlier) && entry.state === 'member' && earlier.address !== entry.address;
      })
      .map(({ host }) => host),
  };
}

/** The copy comes second: whichever file a crash leaves old, the other one is whole. */
async function store(folder: string, list: SignedList): Promise<void> {
  await writeDurably(join(folder, LIST_FILE), list.bytes, LIST_MODE);
  await writeDurably(join(folder, COPY_FILE), list.bytes, LIST_MODE);
  await writeSerial(folder, list);
}

async function writeSerial(folder: string, { list }: SignedList): Promise<void> {
  await writeDurably(join(folder, SERIAL_FILE), `${list.serial}\n`, LIST_MODE);
}

/** Undefined where there is none that makes sense. */
async function readSerial(folder: string): Promise<number | undefined> {
  return parseSerial(await readFile(join(folder, SERIAL_FILE), 'utf8').catch(() => ''));
}

/** What is in such a file; undefined where that is no serial. */
export function parseSerial(text: string): number | undefined {
  return /^[1-9]\d{0,15}\n$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined;
}

/** By `setAside`, now or earlier. */
function isSetAside(name: string): boolean {
  return [LIST_FILE, COPY_FILE].some((file) => name.startsWith(`${file}.damaged-`));
}

/** Undefined where there is no such file. Dates are not checked: a host whose clock is not set yet must not lose its list. */
async function readList(
  path: string,
  { ca, cluster }: SignedDirectoryOptions,
): Promise<SignedList | { reason: string } | undefined> {
  const bytes = await readBounded(path);
  if (bytes === undefined) return undefined;
  try {
    return verifyMemberList(bytes, ca, cluster, undefined);
  } catch (thrown) {
    return { reason: (thrown as Error).message };
  }
}

async function readBounded(path: string): Promise<Uint8Array | undefined> {
  const file = await open(path, 'r').catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'ENOENT') return undefined;
    throw thrown;
  });
  if (file === undefined) return undefined;
  try {
    // One byte more than a list may have, so that a longer one is told as such.
    const { bytesRead, buffer } = await file.read({ buffer: Buffer.alloc(MEMBER_LIST_BYTES_MAX + 1), position: 0 });
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function setAside(file: string, reason: string, clock: Clock): Promise<DamagedList> {
  const keptAs = `${file}.damaged-${new Date(clock.wallTime()).toISOString().replace(/[:.]/g, '-')}`;
  await rename(file, keptAs);
  await syncFolder(join(file, '..'));
  return { file, keptAs, reason };
}

function refused(reason: string): NetbusError {
  return new NetbusError('denied', `the member list is refused: ${reason}`);
}

function unusable(folder: string, thrown: unknown): NetbusError {
  if (thrown instanceof NetbusError) return thrown;
  return new NetbusError('device', `the member list in ${folder} cannot be read or stored: ${(thrown as Error).message}`, {
    cause: thrown,
  });
}
