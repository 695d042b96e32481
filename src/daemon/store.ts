/**
 * Records on stable storage: a folder of JSON files, one per record. A record is there completely or not at all, whatever ends the daemon, and
 * what `put` resolved for survives a power cut: the temporary is written and synced, renamed over the old one, and the folder synced.
 */
import { join } from 'node:path';
import type { z } from 'zod';
import { NetbusError } from '../device/errors.ts';
import { type RecordFiles, systemFiles } from './record-files.ts';
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
    const records = new Map<string, Value>();
    const damaged: DamagedRecord[] = [];
    for (const file of (await this.#files.list(this.folder)).sort()) {
      if (file.startsWith(TEMPORARY_PREFIX)) await this.#files.remove(join(this.folder, file));
      if (file.startsWith('.') || !file.endsWith(EXTENSION)) continue;
      const key = file.slice(0, -EXTENSION.length);
      const read = await this.#read(file);
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
        await this.#files.remove(join(this.folder, key + EXTENSION)).catch(ignoreMissing);
        await this.#files.syncFolder(this.folder);
      });
    });
  }

  async #read(file: string): Promise<{ value: Value } | { reason: string }> {
    try {
      const text = await this.#files.read(join(this.folder, file));
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
    const temporary = join(this.folder, `${TEMPORARY_PREFIX}${key}`);
    await this.#guard(key, async () => {
      try {
        await this.#files.write(temporary, `${JSON.stringify(value, null, 2)}\n`, 0o600);
      } catch (thrown) {
        // Half a record takes room that a full filesystem does not have.
        await this.#files.remove(temporary).catch(() => {});
        throw thrown;
      }
      await this.#files.rename(temporary, join(this.folder, key + EXTENSION));
      await this.#files.syncFolder(this.folder);
    });
  }

  async #guard(key: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      const path = join(this.folder, key + EXTENSION);
      throw new NetbusError('device', `the record ${path} cannot be stored${reasonOf(thrown, this.folder)}`, { cause: thrown });
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
