/**
 * One export of this host: what is open behind it, and the attachments that use it. An export whose image is missing or held by somebody
 * else stays, says why, and is tried again until the image is there.
 */
import { NetbusError } from '../device/errors.ts';
import type { Profile } from '../device/profile.ts';
import type { BackendSource } from '../device/source.ts';
import { fenced, type Succession } from '../device/succession.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { EventRecorder } from './events.ts';
import { failureEvent, flushFailedEvent, lostEvent, readyEvent, unreadyEvent } from './export-events.ts';
import { changePlace } from './place-events.ts';
import type { StoredRecord } from './record.ts';
import { type AttachmentRecord, deviceOf, type ExportRecord } from './records.ts';
import { ServedAttachment } from './served-attachment.ts';
import { Turns } from './turns.ts';

const OPEN_RETRY_MS = 3_000;
/** A look at the image for `ls` and `status`; a file system that hangs must not hang them. */
const REFRESH_MS_MAX = 2_000;

/** How an export is opened: tells of a wait for the image's lock or for the server, and of changes (failures, loss) while it is open. */
export interface OpenHooks {
  /** Ends the opening, also one that waits. */
  readonly signal: AbortSignal;
  /** False: a lock that somebody else holds, or a server that is away, fails at once. True: it is waited for, and `onWaiting` says so. */
  readonly waitForLock: boolean;
  readonly onWaiting: (reason: string) => void;
  /** A flush failed: every one will until the export is opened anew, as another instance. */
  readonly onFlushFailed: () => void;
  /** Operations on the device fail; told with a limit, not for each one. */
  readonly onFailure: (failure: DeviceFailure) => void;
  /** What is behind it is gone, with all its devices. `inDoubt`: it may still be at writes that it did not answer. Told once. */
  readonly onLost: (loss: DeviceLoss) => void;
}

export interface DeviceLoss {
  readonly cause: NetbusError;
  readonly inDoubt: boolean;
}

/** What is said of a device's operation that failed. */
export interface DeviceFailure {
  readonly operation: string;
  /** The system's name: `ENOSPC` … */
  readonly error: string;
  /** One line: what failed, where, and what to do. */
  readonly message: string;
  readonly failures: number;
}

/** Opens what an export names. Throws a NetbusError that says what is wrong with it. */
export type OpenExport = (record: ExportRecord, hooks: OpenHooks) => Promise<BackendSource>;

export type ExportState =
  | { readonly name: 'opening' }
  /** Another open file holds the image's lock, or the server is away. */
  | { readonly name: 'waiting'; readonly reason: string }
  | { readonly name: 'ready'; readonly source: BackendSource }
  /** `isHeld`: until somebody opens it anew; otherwise it is tried again. */
  | { readonly name: 'failed'; readonly reason: string; readonly isHeld?: true }
  | { readonly name: 'closed' };

export interface ExportOptions {
  readonly record: StoredRecord<ExportRecord>;
  readonly openExport: OpenExport;
  readonly bootId: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
}

/** An attachment's record, and what serves it while the export is ready. */
interface Attached {
  readonly record: StoredRecord<AttachmentRecord>;
  served: ServedAttachment | undefined;
}

export class Export {
  /** What adds or takes away attachments goes one after the other: each decides by what the one before it left. */
  readonly turns = new Turns();
  readonly #options: ExportOptions;
  readonly #attached = new Map<string, Attached>();
  readonly #closing = new AbortController();
  #state: ExportState = { name: 'opening' };
  #since: number;
  #opening: Promise<void> = Promise.resolve();
  /** Counted, so that what a former opening says late has no effect. */
  #openings = 0;
  #cancelRetry: () => void = () => {};

  constructor(options: ExportOptions) {
    this.#options = options;
    this.#since = options.clock.wallTime();
  }

  get record(): ExportRecord {
    return this.#options.record.value;
  }

  get name(): string {
    return this.record.name;
  }

  get state(): ExportState {
    return this.#state;
  }

  /** Milliseconds since 1970: when the state became what it is; trying again is no change. */
  get since(): number {
    return this.#since;
  }

  /** A read-only device has no writer to exclude: several attachments may use it. */
  get shared(): boolean {
    return this.record.readOnly;
  }

  get attachments(): AttachmentRecord[] {
    return [...this.#attached.values()].map(({ record }) => record.value);
  }

  isActive(id: string): boolean {
    return this.#attached.get(id)?.served?.active ?? false;
  }

  /** Milliseconds since 1970: since when the attachment has the device, or has it no more; undefined = nobody knows. */
  activeSince(id: string): number | undefined {
    return this.#attached.get(id)?.served?.since;
  }

  /** For a new export: opens it now, or throws why not; nothing is left open then. */
  async openNow(): Promise<void> {
    this.#become({ name: 'ready', source: await this.#openSource(false, () => {}) });
  }

  /** For an export that was there before: opens it, however long that takes. Resolves when the first try has come to something. */
  async openInTime(): Promise<void> {
    await new Promise<void>((known) => {
      this.#opening = this.#tryOpen(known);
    });
  }

  add(record: StoredRecord<AttachmentRecord>): void {
    const attached: Attached = { record, served: undefined };
    this.#attached.set(record.value.id, attached);
    if (this.#state.name === 'ready') this.#serve(attached, this.#state.source);
  }

  /** Ends the attachment's session, waits for its I/O, and forgets the record durably. Unknown is success. */
  async remove(id: string, cause: NetbusError): Promise<void> {
    const attached = this.#attached.get(id);
    if (attached === undefined) return;
    await attached.served?.end(cause);
    await attached.record.remove();
    this.#attached.delete(id);
  }

  /** Changes an attachment's record durably. */
  async change(id: string, change: (record: AttachmentRecord) => AttachmentRecord): Promise<void> {
    await this.#attached.get(id)?.record.change(change);
  }

  /** Changes where its VM is, or is expected, durably. Unknown is success. */
  async changePlace(id: string, change: <State extends Succession>(state: State) => State): Promise<void> {
    const attached = this.#attached.get(id);
    if (attached !== undefined) await changePlace(attached.record, change, this.#options.events);
  }

  /** `host` is dead: ends its session, if it has the device, waits for its I/O, and stores that it gets nothing more. */
  async fence(id: string, host: string, cause: NetbusError): Promise<void> {
    const served = this.#attached.get(id)?.served;
    if (served !== undefined) await served.fence(host, cause);
    else await this.changePlace(id, (state) => fenced(state, host));
  }

  /** Changes what a swap may do, durably, once the session that has the device has ended, with its I/O. */
  async stopFor(id: string, change: <State extends Succession>(state: State) => State, cause: NetbusError): Promise<void> {
    const served = this.#attached.get(id)?.served;
    if (served !== undefined) await served.stopFor(change, cause);
    else await this.changePlace(id, change);
  }

  /** See ServedAttachment.absentMs; 0 while nobody can have a session, because the export is not ready. */
  absentMs(id: string, host: string): number {
    return this.#attached.get(id)?.served?.absentMs(host) ?? 0;
  }

  /** What serves the attachment. Throws `device` with the reason where the export is not ready. */
  served(id: string): { attachment: ServedAttachment; source: BackendSource } {
    const attachment = this.#attached.get(id)?.served;
    if (this.#state.name === 'ready' && attachment !== undefined) return { attachment, source: this.#state.source };
    throw new NetbusError('device', `export ${this.name} is not ready: ${this.reason ?? 'it is being opened'}`);
  }

  /** Why it is not ready. */
  get reason(): string | undefined {
    switch (this.#state.name) {
      case 'ready':
        return undefined;
      case 'opening':
        return 'it is being opened';
      case 'closed':
        return 'it is closed';
      default:
        return this.#state.reason;
    }
  }

  /** Stores a new one. */
  save(): Promise<void> {
    return this.#options.record.save();
  }

  /** Forgets it durably. */
  forget(): Promise<void> {
    return this.#options.record.remove();
  }

  /**
   * Ends all sessions and their I/O and opens it anew, as another instance: who has unflushed writes of the old one sends them again. Resolves when the first
   * try has come to something. Throws `in_use` while it is being opened anyway.
   */
  async reopen(): Promise<void> {
    const { name } = this.#state;
    if (name === 'opening' || name === 'waiting' || name === 'closed') {
      throw new NetbusError('in_use', `export ${this.name} is not open (${this.reason}): it is opened by itself`);
    }
    await this.#options.record.change((value) => ({ ...value, reopened: value.reopened + 1 }));
    this.#cancelRetry();
    await this.#opening;
    this.#cancelRetry();
    await this.#endAll(new NetbusError('ended', `export ${this.name} is opened anew`));
    await this.openInTime();
  }

  /** Looks at the real thing again. Throws where it is gone or does not answer in time. */
  async refresh(): Promise<Profile> {
    if (this.#state.name !== 'ready') throw new NetbusError('device', `export ${this.name} is not ready: ${this.reason}`);
    const refreshed = this.#state.source.refresh();
    refreshed.catch(() => undefined);
    const { signal, cancel } = abortAfter(this.#options.clock, REFRESH_MS_MAX);
    const late = new Promise<never>((_, reject) => {
      const error = new NetbusError('timeout', `${deviceOf(this.record)} did not answer within ${REFRESH_MS_MAX} ms`);
      signal.addEventListener('abort', () => reject(error), { once: true });
    });
    try {
      return await Promise.race([refreshed, late]);
    } finally {
      cancel();
    }
  }

  /** Ends all sessions and their I/O and closes what is open; the records stay. */
  async close(cause: NetbusError): Promise<void> {
    this.#closing.abort();
    this.#cancelRetry();
    await this.turns.idle();
    await this.#opening;
    await this.#options.record.settled();
    await Promise.all([...this.#attached.values()].map(({ served }) => served?.end(cause)));
    const state = this.#state;
    this.#state = { name: 'closed' };
    if (state.name === 'ready') await state.source.close();
  }

  #openSource(waitForLock: boolean, onWaiting: (reason: string) => void): Promise<BackendSource> {
    const { record, openExport, events } = this.#options;
    const { reopened } = record.value;
    const opening = ++this.#openings;
    const onFlushFailed = () => {
      events.record(flushFailedEvent(record.value));
      void this.#countReopening(reopened + 1);
    };
    const onFailure = (failure: DeviceFailure) => events.record(failureEvent(record.value, failure));
    const onLost = (loss: DeviceLoss) => void this.turns.run(() => this.#lost(opening, loss));
    const { signal } = this.#closing;
    return openExport(record.value, { signal, waitForLock, onWaiting, onFlushFailed, onFailure, onLost });
  }

  /** It is opened anew, as another instance; where it may still be at what it did not answer, only when somebody says so. */
  async #lost(opening: number, { cause, inDoubt }: DeviceLoss): Promise<void> {
    await this.#opening;
    if (opening !== this.#openings || this.#state.name !== 'ready' || this.#closing.signal.aborted) return;
    this.#options.events.record(lostEvent(this.record, cause));
    await this.#countReopening(this.record.reopened + 1);
    await this.#endAll(cause);
    if (this.#closing.signal.aborted) return;
    if (!inDoubt) return await this.openInTime();
    const reason = `${cause.message}; it may still be at writes that it did not answer: restart it, then type: netbus export ${this.name} --reopen`;
    this.#become({ name: 'failed', reason, isHeld: true });
  }

  /** Ends all sessions and their I/O, and closes what is open. */
  async #endAll(cause: NetbusError): Promise<void> {
    const state = this.#state;
    await Promise.all([...this.#attached.values()].map(({ served }) => served?.end(cause)));
    for (const attached of this.#attached.values()) attached.served = undefined;
    this.#become({ name: 'opening' });
    if (state.name === 'ready') await state.source.close();
  }

  /** The next opening is another instance. */
  async #countReopening(reopened: number): Promise<void> {
    try {
      await this.#options.record.change((value) => ({ ...value, reopened: Math.max(reopened, value.reopened) }));
    } catch (thrown) {
      const fields = { export: this.name, reason: NetbusError.from(thrown).message };
      this.#options.log.error(
        fields,
        'an opening as another instance was not recorded: do not restart this daemon before its state folder can be written',
      );
    }
  }

  async #tryOpen(known: () => void): Promise<void> {
    const { clock } = this.#options;
    const { signal } = this.#closing;
    const onWaiting = (reason: string) => {
      if (!signal.aborted) this.#become({ name: 'waiting', reason });
      known();
    };
    try {
      const source = await this.#openSource(true, onWaiting);
      this.#become({ name: 'ready', source });
    } catch (thrown) {
      if (!signal.aborted) {
        this.#become({ name: 'failed', reason: NetbusError.from(thrown).message });
        this.#cancelRetry = clock.after(OPEN_RETRY_MS, () => {
          this.#opening = this.#tryOpen(() => {});
        });
      }
    }
    known();
  }

  #become(state: ExportState): void {
    const { clock, log, events } = this.#options;
    const before = this.#state;
    this.#state = state;
    if (before.name !== state.name) this.#since = clock.wallTime();
    const fields = { export: this.name, device: deviceOf(this.record) };
    switch (state.name) {
      case 'ready':
        for (const attached of this.#attached.values()) this.#serve(attached, state.source);
        log.info({ ...fields, ...state.source.describe() }, 'export ready');
        events.record(readyEvent(this.record));
        break;
      case 'waiting':
      case 'failed':
        if (before.name === state.name && before.reason === state.reason) break;
        log.warn(
          { ...fields, reason: state.reason },
          state.name === 'failed' && state.isHeld ? 'export failed' : `export ${state.name}; it is tried again`,
        );
        events.record(unreadyEvent(this.record, state));
        break;
    }
  }

  #serve(attached: Attached, source: BackendSource): void {
    const { bootId, clock, events } = this.#options;
    attached.served = new ServedAttachment({ record: attached.record, source, bootId, clock, events });
  }
}
