/**
 * Records on stable storage: a folder of files, one per record. A record is there completely or not at all, whatever ends the daemon, and what `put` resolved
 * for survives a power cut. A record that is new, or longer than its file has room for, is written beside its place, synced, renamed over the old one,
 * and the folder synced; from then on a change is one write into that file (record-slots.ts), because a guest that moves waits for it.
 */
import { join } from 'node:path';
import type { z } from 'zod';
import { NetbusError } from '../device/errors.ts';
import { type RecordFiles, systemFiles } from './record-files.ts';
import { newSlots, nextSlot, readSlots, type Slots } from './record-slots.ts';
import { Turns } from './turns.ts';

const EXTENSION = '.json';
/** Names of records never begin with a dot, so a temporary cannot be taken for one. */
const TEMPORARY_PREFIX = '.tmp-';
export const RECORD_BYTES_MAX = 1024 * 1024;

/** A record that cannot be used; it was set aside under `keptAs`. */
export interface DamagedRecord {
  readonly file: string;
  readonly keptAs: string;
  readonly reason: string;
}

export interface LoadedRecords<Value> {
  readonly records: ReadonlyMap<string, Value>;
  readonly damaged: readonly DamagedRecord[];
}

export class RecordStore<Value> {
  readonly folder: string;
  readonly #schema: z.ZodType<Value>;
  readonly #files: RecordFiles;
  /** Per key, so that the last `put` of a key is what stays, and one slow key does not hold up the others. */
  readonly #turns = new Map<string, { turns: Turns; waiting: number }>();
  /** Of the records whose files have them. */
  readonly #slots = new Map<string, Slots>();

  constructor(folder: string, schema: z.ZodType<Value>, files: RecordFiles = systemFiles) {
    this.folder = folder;
    this.#schema = schema;
    this.#files = files;
  }

  /**
   * Makes the folder, removes the temporaries of interrupted writes, and reads all records. A record that cannot be used is set aside, never deleted; the
   * rest goes on. `now` (milliseconds since 1970) becomes part of the name that it is kept under.
   */
  async load(now: number): Promise<LoadedRecords<Value>> {
    await this.#files.makeFolder(this.folder, 0o700);
    // A daemon that was killed may have renamed a file whose name is not on stable storage: what is written into it from now on must not go with that.
    await this.#files.syncFolder(this.folder);
    const records = new Map<string, Value>();
    const damaged: DamagedRecord[] = [];
    for (const file of (await this.#files.list(this.folder)).sort()) {
      if (file.startsWith(TEMPORARY_PREFIX)) await this.#files.remove(join(this.folder, file));
      if (file.startsWith('.') || !file.endsWith(EXTENSION)) continue;
      const key = file.slice(0, -EXTENSION.length);
      const read = await this.#read(key, file);
      if ('value' in read) records.set(key, read.value);
      else damaged.push(await this.#setAside(file, read.reason, now));
    }
    return { records, damaged };
  }

  /** Durable once it resolves. Throws `device` where the state folder cannot be written; the old record is then still there. */
  put(key: string, value: Value): Promise<void> {
    return this.#inTurn(key, () => this.#write(key, value));
  }

  /** Durable once it resolves; a record that is not there is no error. */
  remove(key: string): Promise<void> {
    return this.#inTurn(key, async () => {
      await this.#guard(key, async () => {
        this.#slots.delete(key);
        await this.#files.remove(this.#path(key)).catch(ignoreMissing);
        await this.#files.syncFolder(this.folder);
      });
    });
  }

  async #read(key: string, file: string): Promise<{ value: Value } | { reason: string }> {
    try {
      const content = await this.#files.read(join(this.folder, file));
      const found = readSlots(content);
      if (found !== undefined) this.#slots.set(key, found.slots);
      const text = found?.text ?? content;
      if (text.length > RECORD_BYTES_MAX) return { reason: `longer than ${RECORD_BYTES_MAX} bytes` };
      const parsed: unknown = JSON.parse(text);
      const result = this.#schema.safeParse(parsed);
      if (result.success) return { value: result.data };
      const version = (parsed as { version?: unknown } | null)?.version;
      if (typeof version === 'number' && version !== 1)
        return { reason: `version ${version}, which this release does not know` };
      const issue = result.error.issues[0];
      return { reason: `${issue.path.map(String).join('.') || 'the record'}: ${issue.message}` };
    } catch (thrown) {
      return { reason: (thrown as Error).message };
    }
  }

  async #setAside(file: string, reason: string, now: number): Promise<DamagedRecord> {
    const stamp = new Date(now).toISOString().replace(/[:.]/g, '-');
    const keptAs = `${file}.damaged-${stamp}`;
    await this.#files.rename(join(this.folder, file), join(this.folder, keptAs));
    await this.#files.syncFolder(this.folder);
    return { file: join(this.folder, file), keptAs: join(this.folder, keptAs), reason };
  }

  async #write(key: string, value: Value): Promise<void> {
    const text = `${JSON.stringify(value, null, 2)}\n`;
    const slots = this.#slots.get(key);
    const next = slots && nextSlot(slots, text);
    await this.#guard(key, async () => {
      if (next === undefined || !(await this.#overwrite(key, next))) await this.#replace(key, text);
    });
  }

  /** Where it fails the present state stays, and the next write goes to the same place. False where the file is gone. */
  async #overwrite(key: string, { position, content, slots }: NonNullable<ReturnType<typeof nextSlot>>): Promise<boolean> {
    try {
      await this.#files.overwrite(this.#path(key), position, content);
      this.#slots.set(key, slots);
      return true;
    } catch (thrown) {
      ignoreMissing(thrown);
      return false;
    }
  }

  async #replace(key: string, text: string): Promise<void> {
    const temporary = join(this.folder, `${TEMPORARY_PREFIX}${key}`);
    const { content, slots } = newSlots(text);
    try {
      await this.#files.write(temporary, content, 0o600);
    } catch (thrown) {
      // Half a record takes room that a full filesystem does not have.
      await this.#files.remove(temporary).catch(() => {});
      throw thrown;
    }
    // Until the new file is there for sure, nothing is written into whichever is there.
    this.#slots.delete(key);
    await this.#files.rename(temporary, this.#path(key));
    await this.#files.syncFolder(this.folder);
    this.#slots.set(key, slots);
  }

  #path(key: string): string {
    return join(this.folder, key + EXTENSION);
  }

  async #guard(key: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      throw new NetbusError('device', `the record ${this.#path(key)} cannot be stored${reasonOf(thrown, this.folder)}`, {
        cause: thrown,
      });
    }
  }

  async #inTurn(key: string, work: () => Promise<void>): Promise<void> {
    const entry = this.#turns.get(key) ?? { turns: new Turns(), waiting: 0 };
    this.#turns.set(key, entry);
    entry.waiting++;
    try {
      await entry.turns.run(work);
    } finally {
      if (--entry.waiting === 0) this.#turns.delete(key);
    }
  }
}

function reasonOf(thrown: unknown, folder: string): string {
  const { code, message } = thrown as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return `, the filesystem is full: make room there (df ${folder}; df -i ${folder})`;
  return `: ${message}`;
}

function ignoreMissing(thrown: unknown): void {
  if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown;
}
