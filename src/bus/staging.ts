import type { Region } from '../device/region.ts';

/** Memory for payloads on their way, injected: the addon's regions in the daemon, plain memory in tests. */
export interface StagingRegion extends Region {
  /** Gives the memory back. Nobody may use the region afterwards, the kernel's I/O included. Twice is once. */
  release(): void;
}

/** Reserves `bytes` of zeroed memory; pages that are never touched should cost nothing. Throws `limit` or what the system says. */
export type AllocateStaging = (bytes: number) => StagingRegion;

/**
 * Staging is handed out in chunks: 32 KiB lets the largest request with the largest reply fit a segment list, and a 4 KiB request
 * touches one page of its chunk.
 */
export const STAGING_CHUNK_BYTES = 32 * 1024;

/** Staging that any use of a session's credit fits into: each of `depth` requests may waste a part of its last chunk, in both directions. */
export function stagingBytes(depth: number, creditBytes: number): number {
  const chunks = Math.ceil(creditBytes / STAGING_CHUNK_BYTES) + 2 * depth;
  return chunks * STAGING_CHUNK_BYTES;
}
