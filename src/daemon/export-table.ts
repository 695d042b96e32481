/** The exports of this host by name, their attachments by id, and who may use them: what everything asks that deals with exports. */
import { NetbusError } from '../device/errors.ts';
import type { Export } from './export.ts';
import type { StoredRecord } from './record.ts';
import type { AttachmentRecord } from './records.ts';

/** All exports together: as many sessions as the protocol allows a host (docs/protocol.md, 2.1). */
export const ATTACHMENTS_SERVED_MAX = 1024;
/** Requests in flight of one attachment: both sides size their tables by it. */
export const ATTACHMENT_DEPTH = 256;

export interface ExportTableOptions {
  /** This host. */
  readonly host: string;
  /** Which membership of a host counts: names change hands. Undefined where the cluster has no member list. */
  readonly membershipOf?: ((host: string) => string | undefined) | undefined;
  /** False for a host that was evicted: its calls may still be on their way. All are where it is left out. */
  readonly isMember?: ((host: string) => boolean) | undefined;
}

/** An attachment's record, and the export that it belongs to. */
export interface Attached {
  readonly target: Export;
  readonly record: AttachmentRecord;
}

export class ExportTable {
  /** By name. */
  readonly exports = new Map<string, Export>();
  readonly #options: ExportTableOptions;
  readonly #byAttachment = new Map<string, Export>();
  #closed = false;

  constructor(options: ExportTableOptions) {
    this.#options = options;
  }

  get host(): string {
    return this.#options.host;
  }

  get attachmentCount(): number {
    return this.#byAttachment.size;
  }

  /** Of all exports. */
  get attachments(): Attached[] {
    return [...this.exports.values()].flatMap((target) => target.attachments.map((record) => ({ target, record })));
  }

  /** From now on nothing is changed any more. */
  close(): void {
    this.#closed = true;
  }

  checkOpen(): void {
    if (this.#closed) throw new NetbusError('ended', `the daemon of host ${this.host} is stopping`);
  }

  find(name: string): Export {
    const found = this.exports.get(name);
    if (found !== undefined) return found;
    throw new NetbusError('not_found', `host ${this.host} has no export ${name}: "netbus ls" lists them`);
  }

  adopt(target: Export, record: StoredRecord<AttachmentRecord>): void {
    target.add(record);
    this.#byAttachment.set(record.value.id, target);
  }

  forget(attachment: string): void {
    this.#byAttachment.delete(attachment);
  }

  attached(id: string): Attached | undefined {
    const target = this.#byAttachment.get(id);
    const record = target?.attachments.find((candidate) => candidate.id === id);
    return target && record && { target, record };
  }

  /** Throws `not_found`. */
  findAttached(id: string): Attached {
    const found = this.attached(id);
    if (found === undefined) throw new NetbusError('not_found', `host ${this.host} has no attachment ${id}`);
    return found;
  }

  /** Runs `work` when it is this export's turn, if the export is still there then. */
  async inTurn<T>(name: string, work: (target: Export) => Promise<T>): Promise<T> {
    const target = this.find(name);
    return target.turns.run(() => {
      this.checkOpen();
      if (this.exports.get(name) !== target) this.find(name);
      return work(target);
    });
  }

  /** As `inTurn`, for the export of an attachment. Throws `not_found`. */
  async inTurnOf<T>(id: string, work: (attached: Attached) => Promise<T>): Promise<T> {
    const { target } = this.findAttached(id);
    return this.inTurn(target.name, () => work(this.findAttached(id)));
  }

  /** A host, as it is meant now. */
  placeOf(host: string): { host: string; membership?: string } {
    const membership = this.#options.membershipOf?.(host);
    return membership === undefined ? { host } : { host, membership };
  }

  mayUse(target: Export, host: string): boolean {
    return target.record.allow.includes(host);
  }

  /** Throws `denied`. */
  checkAllowed(target: Export, host: string): void {
    const { host: own, isMember } = this.#options;
    // This host's own VMs need nobody's list.
    if (host !== own && isMember?.(host) === false)
      throw new NetbusError('denied', `host ${host} is not a member of the cluster of ${own}`);
    if (this.mayUse(target, host)) return;
    throw new NetbusError(
      'denied',
      `export ${target.name} of host ${own} does not allow host ${host}: export it with --allow ${host}`,
    );
  }
}
