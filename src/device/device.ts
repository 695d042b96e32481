/**
 * The contract at the centre of Netbus. A **Device** takes batches of messages and gives replies and events to its **Guest**. A
 * backend, a remote device, a filter, a mirror and the slot are all Devices, and nothing above can tell them apart.
 *
 * Rules that hold for every implementation (the compliance suite in test/compliance/ checks them):
 *
 * 1. Everything happens on one thread. Neither side throws.
 * 2. `push` takes as many leading messages as there is room for and returns that count. The caller keeps the rest and pushes
 *    it again after its own `ready` was called, not before. A device that took all it was given owes no `ready`; one too many
 *    does no harm. A device that takes nothing any more (quiescing, lost, closed) owes none either.
 * 3. A device never calls its guest from inside the guest's own call (`start`, `push`, `ready`, `quiesce`, `close`): it answers in
 *    a microtask or later. So a guest needs no guard against re-entry. A device does: from inside `reply`, `push`, `ready` and
 *    `lost` the guest may call it, to push again or to close it. What is pushed there is answered in a later turn of the event
 *    loop, or the two would keep everything else from running.
 * 4. A request (a kind that has replies) and its payload are lent from `push` until its reply; a message without a reply is lent until
 *    `push` returns. Rows are pushed once: a row comes again only after its reply.
 * 5. A device holds at most `depth` requests.
 * 6. Every request gets exactly one reply, in any order, unless the device is cut.
 */
import type { Batch, Replies } from './batch.ts';
import type { NetbusError } from './errors.ts';
import type { MessageTable } from './message-table.ts';
import type { Profile } from './profile.ts';

/** What the guest's side of a device offers to the device. */
export interface Guest {
  /** The table that all requests of this guest are rows of. */
  readonly requests: MessageTable;
  /** Answers. The guest always has room: every row is one that it lent. */
  reply(replies: Replies): void;
  /** Messages that the device sends by itself: frames, streams, events. Takes leading ones, as `Device.push`; `Device.ready` follows. */
  push(events: Batch): number;
  /** The device has room again after a `push` that did not take all. */
  ready(): void;
  /**
   * The device is gone: it will answer nothing that it holds and take nothing more. Told once; what comes next is the guest's
   * decision: `quiesce` (which is then a cut at once) and `close`.
   */
  lost(cause: NetbusError): void;
}

/** How quiesce ended. */
export type Quiesced =
  /** Every request that was taken is answered and nothing is on its way. */
  | { readonly outcome: 'clean' }
  /**
   * The bound came first. From now on the device says nothing and nothing more reaches guest memory. These rows have no
   * reply, in the order in which they were pushed.
   */
  | { readonly outcome: 'cut'; readonly unfinished: readonly number[] };

export interface Device {
  /** What the guest's driver sees. */
  readonly profile: Profile;
  /** Most requests held without a reply; `push` takes nothing beyond it. */
  readonly depth: number;
  /** Called once, before anything else. */
  start(guest: Guest): void;
  push(batch: Batch): number;
  /** The guest has room for events again. */
  ready(): void;
  /**
   * Stop taking (`push` returns 0 from here on) and finish what was taken: the quiescent state of the paper's section 3.1. Resolves
   * *clean*, or *cut* as soon as `signal` aborts (at once where the device is lost or closed). Called at most once; never rejects.
   * A device that is quiesced is of no further use than to be closed.
   */
  quiesce(signal: AbortSignal): Promise<Quiesced>;
  /**
   * Ends it at any time, also twice, also while quiescing (which then ends as a cut); after the call the guest hears nothing more and its memory is
   * not touched. Resolves when the resources are free, which may be later: work in the kernel is waited for.
   */
  close(): Promise<void>;
}

/** Decorates a device: a filter is a function. */
export type Filter = (device: Device) => Device;
