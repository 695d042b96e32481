/**
 * The history in a file: a line of JSON per change, written behind the last one. An event that is counted once more is a line with the same id, and
 * the later one counts. When the file has grown long it is written anew with what is in memory. A stop at any byte leaves at most one
 * line that cannot be read, and the reader leaves that out.
 */
import { open, rename, rm } from 'node:fs/promises';
import { type EventEntry, eventEntrySchema } from '../api/events.ts';
import { within } from '../lib/abort.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { boundEvent } from './event-text.ts';
import { Turns } from './turns.ts';

/** Longer, and it is written anew; while that is done both are there. */
export const EVENT_FILE_BYTES_MAX = 4 * 1024 * 1024;
/** Counting again is not urgent, and may happen often. */
const COUNT_WRITE_MS = 1_000;
const RETRY_MS = 30_000;
/** A disk that hangs must not keep the daemon from ending. */
const CLOSE_MS_MAX = 1_000;
const FILE_MODE = 0o600;

export interface EventFileOptions {
  readonly path: string;
  /** All that the file should have, in order. */
  readonly all: () => Iterable<EventEntry>;
  readonly clock: Clock;
  readonly log: Log;
}

export class EventFile {
  readonly #options: EventFileOptions;
  readonly #turns = new Turns();
  /** What the file does not have yet, by id: never more than the history has. */
  readonly #unwritten = new Map<number, EventEntry>();
  #bytes = 0;
  /** The last line may be a part of one. */
  #torn = false;
  #state: 'idle' | 'waiting' | 'writing' | 'closed' = 'idle';
  #cancelWait: () => void = () => {};
  #failure: string | undefined;

  constructor(options: EventFileOptions) {
    this.#options = options;
  }

  /** Why the last write failed; undefined = it did not. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** How many changes the file does not have yet. */
  get unwritten(): number {
    return this.#unwritten.size;
  }

  /** The events of the file, each once, in the order of their sequence. Never rejects: what cannot be read is not there. */
  async load(): Promise<EventEntry[]> {
    const { path, log } = this.#options;
    let text: string;
    try {
      await rm(temporary(path), { force: true });
      text = await this.#readEnd();
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') {
        log.warn({ file: path, reason: (thrown as Error).message }, 'the events of before cannot be read');
      }
      return [];
    }
    this.#torn = !text.endsWith('\n') && text !== '';
    const byId = new Map<number, EventEntry>();
    let unreadable = 0;
    for (const line of text.split('\n')) {
      if (line === '') continue;
      const entry = parseLine(line);
      if (entry === undefined) unreadable++;
      else if ((byId.get(entry.id)?.sequence ?? 0) < entry.sequence) byId.set(entry.id, entry);
    }
    if (unreadable > 0)
      log.warn({ file: path, lines: unreadable }, 'lines of the events of before cannot be read and are left out');
    return [...byId.values()].sort((a, b) => a.sequence - b.sequence);
  }

  /** To be written; `later` where that is not urgent. */
  changed(entry: EventEntry, later: boolean): void {
    if (this.#state === 'closed') return;
    this.#unwritten.set(entry.id, entry);
    if (this.#state === 'writing') return;
    // A file that could not be written is not tried again with every event.
    if (this.#failure !== undefined) {
      this.#wait(RETRY_MS);
    } else if (later) {
      this.#wait(COUNT_WRITE_MS);
    } else {
      this.#cancelWait();
      this.#start();
    }
  }

  /** The history has it no more. */
  forgotten(entry: EventEntry): void {
    this.#unwritten.delete(entry.id);
  }

  /** Writes what is not written yet, if that does not take too long. */
  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    this.#cancelWait();
    this.#state = 'closed';
    const { signal, cancel } = abortAfter(this.#options.clock, CLOSE_MS_MAX);
    await within(
      signal,
      this.#turns.run(() => this.#writeUnwritten()).then(() => undefined),
    );
    cancel();
  }

  #wait(delayMs: number): void {
    if (this.#state !== 'idle') return;
    this.#state = 'waiting';
    this.#cancelWait = this.#options.clock.after(delayMs, () => this.#start());
  }

  #start(): void {
    this.#state = 'writing';
    // What has happened goes on first: a guest may wait for it.
    setImmediate(() => void this.#turns.run(() => this.#write()));
  }

  async #write(): Promise<void> {
    const done = await this.#writeUnwritten();
    if (this.#state === 'closed') return;
    this.#state = 'idle';
    if (this.#unwritten.size === 0) return;
    if (done) this.#start();
    else this.#wait(RETRY_MS);
  }

  /** False where it failed: what is not written stays to be written. */
  async #writeUnwritten(): Promise<boolean> {
    if (this.#unwritten.size === 0) return true;
    const entries = [...this.#unwritten.values()].sort((a, b) => a.sequence - b.sequence);
    const { path, log } = this.#options;
    try {
      const text = lines(entries);
      if (this.#bytes + text.length > EVENT_FILE_BYTES_MAX) await this.#writeAnew();
      else await this.#append(text);
      for (const entry of entries) {
        if (this.#unwritten.get(entry.id) === entry) this.#unwritten.delete(entry.id);
      }
      if (this.#failure !== undefined) log.info({ file: path }, 'events are stored again');
      this.#failure = undefined;
      return true;
    } catch (thrown) {
      const { message } = thrown as Error;
      if (this.#failure === undefined) {
        log.warn({ file: path, reason: message }, 'events cannot be stored: a restart of the daemon would forget them');
      }
      this.#failure = message;
      return false;
    }
  }

  async #append(text: Buffer): Promise<void> {
    const file = await open(this.#options.path, 'a', FILE_MODE);
    try {
      // What is left of a line that was cut ends here.
      const bytes = this.#torn ? Buffer.concat([Buffer.from('\n'), text]) : text;
      this.#torn = true;
      await file.writeFile(bytes);
      this.#torn = false;
      this.#bytes = (await file.stat()).size;
    } finally {
      await file.close();
    }
  }

  async #writeAnew(): Promise<void> {
    const { path, all } = this.#options;
    const text = lines(all());
    try {
      const file = await open(temporary(path), 'w', FILE_MODE);
      try {
        await file.writeFile(text);
        // Else a power cut could leave the new name with nothing in it.
        await file.datasync();
      } finally {
        await file.close();
      }
      await rename(temporary(path), path);
    } catch (thrown) {
      await rm(temporary(path), { force: true }).catch(() => undefined);
      throw thrown;
    }
    this.#bytes = text.length;
    this.#torn = false;
  }

  /** The last EVENT_FILE_BYTES_MAX bytes; a line that begins before them is left out. */
  async #readEnd(): Promise<string> {
    const file = await open(this.#options.path, 'r');
    try {
      const stat = await file.stat();
      if (!stat.isFile()) throw new Error('it is no file');
      this.#bytes = stat.size;
      const from = Math.max(0, stat.size - EVENT_FILE_BYTES_MAX);
      const buffer = Buffer.alloc(stat.size - from);
      const { bytesRead } = await file.read(buffer, 0, buffer.length, from);
      const text = buffer.toString('utf8', 0, bytesRead);
      return from === 0 ? text : text.slice(text.indexOf('\n') + 1);
    } finally {
      await file.close();
    }
  }
}

function parseLine(line: string): EventEntry | undefined {
  try {
    const result = eventEntrySchema.safeParse(JSON.parse(line));
    return result.success ? boundEvent(result.data) : undefined;
  } catch {
    return undefined;
  }
}

function lines(entries: Iterable<EventEntry>): Buffer {
  return Buffer.from([...entries].map((entry) => `${JSON.stringify(entry)}\n`).join(''));
}

function temporary(path: string): string {
  return `${path}.new`;
}
