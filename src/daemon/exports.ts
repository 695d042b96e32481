/**
 * The exports of this host and the attachments to them. This host is the sole authority for its devices: who may use one, who does, and under
 * which epoch is decided and stored here, for hosts far away and for this one alike.
 */
import { randomUUID } from 'node:crypto';
import type { z } from 'zod';
import type { ExportEntry, exportRequestSchema } from '../api/types.ts';
import { markText } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import type { Profile } from '../device/profile.ts';
import type { Session } from '../device/source.ts';
import { checkTakesPart, fenced, isFenced, type Place, takenOver, unprepared } from '../device/succession.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { parseNbdUri } from '../protocols/nbd/uri.ts';
import { Copies, type CopiesOptions } from './copies.ts';
import type { AttachToExport } from './device-host.ts';
import type { EventRecorder } from './events.ts';
import { Export, type OpenExport } from './export.ts';
import { describeExport, type ExportListing, listExport, userName } from './export-entry.ts';
import { addedEvent, attachedEvent, grownEvent, removedEvent, reopenedEvent, sessionLostEvent } from './export-events.ts';
import { ATTACHMENT_DEPTH, ATTACHMENTS_SERVED_MAX, type Attached, ExportTable } from './export-table.ts';
import { Places, type VerifyHandOver, withTimes } from './places.ts';
import { StoredRecord } from './record.ts';
import type { AttachmentRecord, ExportRecord } from './records.ts';
import { diskSerial } from './serial.ts';
import { isKeptAsMark, staleMarks, usersOf } from './stale-marks.ts';
import type { RecordStore } from './store.ts';

export const EXPORTS_MAX = 1024;

export interface ExportsOptions {
  /** This host. */
  readonly host: string;
  /** New with every boot of this host. */
  readonly bootId: string;
  readonly exports: RecordStore<ExportRecord>;
  readonly attachments: RecordStore<AttachmentRecord>;
  readonly openExport: OpenExport;
  /** Which membership of a host counts: names change hands. Undefined where the cluster has no member list. */
  readonly membershipOf?: (host: string) => string | undefined;
  /** False for a host that was evicted: its calls may still be on their way. All are where it is left out. */
  readonly isMember?: (host: string) => boolean;
  /** See Places; where it is left out, no hand-over is taken from another host than the one that it is of. */
  readonly verifyHandOver?: VerifyHandOver;
  /** See Copies; where it is left out, no other host is asked. */
  readonly askOutcome?: CopiesOptions['askOutcome'];
  /** See Copies. */
  readonly newId?: CopiesOptions['newId'];
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
}

/** What the VM's side learns when it attaches. */
export interface CreatedAttachment {
  readonly attachment: string;
  readonly profile: Profile;
  readonly depth: number;
  /** See VirtualDeviceRecord; for devices of this host. */
  readonly forgets?: true;
}

/** What a session of an attachment begins with. */
export interface OpenedSession {
  readonly session: Session;
  readonly profile: Profile;
  readonly depth: number;
  readonly instance: string;
}

export class Exports {
  /** Where the VMs of its attachments are. */
  readonly places: Places;
  /** Hot-swaps of its devices. */
  readonly copies: Copies;
  readonly #options: ExportsOptions;
  readonly #table: ExportTable;
  /** Names that are being added: opening a disk may take its time, and must not hold up other exports. */
  readonly #adding = new Set<string>();

  constructor(options: ExportsOptions) {
    const { log, events, verifyHandOver: verify } = options;
    this.#options = options;
    this.#table = new ExportTable(options);
    this.copies = new Copies({ ...options, table: this.#table });
    const settle: Copies['settle'] = (...given) => this.copies.settle(...given);
    this.places = new Places({ table: this.#table, log, events, verify, settle });
  }

  get all(): Iterable<Export> {
    return this.#table.exports.values();
  }

  /** Puts back an export and its attachments from their records. Resolves when it is open, or known not to be. */
  async restore(record: ExportRecord, attachments: readonly AttachmentRecord[]): Promise<void> {
    const restored = this.#make(record);
    this.#table.exports.set(record.name, restored);
    for (const attachment of attachments) this.#adopt(restored, attachment);
    await restored.openInTime();
  }

  /** Opens the disk and stores the export. Throws what is wrong with the disk, or `in_use` where the name or the image is taken. */
  async add(request: z.output<typeof exportRequestSchema>): Promise<ExportEntry> {
    const { name } = request;
    this.#table.checkOpen();
    if (this.#table.exports.has(name) || this.#adding.has(name)) {
      throw new NetbusError('in_use', `export ${name} exists already: unexport it first, or choose another name`);
    }
    if (this.#table.exports.size + this.#adding.size >= EXPORTS_MAX) {
      throw new NetbusError('limit', `this host has ${EXPORTS_MAX} exports, which is the most`);
    }
    this.#adding.add(name);
    try {
      return await describeExport(await this.#add(request));
    } finally {
      this.#adding.delete(name);
    }
  }

  /** Throws `not_found`, or `in_use` with the attachments that are in the way; what marks a stale copy is none. */
  async remove(name: string): Promise<void> {
    const removed = await this.#table.inTurn(name, async (target) => {
      const users = usersOf(target).map(userName);
      if (users.length > 0) {
        throw new NetbusError('in_use', `export ${name} is attached to ${users.join(', ')}: detach it there first`);
      }
      await this.copies.forget(target, staleMarks(target));
      await target.forget();
      this.#table.exports.delete(name);
      return target;
    });
    await removed.close(new NetbusError('ended', `export ${name} was taken back`));
    this.#options.log.info({ export: name }, 'export removed');
    this.#options.events.record(removedEvent(removed.record));
  }

  /** Opens it anew, as another instance. Throws `not_found`, or `in_use` while it is being opened. */
  async reopen(name: string): Promise<ExportEntry> {
    const reopened = await this.#table.inTurn(name, async (target) => {
      await target.reopen();
      return target;
    });
    this.#options.log.warn({ export: name, state: reopened.state.name }, 'export opened anew');
    this.#options.events.record(reopenedEvent(reopened.record));
    return describeExport(reopened);
  }

  /**
   * Attaches `host`'s VM to an export: freezes the profile and stores the record before it answers. The same (host, vm, name, export) again
   * gives the same record, and so does another host's with `takeover` (see Places). Throws `not_found`, `denied`, `in_use`, `limit`, or `device` where
   * the export is not ready.
   */
  attach(host: string, request: AttachToExport): Promise<CreatedAttachment> {
    return this.#table.inTurn(request.export, async (target) => {
      const { clock, attachments, log, newId = randomUUID } = this.#options;
      const { vm, name, holdMs, fenceAfterMs, takeover = false } = request;
      this.#table.checkAllowed(target, host);
      await this.copies.admit(target, request);
      const users = usersOf(target);
      const isSame = (other: AttachmentRecord) => other.vm === vm && other.name === name;
      const same = users.find((other) => other.host === host && isSame(other));
      if (same !== undefined) return await this.#attachAgain(target, same, request);
      const elsewhere = users.find(isSame);
      if (elsewhere !== undefined && takeover) {
        await this.places.takeOver(host, { target, record: elsewhere }, request);
        return { attachment: elsewhere.id, profile: elsewhere.profile, depth: ATTACHMENT_DEPTH };
      }
      const user = users[0];
      if (user !== undefined && !target.shared) {
        const advice = isSame(user) ? '; to start that VM on this host instead: --takeover' : '';
        throw new NetbusError(
          'in_use',
          `export ${target.name} is attached to ${userName(user)}, and an exclusive device has one user: detach it there first${advice}`,
        );
      }
      if (this.#table.attachmentCount >= ATTACHMENTS_SERVED_MAX) {
        throw new NetbusError(
          'limit',
          `host ${this.#options.host} serves ${ATTACHMENTS_SERVED_MAX} attachments, which is the most`,
        );
      }
      const profile = { ...(await target.refresh()), serial: diskSerial(name) };
      const record: AttachmentRecord = {
        version: 1,
        id: newId(),
        export: target.name,
        ...this.#table.placeOf(host),
        vm,
        name,
        profile,
        writeCache: null,
        ...(holdMs !== undefined && { holdMs }),
        ...(fenceAfterMs !== undefined && { fenceAfterMs }),
        lease: { epoch: 0, holder: null },
        generation: 1,
        createdAt: new Date(clock.wallTime()).toISOString(),
      };
      await attachments.put(record.id, record);
      this.#adopt(target, record);
      log.info({ export: target.name, attachment: record.id, user: userName(record) }, 'attachment created');
      this.#options.events.record(attachedEvent(record, true));
      return { attachment: record.id, profile, depth: ATTACHMENT_DEPTH };
    });
  }

  /**
   * Ends its session and forgets it; unknown is success, and so is one that was taken from `host`. Where `host` only expects the VM, or had it before, it
   * gives that up. Throws `denied` where it is another host's.
   */
  async detach(host: string, id: string): Promise<void> {
    const found = this.#table.attached(id);
    if (found === undefined) return;
    await this.#table.inTurn(found.target.name, async (target) => {
      const { record } = this.#table.attached(id) ?? {};
      if (record === undefined) return;
      if (record.host !== host) {
        if (isFenced(record, host)) return;
        checkTakesPart(record, host);
        await target.changePlace(id, (state) => unprepared(state, host));
        return;
      }
      if (!this.copies.mayDetach({ target, record })) return;
      await target.remove(id, new NetbusError('ended', `${record.vm}/${record.name} was detached`));
      this.#table.forget(id);
      this.#options.log.info({ export: target.name, attachment: id, user: userName(record) }, 'attachment removed');
      this.#options.events.record(attachedEvent(record, false));
    });
  }

  /**
   * Takes the attachments of hosts for which `isGone` is true away for good, although nobody gave them back: ends their sessions, waits for their I/O,
   * forgets them durably, and so frees their leases for others; what marks a copy is kept, and is nobody's. Returns those. Rejects where one of them could not be forgotten, the others are all the same.
   */
  async evict(isGone: (place: Place) => boolean): Promise<AttachmentRecord[]> {
    const gone = this.#table.attachments.filter(
      ({ record }) => isGone(record) && !(isKeptAsMark(record) && fenced(record, record.host) === record),
    );
    const results = await Promise.allSettled(gone.map((attached) => this.#evict(attached)));
    await this.places.forget(isGone);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  }

  /** Takes the image's present size into the record, never downwards. */
  async grow(host: string, id: string): Promise<{ profile: Profile; grown: boolean }> {
    const { target, record } = this.#ownAttached(host, id);
    if (record.standby !== undefined) {
      throw new NetbusError(
        'in_use',
        `VM ${record.vm} is expected at host ${record.standby.host}, with the size that it has now: grow it when it has moved`,
      );
    }
    if (record.copy !== undefined)
      throw new NetbusError('in_use', `${record.vm}/${record.name}: ${markText(record.copy)}: grow it when that is over`);
    const present = await target.refresh();
    const { attachment } = target.served(id);
    const grown = await attachment.grow(present);
    if (grown) {
      const { capacityBytes } = attachment.profile;
      this.#options.log.info({ attachment: id, capacityBytes }, 'attachment grown');
      this.#options.events.record(grownEvent(this.#ownAttached(host, id).record));
    }
    return { profile: attachment.profile, grown };
  }

  /** Keeps the driver's choice of write-back or write-through. */
  async setWriteCache(host: string, id: string, enabled: boolean): Promise<void> {
    await this.#ownAttached(host, id).target.change(id, (record) => ({ ...record, writeCache: enabled }));
  }

  describeAttachment(host: string, id: string): object {
    const { record, target } = this.#ownAttached(host, id);
    const { profile, lease, writeCache } = record;
    return { profile, epoch: lease.epoch, holder: lease.holder, writeCache, device: `${this.#options.host}/${target.name}` };
  }

  /**
   * A session in standby of `host`, which has the VM, expects it, or had it. Throws `not_found`, `denied`, `fenced`, or `device` where the export is not
   * ready.
   */
  openSession(host: string, id: string, onEnded: (cause: NetbusError) => void): OpenedSession {
    this.#table.checkOpen();
    const { target, record } = this.#table.findAttached(id);
    checkTakesPart(record, host);
    this.#table.checkAllowed(target, host);
    const { attachment, source } = target.served(id);
    return {
      session: attachment.session(host, onEnded),
      // Read anew by whoever checks requests against it, so that a capacity that grew counts at once.
      get profile() {
        return attachment.profile;
      },
      depth: ATTACHMENT_DEPTH,
      instance: source.instance,
    };
  }

  /** A session of another host ended while it had the device: known to whoever reads the events. */
  sessionLost(id: string, cause: NetbusError): void {
    const record = this.record(id);
    if (record !== undefined) this.#options.events.record(sessionLostEvent(record, cause));
  }

  /** Whether the export may forget what was not flushed while this host goes on. */
  forgets(name: string): boolean {
    return this.#table.exports.get(name)?.record.nbd !== undefined;
  }

  /** An attachment's record. */
  record(id: string): AttachmentRecord | undefined {
    return this.#table.attached(id)?.record;
  }

  /** The exports that `host` may use, and for this host all of them; sizes are looked at anew. `details`: with what `ls -o wide` shows. */
  async list(host: string, { details = false } = {}): Promise<ExportListing[]> {
    const own = host === this.#options.host;
    const visible = [...this.all].filter((candidate) => own || this.#table.mayUse(candidate, host));
    return Promise.all(visible.map((candidate) => listExport(candidate, { details, own })));
  }

  /** All of them, for the people of this host. */
  entries(): Promise<ExportEntry[]> {
    return Promise.all([...this.all].map((candidate) => describeExport(candidate)));
  }

  /** Ends all sessions and their I/O; the records stay. */
  async close(): Promise<void> {
    this.#table.close();
    const cause = new NetbusError('ended', `the daemon of host ${this.#options.host} is stopping`);
    await Promise.all([...this.all].map((candidate) => candidate.close(cause)));
  }

  async #add({ name, disk, nbd, readOnly, direct, allow }: z.output<typeof exportRequestSchema>): Promise<Export> {
    const { clock, log } = this.#options;
    const backing = disk !== undefined ? { disk } : { nbd: this.#nbdUri(nbd!, readOnly) };
    const hosts = [...new Set(allow)].sort();
    const createdAt = new Date(clock.wallTime()).toISOString();
    const added = this.#make({ version: 1, name, ...backing, readOnly, direct, allow: hosts, reopened: 0, createdAt });
    try {
      await added.openNow();
      this.#table.checkOpen();
      await added.save();
    } catch (thrown) {
      await added.close(new NetbusError('ended', 'the export could not be made'));
      throw thrown;
    }
    this.#table.exports.set(name, added);
    log.info({ export: name, ...backing, readOnly, allow: hosts }, 'export added');
    this.#options.events.record(addedEvent(added.record));
    return added;
  }

  /** In its one form. NBD has no lock: what can be seen here of a second user is refused here. */
  #nbdUri(text: string, readOnly: boolean): string {
    const { uri } = parseNbdUri(text);
    const other = [...this.all].find(({ record }) => record.nbd === uri && !(record.readOnly && readOnly));
    if (other === undefined) return uri;
    throw new NetbusError('in_use', `${uri} is exported as ${other.name} already: unexport that first`);
  }

  /** Attached anew after this host had not been told of the detach, or was fenced: a new start, with the times that the VM's side says now. */
  async #attachAgain(target: Export, record: AttachmentRecord, request: AttachToExport): Promise<CreatedAttachment> {
    const { id, profile } = record;
    await this.copies.settle({ target, record }, request);
    await target.changePlace(id, (state) => {
      const { host, previous, handOver, copy } = state;
      const isNew = isFenced(state, host) || previous !== undefined || handOver !== undefined || copy !== undefined;
      return isNew ? takenOver(state, this.#table.placeOf(host)) : state;
    });
    const { holdMs, fenceAfterMs } = request;
    await target.change(id, (record) =>
      record.holdMs === holdMs && record.fenceAfterMs === fenceAfterMs ? record : withTimes(record, request),
    );
    return { attachment: id, profile, depth: ATTACHMENT_DEPTH };
  }

  #evict({ target, record }: Attached): Promise<AttachmentRecord> {
    return target.turns.run(async () => {
      const cause = new NetbusError('fenced', `host ${record.host} was evicted from the cluster`);
      if (isKeptAsMark(record)) {
        await target.fence(record.id, record.host, cause);
      } else {
        await target.remove(record.id, cause);
        this.#table.forget(record.id);
      }
      this.#options.log.warn(
        { export: target.name, attachment: record.id, user: userName(record) },
        'attachment of an evicted host removed: its lease is free',
      );
      return record;
    });
  }

  #make(record: ExportRecord): Export {
    const { exports, openExport, bootId, clock, log, events } = this.#options;
    return new Export({ record: new StoredRecord(exports, record.name, record), openExport, bootId, clock, log, events });
  }

  #adopt(target: Export, record: AttachmentRecord): void {
    this.#table.adopt(target, new StoredRecord(this.#options.attachments, record.id, record));
  }

  /** For the host that has the VM alone. */
  #ownAttached(host: string, id: string): Attached {
    const attached = this.#table.findAttached(id);
    checkTakesPart(attached.record, host);
    if (attached.record.host === host) return attached;
    throw new NetbusError('denied', `the VM of attachment ${id} is at host ${attached.record.host}, not at ${host}`);
  }
}
