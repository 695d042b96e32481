/**
 * The steps of a hot-swap at the two devices' hosts, in the order of the table in copy-mark.ts; step 4 is a grant (`granted` in succession.ts). Pure: each function takes
 * the state and gives the next one, or throws why not. The same object means that nothing changes, so whoever heard no answer may ask again.
 */
import { type CopyMark, type CopyTarget, isTarget, markText, tryIsOver } from './copy-mark.ts';
import { NetbusError } from './errors.ts';
import { change, checkNotFenced, type Succession } from './succession.ts';

/** An attachment that a swap can be about. */
export interface Swappable extends Succession {
  /** The highest that was given to a try. */
  readonly generation: number;
}

/**
 * The VM's host begins to copy the device to `to`, under a generation of its own: another one each time that it asks, so that nothing late of an earlier try is of this
 * one. Throws `in_use` where the guest is about to move, or another swap is about the device.
 */
export function begun<State extends Swappable>(state: State, host: string, to: CopyTarget): State {
  checkHasVm(state, host);
  const { copy, standby, previous, lease, handOver } = state;
  if (copy !== undefined && !(copy.state === 'copied' && isSame(copy.to, to)))
    throw new NetbusError('in_use', `${markText(copy)}: end that swap first`);
  if (standby !== undefined) {
    throw new NetbusError(
      'in_use',
      `the VM is expected at host ${standby.host}: swap the device when it has moved, or is not expected`,
    );
  }
  if (previous !== undefined || (lease.holder !== null && handOver !== undefined)) {
    throw new NetbusError(
      'in_use',
      'the VM has just come from another host, and what it left there is not settled: try again in a moment',
    );
  }
  const generation = state.generation + 1;
  return { ...state, generation, copy: { state: 'copied', generation, to } };
}

/** Step 2. The session that filled it, and its I/O, must have ended. Throws `ended` where the try was given up. */
export function completed<State extends Succession>(state: State, host: string, generation: number): State {
  checkHasVm(state, host);
  const { copy, swapped } = state;
  if (swapped?.generation === generation) return state;
  if (copy === undefined || !isTarget(copy) || copy.generation !== generation || copy.state === 'aborted')
    throw tryIsOver(generation, copy);
  return copy.state === 'complete' ? state : marked(state, { ...copy, state: 'complete' }, null);
}

/** Step 3. The guest's session, and its I/O, must have ended. Throws `ended` where the try was given up, also one that nobody here has heard of. */
export function handedOver<State extends Succession>(state: State, host: string, generation: number): State {
  checkHasVm(state, host);
  const { copy } = state;
  if (copy === undefined || isTarget(copy) || copy.generation !== generation) throw tryIsOver(generation, copy);
  return copy.state === 'copied' ? marked(state, { ...copy, state: 'handing-over' }) : state;
}

/** Step 5, by the VM's host or by whoever learned from the new device's host that step 4 was taken. Throws `ended` where it is not about to be handed over. */
export function superseded<State extends Succession>(state: State, generation: number): State {
  const { copy } = state;
  if (copy === undefined || isTarget(copy) || copy.generation !== generation || copy.state === 'copied')
    throw tryIsOver(generation, copy);
  return copy.state === 'superseded' ? state : marked(state, { ...copy, state: 'superseded' }, null);
}

/**
 * The try is given up, as far as that is still possible: `isDecided` says what came of it. At the old device the guest may go on then, so the new one's host must have
 * said before that it was given up there.
 */
export function givenUp<State extends Succession>(state: State, generation: number): State {
  const { copy } = state;
  if (copy?.generation !== generation) return state;
  switch (copy.state) {
    case 'copied':
    case 'handing-over':
      return change(state, { copy: undefined });
    case 'filling':
    case 'complete':
      return marked(state, { ...copy, state: 'aborted' }, null);
    case 'superseded':
    case 'aborted':
      return state;
  }
}

/** Step 4 was taken under this generation. */
export function isDecided({ copy, swapped }: Succession, generation: number): boolean {
  return swapped?.generation === generation || (copy?.state === 'superseded' && copy.generation === generation);
}

/** `next` with the time of its mark, where that is another one than before. */
export function stamped<State extends Succession>(state: State, next: State, at: string): State {
  const { copy } = next;
  return copy === undefined || copy === state.copy ? next : { ...next, copy: { ...copy, since: at } };
}

/** Throws `fenced`, or `denied`: whatever becomes of a swap is the business of the host that has the VM. */
export function checkHasVm(state: Succession, host: string): void {
  checkNotFenced(state, host);
  if (state.host !== host) throw new NetbusError('denied', `the VM is at host ${state.host}, not at ${host}`);
}

function marked<State extends Succession>(state: State, copy: CopyMark, holder = state.lease.holder): State {
  return change(state, { copy, lease: { ...state.lease, holder } });
}

function isSame(one: CopyTarget, other: CopyTarget): boolean {
  return one.host === other.host && one.export === other.export;
}
