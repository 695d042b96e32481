/** The loads of the disk benchmark. A load's name says what it is: access, operation, block size, depth of each queue. */

export interface Load {
  readonly name: string;
  /** Share of reads, 0 to 100; the rest are writes. */
  readonly readPercent: number;
  readonly random: boolean;
  readonly blockBytes: number;
  /** Requests that each queue keeps in flight. */
  readonly depth: number;
}

const KIB = 1024;

/** What the benchmark runs where no load is named: one of each kind. */
export const smokeLoads = [
  'randread-4k-qd1',
  'randread-4k-qd32',
  'randwrite-4k-qd32',
  'read-128k-qd16',
  'write-128k-qd16',
] as const;

const NAME = /^(rand)?(read|write|mix(\d+))-(\d+)k-qd(\d+)$/;

const BLOCK_KIB_MAX = 1024;
/** A queue of 128 entries with indirect descriptors holds that many requests. */
export const DEPTH_MAX = 128;

/**
 * The load of a name such as `randread-4k-qd32`, `write-128k-qd16` or `randmix70-4k-qd8` (70 % reads). Any such name works, not
 * only those of the smoke benchmark.
 */
export function parseLoad(name: string): Load {
  const match = NAME.exec(name);
  if (match === null)
    throw new Error(`unknown load "${name}": expected (rand)read|write|mixPERCENT-SIZEk-qdDEPTH, as in randread-4k-qd32`);
  const blockKib = Number(match[4]);
  const depth = Number(match[5]);
  const readPercent = match[2] === 'read' ? 100 : match[2] === 'write' ? 0 : Number(match[3]);
  if (blockKib < 1 || blockKib > BLOCK_KIB_MAX) throw new Error(`load "${name}": a block has 1k to ${BLOCK_KIB_MAX}k`);
  if (depth < 1 || depth > DEPTH_MAX) throw new Error(`load "${name}": the depth is 1 to ${DEPTH_MAX}`);
  if (readPercent > 100) throw new Error(`load "${name}": the share of reads is 0 to 100 percent`);
  return { name, readPercent, random: match[1] !== undefined, blockBytes: blockKib * KIB, depth };
}
