/**
 * Where the VMs of this host's attachments are, and where they go: a live migration's destination is expected, the source is remembered until nothing
 * of it is needed any more, a host that is dead is fenced, and another one takes over. device/succession.ts has the rules.
 */
import type { CopyMark } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import {
  checkNotFenced,
  isFenced,
  needsFence,
  prepared,
  settled,
  takenOver,
  takesPart,
  unprepared,
} from '../device/succession.ts';
import type { SignedHandOver, StatedHandOver } from '../directory/signed-hand-over.ts';
import type { Log } from '../lib/log.ts';
import type { Copies } from './copies.ts';
import type {
  AttachToExport,
  ExpectedDevice,
  PreparedDevice,
  PrepareRequest,
  PresentRequest,
  Whereabouts,
} from './device-host.ts';
import type { EventRecorder } from './events.ts';
import { userName } from './export-entry.ts';
import { fencedEvent } from './export-events.ts';
import { ATTACHMENT_DEPTH, type Attached, type ExportTable } from './export-table.ts';
import type { AttachmentRecord } from './records.ts';

export type VerifyHandOver = (signed: SignedHandOver) => StatedHandOver;

export interface PlacesOptions {
  readonly table: ExportTable;
  readonly log: Log;
  readonly events: EventRecorder;
  /** Throws `denied` where it is not what a present member signed. */
  readonly verify?: VerifyHandOver | undefined;
  /** Before a VM starts anew: see Copies. */
  readonly settle: Copies['settle'];
}

export class Places {
  readonly #table: ExportTable;
  readonly #log: Log;
  readonly #events: EventRecorder;
  readonly #verify: VerifyHandOver | undefined;
  readonly #settle: Copies['settle'];

  constructor({ table, log, events, verify, settle }: PlacesOptions) {
    this.#table = table;
    this.#log = log;
    this.#events = events;
    this.#verify = verify;
    this.#settle = settle;
  }

  /** What host `from` has for its VM here; `allowed`: `caller` may use it, too. */
  expected(caller: string, { vm, from }: { vm: string; from: string }): ExpectedDevice[] {
    const found = this.#table.attachments.filter(
      ({ record }) => record.host === from && record.vm === vm && !isBeside(record.copy?.state),
    );
    return found.map(({ target, record }) => ({
      attachment: record.id,
      export: target.name,
      name: record.name,
      readOnly: record.profile.readOnly,
      allowed: this.#table.mayUse(target, caller),
    }));
  }

  /**
   * From now on the VM is expected at `caller`, durably; another host where it was expected is not any more. `check`: nothing is stored. Throws
   * `not_found`, `denied` (the export's list), `in_use` (it is there already), or `device` where the export is not ready.
   */
  prepare(caller: string, { attachment, vm, name, from, check = false }: PrepareRequest): Promise<PreparedDevice> {
    return this.#table.inTurnOf(attachment, async ({ target, record }) => {
      this.#table.checkAllowed(target, caller);
      if (record.vm !== vm || record.name !== name) {
        throw new NetbusError('not_found', `attachment ${attachment} is ${record.vm}/${record.name}, not ${vm}/${name}`);
      }
      const place = this.#table.placeOf(caller);
      prepared(record, place);
      if (record.host !== from) {
        throw new NetbusError(
          'not_found',
          `VM ${vm} has ${name} at host ${record.host}, not at ${from}: name that host with --from`,
        );
      }
      target.served(attachment);
      if (!check) {
        await target.changePlace(attachment, (state) => prepared(state, place));
        this.#log.info({ export: target.name, attachment, user: userName(record), standby: caller }, 'attachment prepared');
      }
      const { profile, writeCache, holdMs } = record;
      const hold = holdMs === undefined ? {} : { holdMs };
      return { attachment, profile, depth: ATTACHMENT_DEPTH, export: target.name, name, writeCache, ...hold };
    });
  }

  /** Neither expected at `caller` any more, nor going back there. Unknown is success. */
  async unprepare(caller: string, attachment: string): Promise<void> {
    await this.#table.attached(attachment)?.target.changePlace(attachment, (state) => unprepared(state, caller));
  }

  /** For whoever has the attachment or had it: knowing its id is enough. Throws `not_found`, `fenced`. */
  whereabouts(caller: string, attachment: string): Whereabouts {
    const { record } = this.#table.findAttached(attachment);
    checkNotFenced(record, caller);
    const { host, lease, standby, previous, handOver } = record;
    // What is there is needed as long as the guest could come (back), or a write log there could be asked for.
    const comes = standby?.host === caller || previous?.host === caller;
    const isNeeded = host === caller ? handOver !== undefined || previous !== undefined : comes;
    const keepsLog = handOver?.unflushed?.log?.host === caller;
    const back = previous && !isFenced(record, previous.host) && { previous: previous.host };
    return { host, ...lease, ...(standby && { standby: standby.host }), ...back, settled: !isNeeded && !keepsLog };
  }

  /**
   * What the last host of a VM signed, because it could not say it here itself: `caller`, where the VM is expected, brings it. Throws `denied` where it is not to
   * be believed or not for `caller`, `ended` where that host does not hold the lease under that epoch, `device` where the export is not ready.
   */
  async present(caller: string, { attachment, signed }: PresentRequest): Promise<void> {
    const { target } = this.#table.findAttached(attachment);
    this.#table.checkAllowed(target, caller);
    if (this.#verify === undefined) throw new NetbusError('denied', 'this host takes no hand-over from another one');
    const { host, epoch, left, ...stated } = this.#verify(signed);
    if (stated.attachment !== attachment)
      throw new NetbusError('denied', `what host ${host} signed is of another attachment: ${stated.attachment}`);
    await target.served(attachment).attachment.present({ from: host, to: caller, epoch, left });
    this.#log.warn(
      { export: target.name, attachment, host, epoch, standby: caller },
      'a hand-over came signed, by the host that the VM goes to',
    );
  }

  /** The guest stays at `caller`, where a flush under `epoch` covers what was acknowledged elsewhere. Throws `ended` where that epoch is over. */
  async settled(caller: string, attachment: string, epoch: number): Promise<void> {
    await this.#table.findAttached(attachment).target.changePlace(attachment, (state) => settled(state, caller, epoch));
  }

  /**
   * `host` is dead, says whoever asks: its sessions and their I/O end, and it gets nothing more of the attachments that it takes part in. Other hosts
   * may ask it for exports that they may use. Returns those attachments. Rejects where one could not be stored, the others are all the same.
   */
  async fence(caller: string, host: string): Promise<AttachmentRecord[]> {
    const own = this.#table.host;
    if (host === own) throw new NetbusError('usage', `host ${host} is alive: it is the one that was asked to fence it`);
    const concerned = this.#table.attachments.filter(
      ({ target, record }) => (caller === own || this.#table.mayUse(target, caller)) && takesPart(record, host),
    );
    const cause = new NetbusError('fenced', `host ${host} was fenced, on the word of host ${caller}`);
    return all(concerned.map((attached) => this.#fence(attached, host, cause)));
  }

  /**
   * The VM starts anew at `caller`, on the attachment of another host. Throws `in_use` while its host may still do something: it holds the lease and was not
   * fenced, or has a session.
   */
  async takeOver(caller: string, { target, record }: Attached, request: AttachToExport): Promise<void> {
    const { id, host, lease, fenceAfterMs } = record;
    if (lease.holder !== null) {
      const leftMs = fenceAfterMs === undefined ? Number.POSITIVE_INFINITY : fenceAfterMs - target.absentMs(id, lease.holder);
      if (leftMs > 0) throw stillHeld(lease.holder, leftMs);
      const cause = new NetbusError(
        'fenced',
        `host ${host} had no session for ${fenceAfterMs! / 1000} s, so it counts as fenced`,
      );
      await this.#fence({ target, record }, lease.holder, cause);
    } else if (!isFenced(record, host) && target.absentMs(id, host) === 0) {
      throw new NetbusError('in_use', `host ${host} uses it: stop the VM there; if that host is dead: netbus fence ${host}`);
    }
    await this.#settle({ target, record }, request);
    const place = this.#table.placeOf(caller);
    await target.changePlace(id, (state) => takenOver(state, place));
    await target.change(id, (value) => withTimes({ ...value, writeCache: null }, request));
    this.#log.warn(
      { export: target.name, attachment: id, user: userName({ ...record, host: caller }), previous: host },
      'attachment taken over',
    );
  }

  /** Nothing is expected any more at hosts that were evicted, nor goes back there. Rejects where that could not be stored. */
  async forget(isGone: (place: { host: string; membership?: string | undefined }) => boolean): Promise<void> {
    await all(
      this.#table.attachments.flatMap(({ target, record }) =>
        [record.standby, record.previous].map(async (place) => {
          if (place && isGone(place)) await target.changePlace(record.id, (state) => unprepared(state, place.host));
        }),
      ),
    );
  }

  async #fence({ target, record }: Attached, host: string, cause: NetbusError): Promise<AttachmentRecord> {
    const isKnown = isFenced(record, host);
    await target.fence(record.id, host, cause);
    if (isKnown) return record;
    this.#log.warn({ export: target.name, attachment: record.id, user: userName({ ...record, host }) }, cause.message);
    this.#events.record(fencedEvent(record, host, cause));
    return record;
  }
}

/** Only a swap has to do with it: the VM has another device under that name. */
function isBeside(state: CopyMark['state'] | undefined): boolean {
  return state === 'superseded' || state === 'filling' || state === 'complete' || state === 'aborted';
}

/** The record with the times that the VM's side says now. */
export function withTimes(
  { holdMs: _, fenceAfterMs: __, ...record }: AttachmentRecord,
  request: AttachToExport,
): AttachmentRecord {
  const { holdMs, fenceAfterMs } = request;
  return { ...record, ...(holdMs !== undefined && { holdMs }), ...(fenceAfterMs !== undefined && { fenceAfterMs }) };
}

function stillHeld(holder: string, leftMs: number): NetbusError {
  const { code, message } = needsFence(holder);
  if (leftMs === Number.POSITIVE_INFINITY) return new NetbusError(code, message);
  return new NetbusError(code, `${message}; it counts as fenced in ${Math.ceil(leftMs / 1000)} s, unless it comes back`);
}

/** Each of them is tried; rejects with what went wrong first. */
async function all<Value>(work: readonly Promise<Value>[]): Promise<Value[]> {
  const results = await Promise.allSettled(work);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}
