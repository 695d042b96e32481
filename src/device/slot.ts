/**
 * The slot stands between a guest and whatever device is behind at the moment. It keeps the order of what has no reply, so that a
 * device can be taken away (cut, swapped, restarted) and another one put in its place without the guest noticing more than a pause.
 *
 * While there is no device the slot takes nothing: the guest's own queue is the buffer.
 */
import { within } from '../lib/abort.ts';
import { Batch, type Replies } from './batch.ts';
import type { Device, Guest, Quiesced } from './device.ts';
import type { NetbusError } from './errors.ts';
import type { MessageTable } from './message-table.ts';
import type { Profile } from './profile.ts';

/** What a device class does about requests that were sent and not answered, and about what the device forgot. */
export interface ReplayPolicy {
  taken(table: MessageTable, row: number): void;
  answered(table: MessageTable, row: number, status: number): void;
}

/** What the slot's owner hears. */
export interface SlotOwner {
  /** See `tellBeyond`. */
  tookBeyond(): void;
  /** The device is gone, closed, and what it did not answer is kept for the next one. */
  lost(cause: NetbusError): void;
  /** After the guest's side asked for quiet and before it is told that it is. `signal` is the guest's bound. */
  quiesced(outcome: Quiesced['outcome'], signal: AbortSignal): Promise<void>;
  /** The guest's side closed the slot. */
  closed(): Promise<void>;
}

type State =
  | { readonly name: 'holding' }
  | { readonly name: 'running'; readonly device: Device; readonly guest: SlotGuest }
  /** The device is on its way out: lost, or being quiesced. No other one goes in before it is closed. */
  | { readonly name: 'leaving'; readonly device: Device; readonly guest: SlotGuest }
  /** The guest's side asked for quiet and has it; only `close` comes after. */
  | { readonly name: 'quiet' }
  | { readonly name: 'closed' };

export class Slot implements Device {
  readonly profile: Profile;
  readonly depth: number;
  readonly #owner: SlotOwner;
  readonly #policy: ReplayPolicy;
  #state: State = { name: 'holding' };
  #guest!: Guest;
  /** Rows that wait to be pushed again, oldest first. */
  #replay!: Batch;
  /** As many rows of a guest's batch as there is room for. */
  #part!: Batch;
  /** Per row: when it was taken (1, 2, 3 …); 0 = not held. */
  #order!: Float64Array;
  #taken = 0;
  #tellAt = 0;
  #held = 0;
  /** The guest was refused something and waits for `ready`. */
  #guestWaits = false;
  /** The device refused something: nothing is pushed before its `ready`. */
  #deviceFull = false;
  #draining: (() => void) | undefined;
  #quiescing = false;
  /** The closing of the device that was here last. */
  #departed: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(options: { profile: Profile; depth: number; owner: SlotOwner; policy: ReplayPolicy }) {
    this.profile = options.profile;
    this.depth = options.depth;
    this.#owner = options.owner;
    this.#policy = options.policy;
  }

  /** Something was taken at some time. */
  get used(): boolean {
    return this.#taken > 0;
  }

  /** Tells the owner when more than `count` requests have been taken, once: so many may have been taken elsewhere before. */
  tellBeyond(count: number): void {
    this.#tellAt = count + 1;
    if (this.#taken > count) this.#owner.tookBeyond();
  }

  /** Requests without a reply. */
  get held(): number {
    return this.#held;
  }

  get running(): boolean {
    return this.#state.name === 'running';
  }

  start(guest: Guest): void {
    this.#guest = guest;
    this.#order = new Float64Array(guest.requests.capacity);
    this.#replay = new Batch(guest.requests);
    this.#part = new Batch(guest.requests);
  }

  push(batch: Batch): number {
    if (this.#state.name !== 'running' || this.#quiescing || this.#deviceFull) {
      this.#guestWaits = true;
      return 0;
    }
    const given = this.#leading(batch, this.depth - this.#held);
    const count = given.count === 0 ? 0 : this.#state.device.push(given);
    for (let i = 0; i < count; i++) this.#take(batch.rows[i]);
    this.#deviceFull = count < given.count;
    this.#guestWaits = count < batch.count;
    return count;
  }

  ready(): void {
    if (this.#state.name === 'running') this.#state.device.ready();
  }

  /** Puts a device in: it gets what has no reply first, in order, and then the guest goes on. Closes it where the slot is not holding. */
  install(device: Device): void {
    if (this.#state.name !== 'holding') {
      void device.close();
      return;
    }
    const guest = new SlotGuest(this, this.#guest.requests);
    this.#state = { name: 'running', device, guest };
    this.#deviceFull = false;
    device.start(guest);
    this.#resume();
  }

  /** Takes the device out, brought to a quiescent state or cut at `signal`; what it did not answer is kept for the next one. */
  async remove(signal: AbortSignal): Promise<void> {
    const state = this.#state;
    if (state.name !== 'running') return;
    const leaving = this.#leave(state);
    await leaving.device.quiesce(signal);
    leaving.guest.silence();
    this.#depart(leaving);
    await this.#departed;
    if (this.#state === leaving) this.#hold();
  }

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    this.#quiescing = true;
    if (this.#held > 0 && !signal.aborted && this.#state.name !== 'closed') await this.#drained(signal);
    const state = this.#state;
    if (state.name === 'running') {
      const leaving = this.#leave(state);
      await leaving.device.quiesce(signal);
      leaving.guest.silence();
      this.#depart(leaving);
    } else if (state.name === 'leaving') {
      state.guest.silence();
    }
    const unfinished = this.#unanswered();
    const outcome: Quiesced = unfinished.length === 0 ? { outcome: 'clean' } : { outcome: 'cut', unfinished };
    if (this.#closing !== undefined) return outcome;
    this.#state = { name: 'quiet' };
    // The owner gives the lease back, and for that the device must be closed; a cut has no time to wait for it.
    if (outcome.outcome === 'clean') await within(signal, this.#departed);
    if (this.#closing === undefined) await this.#owner.quiesced(outcome.outcome, signal);
    return outcome;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const state = this.#state;
    this.#state = { name: 'closed' };
    if (state.name === 'running' || state.name === 'leaving') {
      state.guest.silence();
      this.#depart(state);
    }
    this.#draining?.();
    await this.#departed;
    await this.#owner.closed();
  }

  /** From the device, through its own guest object. */
  answered(replies: Replies): void {
    for (let i = 0; i < replies.count; i++) {
      const row = replies.rows[i];
      this.#order[row] = 0;
      this.#held--;
      this.#policy.answered(this.#guest.requests, row, replies.statuses[i]);
    }
    this.#guest.reply(replies);
    if (this.#held === 0) this.#draining?.();
    // The slot's own bound was in the way, of which the device knows nothing.
    if (this.#guestWaits && !this.#deviceFull) this.#resume();
  }

  pushEvents(events: Batch): number {
    return this.#guest.push(events);
  }

  deviceReady(): void {
    this.#deviceFull = false;
    this.#resume();
  }

  deviceLost(cause: NetbusError): void {
    const state = this.#state;
    if (state.name !== 'running') return;
    const leaving = this.#leave(state);
    leaving.guest.silence();
    this.#depart(leaving);
    void this.#departed.then(() => {
      if (this.#state !== leaving) return;
      this.#hold();
      this.#owner.lost(cause);
    });
  }

  /** Pushes what waits to be pushed again; once that is done the guest may go on. */
  #resume(): void {
    if (this.#state.name !== 'running') return;
    if (this.#replay.count > 0) {
      const count = this.#state.device.push(this.#replay);
      this.#replay.drop(count);
      this.#deviceFull = this.#replay.count > 0;
      if (this.#deviceFull) return;
    }
    if (this.#guestWaits && !this.#quiescing && this.#held < this.depth) {
      this.#guestWaits = false;
      this.#guest.ready();
    }
  }

  #leave(state: { readonly device: Device; readonly guest: SlotGuest }): State & { readonly name: 'leaving' } {
    const leaving = { name: 'leaving' as const, device: state.device, guest: state.guest };
    this.#state = leaving;
    return leaving;
  }

  #depart(state: { readonly device: Device }): void {
    this.#departed = state.device.close();
  }

  /** No device: what the last one did not answer is kept for the next one. */
  #hold(): void {
    this.#state = { name: 'holding' };
    this.#replay.clear();
    for (const row of this.#unanswered()) this.#replay.add(row);
  }

  /** The first `room` rows of a batch at most. */
  #leading(batch: Batch, room: number): Batch {
    if (batch.count <= room) return batch;
    this.#part.clear();
    for (let i = 0; i < room; i++) this.#part.add(batch.rows[i]);
    return this.#part;
  }

  #take(row: number): void {
    this.#order[row] = ++this.#taken;
    this.#held++;
    this.#policy.taken(this.#guest.requests, row);
    if (this.#taken === this.#tellAt) this.#owner.tookBeyond();
  }

  #unanswered(): number[] {
    if (this.#held === 0) return [];
    const rows: number[] = [];
    for (let row = 0; row < this.#order.length; row++) if (this.#order[row] > 0) rows.push(row);
    return rows.sort((a, b) => this.#order[a] - this.#order[b]);
  }

  /** Until nothing is held, or the bound, or the end. */
  #drained(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener('abort', done);
        this.#draining = undefined;
        resolve();
      };
      this.#draining = done;
      signal.addEventListener('abort', done);
    });
  }
}

/** The guest that one device sees. Silenced when that device is replaced: this is what shuts out its late replies. */
class SlotGuest implements Guest {
  readonly requests: MessageTable;
  #slot: Slot | undefined;

  constructor(slot: Slot, requests: MessageTable) {
    this.#slot = slot;
    this.requests = requests;
  }

  silence(): void {
    this.#slot = undefined;
  }

  reply(replies: Replies): void {
    this.#slot?.answered(replies);
  }

  push(events: Batch): number {
    return this.#slot === undefined ? events.count : this.#slot.pushEvents(events);
  }

  ready(): void {
    this.#slot?.deviceReady();
  }

  lost(cause: NetbusError): void {
    this.#slot?.deviceLost(cause);
  }
}
