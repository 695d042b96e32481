/**
 * A piece of memory that payloads live in: a guest's RAM, or a staging area of our own. Places are named (region, offset,
 * length), so that a system call can use them without a copy; `handle` is what such a call takes.
 *
 * A guest's region changes while it is looked at. Copy, check, use.
 */
export interface Region {
  /** Name of the mapping for system calls; unique in the process for as long as the region lives. */
  readonly handle: number;
  /** Bytes. */
  readonly size: number;
  /**
   * A view straight over [offset, offset + length). Valid while the region is mapped, which whoever lends it guarantees until
   * the reply (or until `push` returns, for messages without one). The range must be inside the region and at most 1 GiB.
   */
  bytes(offset: number, length: number): Uint8Array;
}
