/** What a writer in the guest (test/guest/image/block-writer.c) says of its work, kept outside of the guest: the ledger of what its disk has to hold. */
import { BlockLedger } from '../faults/block-ledger.ts';

/** The writer's port. */
export const WRITER_PORT = 0x4e9;
/** A line is far shorter. */
const LINE_CHARACTERS_MAX = 64;

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
