/** What a writer in the guest (test/guest/image/block-writer.c) says of its work, kept outside of the guest: the ledger of what its disk has to hold. */
import { closeSync, openSync, readSync } from 'node:fs';
import { BLOCK_BYTES, BlockLedger, describeFinding } from '../faults/block-ledger.ts';

/** The writer's port. */
export const WRITER_PORT = 0x4e9;
/** A line is far shorter. */
const LINE_CHARACTERS_MAX = 64;
const WRITERS = 4;
const WRITER_PAUSE_US = 3_000;

export class BlockRecorder {
  readonly ledger: BlockLedger;
  /** Writes and flushes that were answered. */
  acknowledged = 0;
  /** And with an error. */
  errors = 0;
  /** By writer, the flush that has no answer. */
  readonly #flushes = new Map<number, () => void>();
  #text = '';
  /** What it said that no writer says; from then on nothing is known. */
  problem: string | undefined;

  constructor(blocks: number, seed: number) {
    this.ledger = new BlockLedger(blocks, seed);
  }

  /** The next bytes of the port. */
  feed(data: Buffer): void {
    if (this.problem !== undefined) return;
    const lines = (this.#text + data.toString('latin1')).split('\n');
    this.#text = lines.pop()!;
    try {
      for (const line of lines) this.#line(line);
      if (this.#text.length > LINE_CHARACTERS_MAX) throw new Error(`the writer said ${JSON.stringify(this.#text)}`);
    } catch (thrown) {
      this.problem = (thrown as Error).message;
    }
  }

  #line(line: string): void {
    const [, what, number, sequence] = /^([waefgh]) (\d+)(?: (\d+))?$/.exec(line) ?? [];
    const at = Number(number);
    switch (what) {
      case 'w': {
        const begun = this.ledger.beginWrite(at);
        if (begun.sequence !== Number(sequence)) throw new Error(`the writer's write ${sequence} is number ${begun.sequence}`);
        return;
      }
      case 'a':
        this.ledger.acknowledge(at);
        this.acknowledged++;
        return;
      case 'e':
        this.ledger.fail(at);
        this.errors++;
        return;
      case 'f':
        this.#flushes.set(at, this.ledger.beginFlush());
        return;
      case 'g':
        this.#flushes.get(at)?.();
        this.acknowledged++;
        return;
      case 'h':
        this.errors++;
        return;
      default:
        throw new Error(`the writer said ${JSON.stringify(line)}`);
    }
  }
}

/** The command line of the writer, in the guest, for the blocks from byte `firstByte` of its first disk on. */
export function writerCommand(firstByte: number, blocks: number, seed: number): string {
  const writer = `/sbin/block-writer /dev/vda ${firstByte / BLOCK_BYTES} ${blocks} ${seed} ${WRITERS} ${WRITER_PAUSE_US}`;
  return `(${writer}; touch /run/block-writer.ended) </dev/null >/run/block-writer.log 2>&1 &`;
}

/** Ends it: what it was told is on the disk. */
export const WRITER_END = 'killall block-writer; until [ -e /run/block-writer.ended ]; do usleep 20000; done';

/** What of the writer's is not in the image, from byte `firstByte` on, as it was told: it has ended, and all daemons are out of the way. */
export interface ImageFindings {
  readonly corruptions: number;
  readonly lostWrites: number;
  readonly notes: readonly string[];
}

export function checkImage({ ledger, errors, problem }: BlockRecorder, imagePath: string, firstByte: number): ImageFindings {
  const notes = problem === undefined ? [] : [problem];
  if (errors > 0) notes.push(`${errors} requests of the writer failed`);
  let corruptions = errors + (problem === undefined ? 0 : 1);
  let lostWrites = 0;
  const image = openSync(imagePath, 'r');
  const data = new Uint8Array(BLOCK_BYTES);
  for (let block = 0; block < ledger.blocks; block++) {
    readSync(image, data, 0, BLOCK_BYTES, firstByte + block * BLOCK_BYTES);
    const finding = ledger.check(block, data);
    if (finding === undefined) continue;
    if (finding.what === 'corrupt') corruptions++;
    else lostWrites++;
    notes.push(describeFinding(finding));
  }
  closeSync(image);
  return { corruptions, lostWrites, notes };
}
