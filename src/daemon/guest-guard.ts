/**
 * What has to be known of a guest when this daemon starts again while the guest lives on: whether requests of it may have been cut off, and
 * which device its unflushed writes went to. It is in the record before the guest's first request goes out. And whether this host was fenced, so that
 * nothing of the guest goes out any more.
 */
import { readFileSync } from 'node:fs';
import { NetbusError } from '../device/errors.ts';
import type { Grant, OpenSession, Session } from '../device/source.ts';
import type { Left } from '../frontends/vhost-user/left-requests.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

type GuestRecord = NonNullable<VirtualDeviceRecord['guest']>;

const OTHER_DEVICE =
  'the device host or its export was restarted while this daemon was away, and what the guest had not flushed may be lost: the guest waits until the VM is started again';

export interface GuestGuardOptions {
  /** Tells one process from all others that have or had its number; the system's processes are looked at where it is left out. */
  readonly identify?: ((pid: number) => string) | undefined;
  /** Asked each time, beside what the record says. */
  readonly whyFenced?: ((record: VirtualDeviceRecord) => string | undefined) | undefined;
}

export class GuestGuard {
  readonly #record: StoredRecord<VirtualDeviceRecord>;
  readonly #identify: (pid: number) => string;
  readonly #whyFenced: (record: VirtualDeviceRecord) => string | undefined;
  /** The VMM that is, or was last, connected, perhaps to a daemon before this one. */
  #process: string | undefined;
  /** This daemon gave the guest a device, so its virtual device remembers more than the record. */
  #seen = false;
  #granted: GuestRecord['device'] = null;

  constructor(record: StoredRecord<VirtualDeviceRecord>, options: GuestGuardOptions = {}) {
    this.#record = record;
    this.#identify = options.identify ?? processIdentity;
    this.#whyFenced = options.whyFenced ?? (() => undefined);
    this.#process = record.value.guest?.process;
  }

  /** Why the attachment is nobody's any more; undefined while it is this host's. */
  get fenced(): string | undefined {
    return this.#record.value.fenced ?? this.#whyFenced(this.#record.value);
  }

  /** The VMM that the record names has ended, perhaps while no daemon was here. False where that cannot be known. */
  get isGone(): boolean {
    const known = this.#record.value.guest?.process;
    const pid = Number.parseInt(known ?? '', 10);
    return !Number.isNaN(pid) && this.#identify(pid) !== known;
  }

  /** Holds over restarts, and whatever this host becomes. */
  async fence(reason: string): Promise<void> {
    await this.#record.change((value) => (value.fenced === undefined ? { ...value, fenced: reason.slice(0, 2000) } : value));
  }

  /** What this guest's writes went to, the last time that it had a device. */
  get device(): GuestRecord['device'] {
    const { guest } = this.#record.value;
    return this.#granted ?? (guest?.process === this.#process ? (guest?.device ?? null) : null);
  }

  /** What the last daemon left behind. */
  get left(): Left {
    return this.#record.value.guest?.left ?? 'nothing';
  }

  /** A VMM is there. True where it is another one than was there before: its guest knows nothing of what was. */
  connected(pid: number): boolean {
    const before = this.#process;
    this.#process = this.#identify(pid);
    const isOther = before !== undefined && before !== this.#process;
    if (isOther) {
      this.#seen = false;
      this.#granted = null;
    }
    return isOther;
  }

  /** The record names another device from now on. */
  replaced(): void {
    this.#granted = null;
  }

  /** It has gone, and left this behind. */
  async disconnected(left: Left): Promise<void> {
    await this.#change((guest) => guest && { ...guest, left });
  }

  /** The virtual device goes on with what was granted last. */
  async accepted(): Promise<void> {
    const device = this.#granted;
    await this.#change((guest) => {
      if (guest === null || (!guest.isNew && sameDevice(guest.device, device))) return guest;
      const { isNew: _, ...rest } = guest;
      return { ...rest, device };
    });
  }

  /** Sessions that are opened once the record says so, and granted devices only where the guest may go on with them. */
  guard(open: OpenSession): OpenSession {
    return async (onEnded) => {
      const { fenced } = this;
      if (fenced !== undefined) throw new NetbusError('fenced', fenced);
      await this.#use();
      const session = await open(onEnded);
      // Each grant is a durable write at the device's host: none is asked for that would be refused here.
      if (session.ids !== undefined && this.#isOther(session.ids)) {
        session.close();
        throw otherDevice();
      }
      return {
        activate: async (purpose) => {
          await this.#forgetEarlier(session);
          const grant = await session.activate(purpose);
          const { bootId, instance } = grant;
          await this.#check(grant);
          this.#granted = { bootId, instance };
          this.#seen = true;
          return grant;
        },
        quiesced: (left) => session.quiesced(left),
        close: () => session.close(),
      };
    };
  }

  /** From now on a daemon that ends without a word leaves requests behind that nobody knows. */
  async #use(): Promise<void> {
    const process = this.#process ?? 'unknown';
    await this.#change((guest) => {
      if (guest?.process === process) return guest.left === 'unknown' ? guest : { ...guest, left: 'unknown' };
      const isNew = guest !== null && !this.#record.value.arriving;
      return { process, left: 'unknown', device: null, ...(isNew && { isNew }) };
    });
  }

  /** What an earlier guest left, or took along from another host, is void at the device's host, too: for this one it was a power cut. */
  async #forgetEarlier(session: Session): Promise<void> {
    if (!this.#record.value.guest?.isNew) return;
    try {
      await session.quiesced({ queues: [] });
    } catch (thrown) {
      // A host of a release that keeps nothing of the kind.
      if (NetbusError.from(thrown).code !== 'protocol') throw thrown;
    }
  }

  async #check(grant: Grant): Promise<void> {
    const before = this.#record.value.guest?.device ?? null;
    // The write log knows better what may be lost.
    if (grant.unflushed !== undefined || this.#seen || sameDevice(before, grant)) return;
    const { bootId, instance } = grant;
    try {
      if (this.#isOther(grant)) throw otherDevice();
      // A write that is acknowledged before this is stored could be lost without anybody knowing.
      await this.#change((guest) => guest && { ...guest, device: { bootId, instance } });
    } catch (thrown) {
      await grant.device.close();
      throw thrown;
    }
  }

  /** It forgot what a guest of an earlier daemon had not flushed; of a disk that nobody writes there is nothing to forget. */
  #isOther(ids: Pick<Grant, 'bootId' | 'instance'>): boolean {
    const { guest, profile } = this.#record.value;
    const before = guest?.device ?? null;
    return !profile.readOnly && !this.#seen && before !== null && !sameDevice(before, ids);
  }

  async #change(change: (guest: GuestRecord | null) => GuestRecord | null): Promise<void> {
    await this.#record.change((value) => {
      const guest = change(value.guest);
      return guest === value.guest ? value : { ...value, guest };
    });
  }
}

function otherDevice(): NetbusError {
  return new NetbusError('device', OTHER_DEVICE, { lasting: true });
}

function sameDevice(a: GuestRecord['device'], b: Pick<Grant, 'bootId' | 'instance'> | null): boolean {
  return a?.bootId === b?.bootId && a?.instance === b?.instance;
}

/** A process that ended gives its number to another one, but not its start time (proc(5): field 22 of stat, after the name in parentheses). */
function processIdentity(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return `${pid}-${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`;
  } catch {
    // Gone already, or in a container of its own: taken for the same one each time, which is the safe side.
    return 'unknown';
  }
}
