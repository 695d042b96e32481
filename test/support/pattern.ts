/** Bytes that say where they belong: the same seed gives the same bytes, and no two places look alike. */

/** Fills `target` with words that depend on `seed` and their place, which begins at byte `position` (a multiple of 4). */
export function fillPattern(target: Uint8Array, seed: number, position: number): void {
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  for (let at = 0; at + 4 <= target.length; at += 4) view.setUint32(at, mix((position + at) / 4, seed), true);
}

/** `bytes` bytes (a multiple of 4) of the pattern of `seed`. */
export function pattern(bytes: number, seed: number, position = 0): Buffer {
  const target = Buffer.alloc(bytes);
  fillPattern(target, seed, position);
  return target;
}

/** A 32-bit hash of two numbers (the finalizer of MurmurHash3). */
function mix(word: number, seed: number): number {
  let hash = Math.imul(word ^ seed, 0x9e3779b1) + seed;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
