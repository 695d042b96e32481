/**
 * What happened on this host, in a history of bounded size: in memory, and in a file of the state folder, so that it outlives the daemon. Recording
 * never fails and never waits; a file that cannot be written costs the memory of what happened before a restart, and nothing else.
 */
import { type EventEntry, type EventType, eventTypes, type Severity } from '../api/events.ts';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { EventFile } from './event-file.ts';
import { boundEvent } from './event-text.ts';

export const EVENTS_MAX = 1000;
/** Of one type and subject, this many within FOLD_MS of each other stand for themselves; more are counted in the last of them. */
export const EVENTS_APART_MAX = 3;
export const FOLD_MS = 10 * 60_000;
export const WATCHERS_MAX = 32;

export type EventDetails = Readonly<Record<string, string | number | boolean>>;

/** What somebody who saw it says of it. */
export interface NewEvent {
  readonly type: EventType;
  /** The host, the export, or `vm/name`: the type says which of them (src/api/events.ts). */
  readonly subject: string;
  /** One line for people: what happened, and what it means for whom. */
  readonly message: string;
  /** For programs. Of an export that several use, `user` tells apart what would be counted together. */
  readonly details?: EventDetails;
  /** The type's own by default. */
  readonly severity?: Severity;
}

/** What the parts of the daemon are given. */
export interface EventRecorder {
  /** Never throws, never waits. */
  record(event: NewEvent): void;
}

/** For tests, and for parts whose events nobody wants. */
export const noEvents: EventRecorder = { record() {} };

export interface EventQuery {
  /** Milliseconds since 1970: only what happened, or happened again, since then. */
  readonly sinceMs?: number;
  /** The newest so many. */
  readonly limit?: number;
  /** A type (`link.down`) or the first part of one (`link`). */
  readonly type?: string;
}

export interface Watcher {
  changed(entry: EventEntry): void;
  /** No more will come: the daemon ends. */
  ended(): void;
}

export interface EventsOptions {
  /** This host. */
  readonly host: string;
  /** Where the history is kept. */
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** The last event of a type and subject, and how many came shortly after each other. */
interface Recent {
  entry: EventEntry;
  apart: number;
}

export class Events implements EventRecorder {
  readonly #options: EventsOptions;
  readonly #file: EventFile;
  /** By id, in the order of their sequence. */
  readonly #entries = new Map<number, EventEntry>();
  readonly #recent = new Map<string, Recent>();
  readonly #watchers = new Set<Watcher>();
  #sequence = 0;
  /** Until it is open the file may be another daemon's. */
  #state: 'new' | 'open' | 'failed' | 'closed' = 'new';

  constructor(options: EventsOptions) {
    this.#options = options;
    const { path, clock, log } = options;
    this.#file = new EventFile({ path, clock, log, all: () => this.#entries.values() });
  }

  /** Reads what is there from before, and says that the daemon has started. Never rejects. */
  async open(details: EventDetails = {}): Promise<void> {
    for (const entry of await this.#file.load()) this.#keep(entry);
    const before = [...this.#entries.values()].findLast(({ type }) => type.startsWith('daemon.'));
    const crashed = before !== undefined && before.type === 'daemon.started';
    this.#state = 'open';
    this.record({
      type: 'daemon.started',
      subject: this.#options.host,
      message: crashed
        ? 'the daemon starts; the one before ended without a word (it was killed, it crashed, or the host went down)'
        : 'the daemon starts',
      details,
      ...(crashed && { severity: 'warning' }),
    });
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  record(event: NewEvent): void {
    if (this.#state === 'new' || this.#state === 'closed') return;
    const { about, severity } = eventTypes[event.type];
    const now = new Date(this.#options.clock.wallTime()).toISOString();
    const sequence = this.#sequence + 1;
    const bounded = boundEvent({
      sequence,
      id: sequence,
      time: now,
      lastTime: now,
      count: 1,
      type: event.type,
      severity: event.severity ?? severity,
      about,
      subject: event.subject,
      message: event.message,
      details: { ...event.details },
    });
    const same = this.#recent.get(foldKey(bounded));
    const folds = same !== undefined && same.apart >= EVENTS_APART_MAX && isSoonAfter(same.entry, bounded);
    const entry = folds ? { ...bounded, id: same.entry.id, time: same.entry.time, count: same.entry.count + 1 } : bounded;
    this.#keep(entry);
    this.#file.changed(entry, folds);
    for (const watcher of [...this.#watchers]) watcher.changed(entry);
  }

  /** The oldest first. */
  list({ sinceMs = Number.NEGATIVE_INFINITY, limit = EVENTS_MAX, type }: EventQuery = {}): EventEntry[] {
    const found = [...this.#entries.values()].filter(
      (entry) => Date.parse(entry.lastTime) >= sinceMs && (type === undefined || isOfType(entry, type)),
    );
    return limit === 0 ? [] : found.slice(-limit);
  }

  /** Tells `watcher` of each change from now on; the result ends that. Throws `limit`. */
  watch(watcher: Watcher): () => void {
    if (this.#state === 'closed') throw new NetbusError('ended', 'the daemon is stopping');
    if (this.#watchers.size >= WATCHERS_MAX) {
      throw new NetbusError('limit', `${WATCHERS_MAX} others watch the events of this host already, which is the most`);
    }
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  get watching(): number {
    return this.#watchers.size;
  }

  /** Ends all watchers; the history goes on. */
  endWatchers(): void {
    for (const watcher of [...this.#watchers]) watcher.ended();
    this.#watchers.clear();
  }

  /** Why what happens is not kept across a restart; undefined = it is. */
  get notStored(): string | undefined {
    return this.#file.failure;
  }

  /** The daemon could not start: that is the last thing that it says. */
  failed({ code, message }: NetbusError): void {
    const { host } = this.#options;
    this.record({ type: 'daemon.failed', subject: host, message: `the daemon could not start: ${message}`, details: { code } });
    if (this.#state === 'open') this.#state = 'failed';
  }

  /** How many changes are on their way to the file. */
  get unstored(): number {
    return this.#file.unwritten;
  }

  /** Says that the daemon has stopped, and stores what is not stored yet, if that is possible within a bound. Twice is once. */
  async close(): Promise<void> {
    this.endWatchers();
    if (this.#state === 'open') {
      this.record({ type: 'daemon.stopped', subject: this.#options.host, message: 'the daemon has stopped in order' });
    }
    this.#state = 'closed';
    await this.#file.close();
  }

  #keep(entry: EventEntry): void {
    this.#sequence = Math.max(this.#sequence, entry.sequence);
    const key = foldKey(entry);
    const before = this.#recent.get(key);
    const goesOn = before !== undefined && isSoonAfter(before.entry, entry);
    const apart = entry.count > 1 ? EVENTS_APART_MAX : goesOn ? before.apart + 1 : 1;
    this.#recent.set(key, { entry, apart });
    this.#entries.delete(entry.id);
    this.#entries.set(entry.id, entry);
    if (this.#entries.size <= EVENTS_MAX) return;
    const [oldest] = this.#entries.values();
    this.#entries.delete(oldest.id);
    this.#file.forgotten(oldest);
    if (this.#recent.get(foldKey(oldest))?.entry.id === oldest.id) this.#recent.delete(foldKey(oldest));
  }
}

/** `link` is of the type's first part, `link.down` the whole. */
export function isOfType({ type }: { type: string }, wanted: string): boolean {
  return type === wanted || type.startsWith(`${wanted}.`);
}

function foldKey({ type, subject, details }: EventEntry): string {
  return `${type} ${subject} ${details.user ?? ''}`;
}

/** By the wall clock, which may have been set back between the two. */
function isSoonAfter(before: EventEntry, entry: EventEntry): boolean {
  return Math.abs(Date.parse(entry.time) - Date.parse(before.lastTime)) <= FOLD_MS;
}
