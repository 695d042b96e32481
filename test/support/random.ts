/** Seeded random numbers for tests (mulberry32): the seed in a failure's message brings the failure back. */
export interface SeededRandom {
  /** An integer in [0, end). */
  below(end: number): number;
  bytes(length: number): Buffer;
}

export function seededRandom(seed: number): SeededRandom {
  let state = seed >>> 0;
  const below = (end: number) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end);
  };
  const bytes = (length: number) => Buffer.from(Uint8Array.from({ length }, () => below(256)));
  return { below, bytes };
}
