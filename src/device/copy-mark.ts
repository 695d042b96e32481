/**
 * The marks of a hot-swap on the two attachments that it is about, so that a stale copy can never come back: what stands behind a virtual device is replaced
 * in five steps, and each of them is on stable storage at the host of the device concerned before the next one is taken.
 *
 * | step | where | the mark becomes |
 * |---|---|---|
 * | begin | old device | none -> `copied`: a job copies it; generation g is given to this try, and to no other |
 * | 1 | new device | `filling`: nobody but the job may use it |
 * | 2 | new device | `complete`: it has everything, on stable storage, and is not in use |
 * | 3 | old device | `handing-over`: it takes no I/O any more |
 * | 4 | new device | none: it is in use. This is the decision |
 * | 5 | old device | `superseded` |
 *
 * Instead of step 4 the try may be given up, as long as the new device's host stores `aborted` first; then the old device's host forgets its mark, and the guest goes on
 * there. The steps themselves are in copy-succession.ts; here is what the other rules of an attachment ask a mark. Pure.
 */
import { NetbusError } from './errors.ts';

/** A device, and its attachment for the virtual device that is swapped. */
export interface CopyEnd {
  readonly host: string;
  readonly export: string;
  readonly attachment: string;
}

/** Where the new device is, before it has an attachment. */
export type CopyTarget = Omit<CopyEnd, 'attachment'>;

export const sourceStates = ['copied', 'handing-over', 'superseded'] as const;
export const targetStates = ['filling', 'complete', 'aborted'] as const;

/** Of the old device. */
export interface SourceMark {
  readonly state: (typeof sourceStates)[number];
  readonly generation: number;
  readonly to: CopyTarget;
  /** ISO time: since when the state is what it is. */
  readonly since?: string | undefined;
}

/** Of the new one. */
export interface TargetMark {
  readonly state: (typeof targetStates)[number];
  readonly generation: number;
  readonly from: CopyEnd;
  readonly since?: string | undefined;
}

export type CopyMark = SourceMark | TargetMark;

/** What step 4 leaves for good on a device that was swapped in: under which generation, and for which one. */
export interface Swapped {
  readonly generation: number;
  readonly from: CopyEnd;
}

/** What a lease is asked for during a swap. Left out: for the guest, of a device that is in use. */
export type LeasePurpose =
  /** To copy into a device that is `filling` under this generation. */
  | { readonly fills: number }
  /** Step 4, and for the guest; again after it was granted once, it is an ordinary one. */
  | { readonly decides: number };

/** What the lease's rules need to know of an attachment. */
export interface Marked {
  readonly copy?: CopyMark | undefined;
  readonly swapped?: Swapped | undefined;
}

export function isTarget(mark: CopyMark): mark is TargetMark {
  return 'from' in mark;
}

/**
 * What a grant for `purpose` changes: the mark is gone with step 4. Throws `in_use` where the device is not the guest's to use, `ended` where the try that the purpose
 * is of was given up, or is over.
 */
export function markGranted({ copy, swapped }: Marked, purpose: LeasePurpose | undefined): Marked {
  if (purpose === undefined) {
    if (copy === undefined || copy.state === 'copied') return {};
    throw inTheWay(copy);
  }
  if ('fills' in purpose) {
    if (copy?.state === 'filling' && copy.generation === purpose.fills) return {};
    throw tryIsOver(purpose.fills, copy);
  }
  const { decides } = purpose;
  if (swapped?.generation === decides && (copy === undefined || copy.state === 'copied')) return {};
  if (copy?.state === 'complete' && copy.generation === decides) {
    return { copy: undefined, swapped: { generation: decides, from: copy.from } };
  }
  throw tryIsOver(decides, copy);
}

/** The mark once the VM's host is known to be dead: whoever may decide is not there any more, so what is undecided never will be. */
export function markOrphaned(mark: CopyMark | undefined): CopyMark | undefined {
  return mark?.state === 'filling' || mark?.state === 'complete' ? { ...mark, state: 'aborted' } : mark;
}

/** Throws `in_use` where the guest may not start anew on this device; of a copy that was begun nothing is left, its generation stays used. */
export function checkStartsAnew({ copy }: Marked): void {
  if (copy !== undefined && copy.state !== 'copied') throw inTheWay(copy);
}

/** Throws `in_use` while a swap is about this device, or was. */
export function checkUnmarked({ copy }: Marked): void {
  if (copy !== undefined) throw inTheWay(copy);
}

/** What it says, for people: `it is being copied to m2/fast`. */
export function markText(mark: CopyMark): string {
  const other = isTarget(mark) ? mark.from : mark.to;
  const device = `${other.host}/${other.export}`;
  switch (mark.state) {
    case 'copied':
      return `it is being copied to ${device}, for a swap`;
    case 'handing-over':
      return `a swap is handing over to ${device}, and which of the two counts is not decided yet`;
    case 'superseded':
      return `a swap has replaced it by ${device}: what is on it is stale`;
    case 'filling':
      return `a swap is filling it from ${device}: it has a part of that`;
    case 'complete':
      return `a swap has filled it from ${device}, and which of the two counts is not decided yet`;
    case 'aborted':
      return `a swap from ${device} to it was given up: it has a stale copy, or a part of one`;
  }
}

function inTheWay(mark: CopyMark): NetbusError {
  return new NetbusError('in_use', markText(mark), { lasting: true });
}

/** What a step says that comes too late, or of another try. */
export function tryIsOver(generation: number, mark: CopyMark | undefined): NetbusError {
  const now =
    mark === undefined ? 'no swap is about this device (any more)' : `${markText(mark)} (generation ${mark.generation})`;
  return new NetbusError('ended', `generation ${generation} of the swap is over here: ${now}`);
}
