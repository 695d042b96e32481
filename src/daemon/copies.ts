/**
 * The steps of a hot-swap at the hosts of the two devices, called by the host that has the VM: src/migration/swap/copy-host.ts says what each is for, src/device/
 * copy-succession.ts what it changes. It is on stable storage when the call resolves.
 */
import { randomUUID } from 'node:crypto';
import { type CopyMark, type CopyTarget, tryIsOver } from '../device/copy-mark.ts';
import {
  begun,
  checkHasVm,
  completed,
  givenUp,
  handedOver,
  isDecided,
  stamped,
  superseded,
} from '../device/copy-succession.ts';
import { NetbusError } from '../device/errors.ts';
import type { DataExtents } from '../device/source.ts';
import { checkTakesPart, type Succession } from '../device/succession.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { CopyHost, FillRequest } from '../migration/swap/copy-host.ts';
import type { EventRecorder } from './events.ts';
import type { Export } from './export.ts';
import { userName } from './export-entry.ts';
import { staleRemovedEvent, swapBegunEvent } from './export-events.ts';
import { ATTACHMENT_DEPTH, ATTACHMENTS_SERVED_MAX, type Attached, type ExportTable } from './export-table.ts';
import { checkFillable, fillingRecord, fromOf, isBlank, isTry } from './filling.ts';
import { StoredRecord } from './record.ts';
import type { AttachmentRecord } from './records.ts';
import { checkNotStale, isStale, staleMarks, staleText, usersOf } from './stale-marks.ts';
import type { RecordStore } from './store.ts';

/** A swap that an old device's host asks after, at the new device's one. */
export interface OutcomeRequest {
  /** The new device. */
  readonly export: string;
  /** Of the old one. */
  readonly attachment: string;
  readonly generation: number;
}

interface Forced {
  /** Somebody knows that a stale copy is wanted, or that a copy is not stale. */
  readonly forceStale?: boolean | undefined;
}

export interface CopiesOptions {
  readonly table: ExportTable;
  readonly attachments: RecordStore<AttachmentRecord>;
  /** Asks the host of a new device what became of a swap: see `outcome`. */
  readonly askOutcome?: ((host: string, request: OutcomeRequest) => Promise<{ decided: boolean }>) | undefined;
  /** Names an attachment: a random uuid where it is left out. */
  readonly newId?: (() => string) | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
}

export class Copies {
  readonly #options: CopiesOptions;
  readonly #table: ExportTable;

  constructor(options: CopiesOptions) {
    this.#options = options;
    this.#table = options.table;
  }

  /** As a job on `caller` deals with them. */
  for(caller: string): CopyHost {
    return {
      begin: (attachment, to) => this.begin(caller, attachment, to),
      fill: (request) => this.fill(caller, request),
      complete: (attachment, generation) => this.complete(caller, attachment, generation),
      handOver: (attachment, generation) => this.handOver(caller, attachment, generation),
      supersede: (attachment, generation) => this.supersede(caller, attachment, generation),
      abort: (attachment, generation) => this.abort(caller, attachment, generation),
      mark: async (attachment) => this.mark(caller, attachment),
      extents: (attachment, from) => this.extents(caller, attachment, from),
    };
  }

  begin(caller: string, attachment: string, to: CopyTarget): Promise<{ generation: number; fenceAfterMs?: number }> {
    return this.#table.inTurnOf(attachment, async ({ target, record }) => {
      checkHasVm(record, caller);
      if (record.profile.readOnly || target.shared) {
        throw new NetbusError('usage', `export ${target.name} is read-only: attach another device in its place`);
      }
      if (to.host === this.#table.host && to.export === target.name) {
        throw new NetbusError('usage', `${to.host}/${to.export} is the device that ${record.vm}/${record.name} has already`);
      }
      await target.change(attachment, (value) => stamped(value, begun(value, caller, to), this.#now()));
      const { generation, fenceAfterMs } = this.#table.findAttached(attachment).record;
      this.#log(record, target, `swap begun, to ${to.host}/${to.export} (generation ${generation})`);
      this.#options.events.record(swapBegunEvent(record, `it is being copied to ${to.host}/${to.export}`));
      return { generation, ...(fenceAfterMs !== undefined && { fenceAfterMs }) };
    });
  }

  fill(caller: string, request: FillRequest): Promise<{ attachment: string; depth: number; isBlank: boolean }> {
    return this.#table.inTurn(request.export, async (target) => {
      const { from, generation } = request;
      this.#table.checkAllowed(target, caller);
      const same = target.attachments.find((other) => isTry(other, request) && other.host === caller);
      if (same !== undefined) {
        if (same.copy?.state !== 'filling') throw tryIsOver(generation, same.copy);
        // This daemon may have ended before it had removed what the new mark is in place of.
        const before = staleMarks(target).filter(({ id }) => id !== same.id);
        await this.forget(target, before);
        return { attachment: same.id, depth: ATTACHMENT_DEPTH, isBlank: await isBlank(target) };
      }
      if (target.name === from.export && from.host === this.#table.host) {
        throw new NetbusError('usage', `${from.host}/${from.export} is the device that is to be replaced`);
      }
      const { blank, stale } = await checkFillable(target, caller, request);
      if (this.#table.attachmentCount >= ATTACHMENTS_SERVED_MAX) {
        throw new NetbusError(
          'limit',
          `host ${this.#table.host} serves ${ATTACHMENTS_SERVED_MAX} attachments, which is the most`,
        );
      }
      const { newId = randomUUID } = this.#options;
      const record = fillingRecord(this.#table.placeOf(caller), request, newId(), this.#now());
      await this.#options.attachments.put(record.id, record);
      this.#table.adopt(target, new StoredRecord(this.#options.attachments, record.id, record));
      await this.forget(target, stale);
      this.#log(record, target, `swap begun, from ${from.host}/${from.export} (generation ${generation})`);
      this.#options.events.record(swapBegunEvent(record, `it is being filled from ${from.host}/${from.export}`));
      return { attachment: record.id, depth: ATTACHMENT_DEPTH, isBlank: blank };
    });
  }

  async complete(caller: string, attachment: string, generation: number): Promise<void> {
    const found = this.#table.findAttached(attachment);
    await this.#step(found, (state) => completed(state, caller, generation), `generation ${generation} is complete`);
  }

  async handOver(caller: string, attachment: string, generation: number): Promise<void> {
    const found = this.#table.findAttached(attachment);
    await this.#step(found, (state) => handedOver(state, caller, generation), `generation ${generation} is handed over to`);
  }

  /** Unknown is success. */
  async supersede(caller: string, attachment: string, generation: number): Promise<void> {
    const found = this.#table.attached(attachment);
    if (found === undefined) return;
    checkHasVm(found.record, caller);
    await this.#step(found, (state) => superseded(state, generation), `generation ${generation} has replaced it`);
  }

  async abort(caller: string, attachment: string, generation: number): Promise<{ decided: boolean }> {
    const found = this.#table.attached(attachment);
    if (found === undefined) return { decided: false };
    checkHasVm(found.record, caller);
    return this.#giveUp(found, generation);
  }

  mark(caller: string, attachment: string): CopyMark | null {
    const { record } = this.#table.findAttached(attachment);
    checkTakesPart(record, caller);
    return record.copy ?? null;
  }

  /** Up to the size that the guest knows. */
  async extents(caller: string, attachment: string, from: number): Promise<DataExtents> {
    const { target, record } = this.#table.findAttached(attachment);
    checkHasVm(record, caller);
    const { source } = target.served(attachment);
    const end = record.profile.capacityBytes;
    if (from >= end) return { ranges: [] };
    if (source.extents === undefined) return { ranges: [[from, end - from]] };
    const { ranges, next } = await source.extents(from);
    const inside = ranges.filter(([position]) => position < end);
    return {
      ranges: inside.map(([position, length]) => [position, Math.min(length, end - position)]),
      ...(next !== undefined && next < end && { next }),
    };
  }

  /**
   * `caller`, which has the old device, asks what became of the swap to one of this host's, because the VM's host is not there any more: what is not decided is given up
   * for good. Throws `not_found` where nothing is known of it (any more).
   */
  outcome(caller: string, { export: name, attachment, generation }: OutcomeRequest): Promise<{ decided: boolean }> {
    return this.#table.inTurn(name, async (target) => {
      const record = target.attachments.find((other) => fromOf(other, generation)?.attachment === attachment);
      if (record === undefined) {
        throw new NetbusError(
          'not_found',
          `host ${this.#table.host} knows of no swap to ${name} under generation ${generation} (any more)`,
        );
      }
      if (fromOf(record, generation)?.host !== caller)
        throw new NetbusError('denied', `${name} was not to replace a device of host ${caller}`);
      return this.#giveUp({ target, record }, generation);
    });
  }

  /**
   * The guest is to start anew on a device that was handing over when its VM's host went away: the new device's host says which of the two counts, and that is
   * stored. Without that mark nothing happens. `forceStale`: somebody else knows. Throws `in_use` where the new device counts, `unreachable` or `timeout` where its
   * host does not answer. In the export's turn.
   */
  async settle({ target, record }: Attached, { forceStale = false }: Forced): Promise<void> {
    const { copy, id } = record;
    if (copy?.state !== 'handing-over') return;
    const { to, generation } = copy;
    const other = `${to.host}/${to.export}`;
    const decided = !forceStale && (await this.#askOutcome(to, { export: to.export, attachment: id, generation }));
    if (!decided) return void (await this.#giveUp({ target, record }, generation));
    await this.#step({ target, record }, (state) => superseded(state, generation), `generation ${generation} has replaced it`);
    throw new NetbusError(
      'in_use',
      `a swap has replaced export ${target.name} by ${other}, and what is on it is stale: attach ${other} instead`,
    );
  }

  /** False where the attachment stays, as a mark; its VM has no use of it. Throws `in_use` while nobody knows yet. */
  mayDetach({ target, record }: Attached): boolean {
    switch (record.copy?.state) {
      case undefined:
      case 'copied':
        return true;
      case 'handing-over':
      case 'complete':
        throw new NetbusError('in_use', `export ${target.name}: ${staleText(record)}: it can be detached afterwards`);
      default:
        return false;
    }
  }

  /** Stale copies may be used from now on: their marks are removed. In the export's turn. */
  async forget(target: Export, stale: readonly AttachmentRecord[]): Promise<void> {
    for (const record of stale) {
      if (!isStale(target, record)) continue;
      await target.remove(record.id, new NetbusError('ended', `the copy on ${target.name} is not kept`));
      this.#table.forget(record.id);
      this.#log(record, target, 'mark of a stale copy removed');
      this.#options.events.record(staleRemovedEvent(record, staleText(record)));
    }
  }

  /** For whoever wants the export, apart from a swap. Throws `in_use` unless it is forced. In the export's turn. */
  async admit(target: Export, { forceStale = false }: Forced): Promise<void> {
    // Where somebody uses it, that is what is in the way.
    if (usersOf(target).length > 0) return;
    if (forceStale) await this.forget(target, staleMarks(target));
    else checkNotStale(target);
  }

  async #giveUp({ target, record }: Attached, generation: number): Promise<{ decided: boolean }> {
    await this.#step({ target, record }, (state) => givenUp(state, generation), `generation ${generation} is given up`);
    const now = this.#table.attached(record.id)?.record;
    return { decided: now !== undefined && isDecided(now, generation) };
  }

  async #step(
    { target, record }: Attached,
    step: <State extends Succession>(state: State) => State,
    what: string,
  ): Promise<void> {
    const before = record.copy;
    const cause = new NetbusError('ended', `swap of ${record.vm}/${record.name}: ${what}`);
    await target.stopFor(record.id, (state) => stamped(state, step(state), this.#now()), cause);
    if (this.#table.attached(record.id)?.record.copy !== before) this.#log(record, target, `swap: ${what}`);
  }

  /** Throws `in_use` where that host does not know. */
  async #askOutcome(to: CopyTarget, request: OutcomeRequest): Promise<boolean> {
    try {
      if (this.#options.askOutcome === undefined) throw new NetbusError('unreachable', 'this host asks no other one');
      return (await this.#options.askOutcome(to.host, request)).decided;
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      const known = code === 'unreachable' || code === 'timeout' ? code : 'in_use';
      throw new NetbusError(
        known,
        `a swap was handing over to ${to.host}/${to.export}, whose host has to say which of the two counts: ${message}; for someone who knows that this one does: --force-stale`,
      );
    }
  }

  #now(): string {
    return new Date(this.#options.clock.wallTime()).toISOString();
  }

  #log(record: AttachmentRecord, target: Export, message: string): void {
    this.#options.log.info({ export: target.name, attachment: record.id, user: userName(record) }, message);
  }
}
