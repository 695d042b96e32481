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
 * there. Pure: each function takes the state and gives the next one, or throws why not; the same object means that nothing changes, so whoever heard no answer may ask
 * again.
 */

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

export type CopyMark =
  /** Of the old device. */
  | { readonly state: (typeof sourceStates)[number]; readonly generation: number; readonly to: CopyTarget }
  /** Of the new one. */
  | { readonly state: (typeof targetStates)[number]; readonly generation: number; readonly from: CopyEnd };

/** What a lease is asked for during a swap. Left out: for the guest, of a device that is in use. */
export type LeasePurpose =
  /** To copy into a device that is `filling` under this generation. */
  | { readonly fills: number }
  /** Step 4, and for the guest; again after it was granted once, it is an ordinary one. */
  | { readonly decides: number };
