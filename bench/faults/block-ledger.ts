/**
 * What a disk has to hold, block by block, after any fault: a block's content names the block and the number of the write that put it
 * there, so that a write that was lost and an old one that came back are both seen.
 */
import { fillPattern } from '../../test/support/pattern.ts';

export const BLOCK_BYTES = 4096;

/** Words at a block's start: magic, the block, the number of the write. */
const MAGIC = 0x6e627573;
const HEADER_WORDS = 3;
/** Each sector carries them, so that a block of two writes is told apart from one of either. */
const SECTOR_BYTES = 512;

/** How a block differs from what was acknowledged. */
export type Finding =
  /** An acknowledged write is not there: an older content is, or none. */
  | {
      readonly what: 'lost';
      readonly block: number;
      readonly expected: number;
      readonly found: number;
      readonly flushed: boolean;
    }
  /** A newer content had been read from the disk before, and now an older one is there. */
  | {
      readonly what: 'stale';
      readonly block: number;
      readonly expected: number;
      readonly found: number;
      readonly flushed: boolean;
    }
  /** It is no content of this block at all, or parts of several. */
  | { readonly what: 'corrupt'; readonly block: number; readonly expected: number };

interface Block {
  /** The number of the latest write that was acknowledged; 0: none, all zeroes. */
  acknowledged: number;
  /** The newest that a flush, acknowledged too, was sent after. */
  flushed: number;
  /** The newest that was read back. */
  seen: number;
  /** A write without an answer: it may be there or not. */
  pending: number | undefined;
  /** Writes that were answered with an error, since the latest that was not: each may be there or not. */
  failed: number[];
  /** Anything may be there until the next write. */
  anything: boolean;
}

const EMPTY: Omit<Block, 'failed'> = { acknowledged: 0, flushed: 0, seen: 0, pending: undefined, anything: false };

export class BlockLedger {
  readonly blocks: number;
  readonly #seed: number;
  readonly #states: Block[];
  #writes = 0;

  constructor(blocks: number, seed: number) {
    this.blocks = blocks;
    this.#seed = seed;
    this.#states = Array.from({ length: blocks }, () => ({ ...EMPTY, failed: [] }));
  }

  /** Writes so far. */
  get writes(): number {
    return this.#writes;
  }

  /** Whether a write to the block is on its way: a second one beside it would have no order. */
  isPending(block: number): boolean {
    return this.#states[block].pending !== undefined;
  }

  /** A write to `block` is about to be sent: its content. */
  beginWrite(block: number): { readonly sequence: number; readonly data: Uint8Array } {
    const state = this.#states[block];
    if (state.pending !== undefined) throw new Error(`block ${block} has a write on its way`);
    const sequence = ++this.#writes;
    state.pending = sequence;
    return { sequence, data: this.#content(block, sequence) };
  }

  /** The write on its way was acknowledged. */
  acknowledge(block: number): void {
    const state = this.#states[block];
    state.acknowledged = state.pending!;
    state.pending = undefined;
    state.failed = [];
    state.anything = false;
  }

  /** The write on its way was answered with an error. */
  fail(block: number): void {
    const state = this.#states[block];
    state.failed.push(state.pending!);
    state.pending = undefined;
  }

  /** The block was discarded, or found wrong and told: anything may be there until it is written. */
  forget(block: number): void {
    const { pending } = this.#states[block];
    this.#states[block] = { ...EMPTY, pending, failed: [], anything: true };
  }

  /** A flush is about to be sent; the function to call when it was acknowledged: what it covers is on stable storage. */
  beginFlush(): () => void {
    const covered = this.#states.map(({ acknowledged }) => acknowledged);
    return () => {
      for (const [block, sequence] of covered.entries()) {
        const state = this.#states[block];
        if (sequence > state.flushed && sequence <= state.acknowledged) state.flushed = sequence;
      }
    };
  }

  /** Compares what a read of `block` gave, with no write to it on its way since before the read; undefined where it is right. */
  check(block: number, data: Uint8Array): Finding | undefined {
    const state = this.#states[block];
    if (state.anything) return undefined;
    const found = this.#sequenceOf(block, data);
    const expected = state.acknowledged;
    if (found === undefined) return { what: 'corrupt', block, expected };
    if (found === expected || found === state.pending || state.failed.includes(found)) {
      state.seen = Math.max(state.seen, found);
      return undefined;
    }
    const what = found < expected && state.seen >= expected ? 'stale' : 'lost';
    return { what, block, expected, found, flushed: state.flushed >= expected };
  }

  /** The write whose content this is; 0 for zeroes; undefined where it is none of this block's. */
  #sequenceOf(block: number, data: Uint8Array): number | undefined {
    const words = new Uint32Array(data.buffer, data.byteOffset, HEADER_WORDS);
    if (words[0] === 0 && data.every((byte) => byte === 0)) return 0;
    if (words[0] !== MAGIC || words[1] !== block) return undefined;
    return Buffer.compare(this.#content(block, words[2]), data) === 0 ? words[2] : undefined;
  }

  #content(block: number, sequence: number): Uint8Array {
    const data = new Uint8Array(BLOCK_BYTES);
    fillPattern(data, this.#seed ^ sequence, block * BLOCK_BYTES);
    for (let at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
      new Uint32Array(data.buffer, at, HEADER_WORDS).set([MAGIC, block, sequence]);
    }
    return data;
  }
}

/** A finding in words. */
export function describeFinding(finding: Finding): string {
  switch (finding.what) {
    case 'corrupt':
      return `block ${finding.block} is no content of its own; write ${finding.expected} was acknowledged`;
    case 'lost':
    case 'stale': {
      const { block, expected, found, flushed } = finding;
      const state = flushed ? 'acknowledged and flushed' : 'acknowledged, not flushed';
      const was = found === 0 ? 'zeroes are' : `write ${found} is`;
      return `block ${block}: write ${expected} was ${state}, and ${was} there${finding.what === 'stale' ? ', although the newer one had been read' : ''}`;
    }
  }
}
