/** The host of a device, as the job of a hot-swap deals with it: far away or this very one. What each call stores is in src/device/copy-mark.ts. */
import type { CopyEnd, CopyMark, CopyTarget } from '../../device/copy-mark.ts';
import type { Profile } from '../../device/profile.ts';
import type { DataExtents } from '../../device/source.ts';

export type { DataExtents } from '../../device/source.ts';

export interface FillRequest {
  readonly export: string;
  readonly from: CopyEnd;
  readonly generation: number;
  readonly vm: string;
  readonly name: string;
  /** What the guest's driver was promised: the new device has to give it. */
  readonly profile: Profile;
  readonly writeCache: boolean | null;
  readonly holdMs?: number | undefined;
  readonly fenceAfterMs?: number | undefined;
  /** Although the export has data on it, or is the stale copy of something. */
  readonly overwrite: boolean;
}

/** Every call rejects with a NetbusError: `unreachable` or `timeout` where the host does not answer. Each may be repeated. */
export interface CopyHost {
  /** Marks the old device `copied`. Rejects with `in_use` during a standby or another copy, `usage` where it is read-only. */
  begin(attachment: string, to: CopyTarget): Promise<{ generation: number; fenceAfterMs?: number | undefined }>;
  /** Step 1: makes the attachment of the new device. Rejects with what makes it unfit: `not_found`, `denied`, `in_use`, `usage`. `isBlank`: it reads as zeroes everywhere. */
  fill(request: FillRequest): Promise<{ attachment: string; depth: number; isBlank: boolean }>;
  /** Step 2; ends the session that fills it. */
  complete(attachment: string, generation: number): Promise<void>;
  /** Step 3; ends the guest's session, and waits for its I/O. Rejects with `ended` where the try was given up. */
  handOver(attachment: string, generation: number): Promise<void>;
  /** Step 5. */
  supersede(attachment: string, generation: number): Promise<void>;
  /** Gives the try up, at either end; of an attachment that is not there any more, too. `decided` where step 4 was taken: then nothing is given up. */
  abort(attachment: string, generation: number): Promise<{ decided: boolean }>;
  /** Of the old or the new device, at this moment. */
  mark(attachment: string): Promise<CopyMark | null>;
  /** From byte `from` on, as it was at some moment during the call: later writes are the caller's to know. */
  extents(attachment: string, from: number): Promise<DataExtents>;
}
