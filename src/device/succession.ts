/**
 * Who may have the lease of an attachment next, as its guest moves between hosts. Pure: each function takes the state and gives the next one, or throws
 * why not; the same object means that nothing changes. A host that holds the lease is always the one that has the VM.
 */

import { isDeepStrictEqual } from 'node:util';
import { checkStartsAnew, checkUnmarked, type LeasePurpose, type Marked, markGranted, markOrphaned } from './copy-mark.ts';
import { NetbusError } from './errors.ts';
import type { HandOver } from './hand-over.ts';

/** Most hosts that an attachment remembers to have been taken from; the oldest are forgotten, and then they are strangers. */
export const FENCED_HOSTS_MAX = 16;

/** A host, and the membership under which it is meant: names change hands. */
export interface Place {
  readonly host: string;
  readonly membership?: string | undefined;
}

/** What is on stable storage before anything is granted; the fields of an attachment's record that say where it is. */
export interface Succession extends Place, Marked {
  /** The VM is at `host`. `holder`: that host, or null = nobody, everything that was done is finished. */
  readonly lease: { readonly epoch: number; readonly holder: string | null };
  /** Where the VM is expected. */
  readonly standby?: Place | undefined;
  /** Where it was, as long as the guest took nothing at `host`: it may go on there once that host has given the lease back. */
  readonly previous?: Place | undefined;
  /** What the guest left where it was stopped last, until a flush has made it good where it went. */
  readonly handOver?: HandOver | undefined;
  /** The host that left it, which knows better when it goes on there. Left out in records of an earlier release. */
  readonly leftBy?: string | undefined;
  /** Hosts that it was taken from. */
  readonly fenced?: readonly string[] | undefined;
}

/** The lease goes to `host`, under a new epoch. All I/O of the epoch before must have ended. Throws `in_use`, `fenced`, `denied`; for a `purpose` `ended`. */
export function granted<State extends Succession>(state: State, host: string, purpose?: LeasePurpose): State {
  checkNotFenced(state, host);
  const { lease, standby, previous } = state;
  if (lease.holder !== null && lease.holder !== host) throw heldElsewhere(state, host);
  const next = { lease: { epoch: lease.epoch + 1, holder: host }, ...markGranted(state, purpose) };
  if (lease.holder === host) return change(state, next);
  if (state.host === host) return change(state, { ...next, ...handOverFor(state, host) });
  if (standby?.host === host)
    return change(state, { ...next, ...placeOf(standby), previous: placeOf(state), standby: undefined });
  if (previous?.host !== host) throw stranger(state, host);
  if (isGivenBackUnchanged(state))
    return change(state, { ...next, ...placeOf(previous), previous: undefined, ...handOverFor(state, host) });
  throw new NetbusError(
    'in_use',
    `the VM went on at host ${state.host}, and what its guest did there is not known here: start it anew, attached with --takeover`,
  );
}

/**
 * `host` holds nothing any more, and all its I/O has ended. `unchanged`: its guest took nothing there, so that everything is as it was before it came.
 * What is known already may be told again; what the host where the guest was before says late is for the one where it is. Throws `fenced`, `denied`.
 */
export function quiesced<State extends Succession>(state: State, host: string, left: HandOver | 'unchanged'): State {
  checkNotFenced(state, host);
  const { lease, standby, previous, handOver } = state;
  if (state.host !== host) {
    // It could not say so before the guest was let go on elsewhere, because it never had the lease of it. What is told again changes nothing.
    if (previous?.host === host) {
      const told = left === 'unchanged' ? undefined : stored(left);
      return told === undefined || isDeepStrictEqual(told, handOver) ? state : change(state, keptFrom(host, told));
    }
    if (standby?.host === host && left === 'unchanged') return state;
    throw standby?.host === host
      ? new NetbusError('denied', `the VM is at host ${state.host}: host ${host} has nothing of it that could be left`)
      : stranger(state, host);
  }
  const released = { lease: { ...lease, holder: null } };
  if (left !== 'unchanged') return change(state, { ...released, ...keptFrom(host, stored(left)), previous: undefined });
  if (lease.holder === null) return state;
  // Where it is expected at yet another host, that host, this one and the one before may all go on: whoever asks first. The one before may have given that up.
  if (previous === undefined || standby !== undefined) return change(state, released);
  return change(state, { ...released, ...placeOf(previous), previous: undefined, standby: placeOf(state) });
}

/**
 * What `from` says that its guest left, brought by `to`, where the VM is expected: as if `from` had said it itself. It holds for the lease that `from` has
 * under just that epoch, so it is of no use a second time. Throws `fenced`, `denied`, or `ended` where that lease is over.
 */
export function presented<State extends Succession>(
  state: State,
  { from, to, epoch, left }: { from: string; to: string; epoch: number; left: HandOver },
): State {
  checkNotFenced(state, to);
  const { host, lease, standby } = state;
  if (standby?.host !== to) throw stranger(state, to);
  if (host === from && lease.holder === from && lease.epoch === epoch) return quiesced(state, from, left);
  checkNotFenced(state, from);
  throw new NetbusError(
    'ended',
    `host ${from} does not hold the lease under epoch ${epoch} (any more): what it left then is not for now`,
  );
}

/** The VM is expected at `place`, and no longer at another host where it was expected before. Throws `in_use` where it is there already. */
export function prepared<State extends Succession>(state: State, place: Place): State {
  const { host } = place;
  if (state.host === host) throw new NetbusError('in_use', `the VM is at host ${host} already: there is nothing to prepare`);
  checkUnmarked(state);
  return change(state, { standby: placeOf(place), fenced: without(state.fenced, host) });
}

/**
 * It is neither expected at `host` any more, nor goes back there; it need not have been so. What was given back unchanged keeps its way back: it says what
 * the guest took.
 */
export function unprepared<State extends Succession>(state: State, host: string): State {
  const { standby, previous } = state;
  const goesBack = previous?.host === host && !isGivenBackUnchanged(state);
  if (standby?.host !== host && !goesBack) return state;
  return change(state, {
    standby: standby?.host === host ? undefined : standby,
    previous: goesBack ? undefined : previous,
  });
}

/**
 * A new start of the VM at `place`: what was left elsewhere is void, and the hosts that had or expected it get nothing more. Throws `in_use` while
 * another host holds the lease.
 */
export function takenOver<State extends Succession>(state: State, place: Place): State {
  const { host } = place;
  const { lease, standby, previous } = state;
  if (lease.holder !== null && lease.holder !== host) throw needsFence(lease.holder);
  checkStartsAnew(state);
  const others = [state, standby, previous].flatMap((other) => (other && other.host !== host ? [other.host] : []));
  const fenced = others.reduce<readonly string[] | undefined>(withHost, without(state.fenced, host));
  return change(state, {
    ...{ ...placeOf(place), standby: undefined, previous: undefined },
    ...{ ...keptFrom(host, undefined), copy: undefined, fenced },
  });
}

/**
 * The guest has taken something at `host`, or cannot go back any more, and a flush there covers all that was acknowledged elsewhere before. Throws `ended` unless it holds the lease under
 * just that epoch.
 */
export function settled<State extends Succession>(state: State, host: string, epoch: number): State {
  checkNotFenced(state, host);
  if (state.host !== host) throw stranger(state, host);
  const { lease } = state;
  if (lease.holder !== host || lease.epoch !== epoch) {
    throw new NetbusError('ended', `host ${host} does not hold the lease under epoch ${epoch}: flush under the present one`);
  }
  return change(state, { previous: undefined, ...keptFrom(host, undefined) });
}

/** Whoever asked for it knows that `host` is dead: it holds nothing, and gets nothing until it attaches or prepares anew. All its I/O must have ended. */
export function fenced<State extends Succession>(state: State, host: string): State {
  const { lease, standby } = state;
  const isDone = isFenced(state, host) && lease.holder !== host && standby?.host !== host;
  if (isDone || !takesPart(state, host)) return state;
  return change(state, {
    ...(lease.holder === host && { lease: { ...lease, holder: null } }),
    standby: standby?.host === host ? undefined : standby,
    copy: state.host === host ? markOrphaned(state.copy) : state.copy,
    fenced: withHost(state.fenced, host),
  });
}

/** Throws `fenced`, or `denied`, where `host` may not even look. */
export function checkTakesPart(state: Succession, host: string): void {
  checkNotFenced(state, host);
  if (!takesPart(state, host)) throw stranger(state, host);
}

/** For whoever wants the lease of a host that may be dead. */
export function needsFence(holder: string): NetbusError {
  return new NetbusError(
    'in_use',
    `host ${holder} holds the lease: stop the VM there; if that host is dead, and you have made sure of it: netbus fence ${holder}`,
  );
}

export function isFenced({ fenced: hosts }: Succession, host: string): boolean {
  return hosts?.includes(host) ?? false;
}

/** It has the VM, expects it, or may get it back. */
export function takesPart({ host: own, standby, previous }: Succession, host: string): boolean {
  return own === host || standby?.host === host || previous?.host === host;
}

/** Throws `fenced` where `host` may not even ask. */
export function checkNotFenced(state: Succession, host: string): void {
  if (!isFenced(state, host)) return;
  throw new NetbusError(
    'fenced',
    `the device was taken from host ${host}, by a fence or a takeover: detach it there, and attach it again where the VM is to run`,
  );
}

/** The guest came to `host`, took nothing and was stopped again, and no fence was needed for that. */
function isGivenBackUnchanged(state: Succession): boolean {
  return state.lease.holder === null && state.previous !== undefined && !isFenced(state, state.host);
}

function heldElsewhere({ lease, standby }: Succession, host: string): NetbusError {
  const { holder } = lease;
  return new NetbusError(
    'in_use',
    standby?.host === host
      ? `host ${holder} holds the lease; it is free once the VM has stopped there`
      : `the VM runs at host ${holder}, which holds the lease: it goes on here only if it is stopped there before its guest has done anything`,
  );
}

function stranger(state: Succession, host: string): NetbusError {
  return new NetbusError('denied', `the attachment is not one of host ${host}: the VM is at host ${state.host}`);
}

/** Undefined where it says nothing that another host could go on by. */
function stored(left: HandOver): HandOver | undefined {
  const { queues, unflushed, failure } = left;
  return queues.length === 0 && unflushed === undefined && failure === undefined ? undefined : left;
}

function keptFrom(host: string, handOver: HandOver | undefined): Pick<Succession, 'handOver' | 'leftBy'> {
  return { handOver, leftBy: handOver && host };
}

/** It goes on where it was stopped, or begins: what was left for another host is of no use to anybody any more. Unless `host` is not where it took something last. */
function handOverFor({ previous, handOver, leftBy }: Succession, host: string): Pick<Succession, 'handOver' | 'leftBy'> {
  const isOwn = leftBy === undefined ? previous === undefined || previous.host === host : leftBy === host;
  return isOwn ? keptFrom(host, undefined) : { handOver, leftBy };
}

function placeOf({ host, membership }: Place): Place {
  return membership === undefined ? { host } : { host, membership };
}

function withHost(hosts: readonly string[] | undefined, host: string): readonly string[] {
  return [...(without(hosts, host) ?? []), host].slice(-FENCED_HOSTS_MAX);
}

function without(hosts: readonly string[] | undefined, host: string): readonly string[] | undefined {
  const rest = hosts?.filter((other) => other !== host) ?? [];
  return rest.length === 0 ? undefined : rest;
}

/** What is undefined is left out: that is how records are stored. A place has its membership or none, never the one of the host before it. */
export function change<State extends Succession>(state: State, changes: Partial<Succession>): State {
  const base = changes.host === undefined ? state : { ...state, membership: undefined };
  const entries = Object.entries({ ...base, ...changes }).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as State;
}
