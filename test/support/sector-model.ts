/** What a disk may contain, sector by sector, when several writes to the same place may be on their way at a time. */

const SECTOR_BYTES = 512;

/** What may be in a sector: one of these bytes, all over it; undefined: anything, behind a discard. */
type Content = Set<number> | undefined;

interface Write {
  readonly first: number;
  readonly last: number;
  readonly byte: number | undefined;
  /** Those that were on their way at the same time. */
  readonly beside: Write[];
}

export class SectorModel {
  readonly mistakes: string[] = [];
  readonly #content: Content[] = [];
  /** Grows with each write that begins or ends there. */
  readonly #changes: number[] = [];
  readonly #writes = new Map<number, Write>();
  readonly #reads = new Map<number, { first: number; changes: number[] }>();

  /** Each sector is full of one byte. */
  constructor(memory: Buffer) {
    for (let at = 0; at < memory.length; at += SECTOR_BYTES) {
      this.#content.push(new Set([memory[at]]));
      this.#changes.push(0);
    }
  }

  /** A write of `byte` all over begins, under a number of the test's own; undefined: a discard. */
  writes(row: number, position: number, length: number, byte: number | undefined): void {
    const first = position / SECTOR_BYTES;
    const write: Write = { first, last: first + length / SECTOR_BYTES - 1, byte, beside: [] };
    for (const other of this.#writes.values()) {
      if (other.first > write.last || write.first > other.last) continue;
      other.beside.push(write);
      write.beside.push(other);
    }
    this.#writes.set(row, write);
    for (let sector = first; sector <= write.last; sector++) this.#changes[sector]++;
  }

  /** It was acknowledged. */
  wasWritten(row: number): void {
    const write = this.#writes.get(row);
    if (write === undefined) return;
    this.#writes.delete(row);
    for (let sector = write.first; sector <= write.last; sector++) {
      this.#changes[sector]++;
      const all = [write, ...write.beside.filter(({ first, last }) => first <= sector && sector <= last)];
      this.#content[sector] = all.some(({ byte }) => byte === undefined) ? undefined : new Set(all.map(({ byte }) => byte!));
    }
  }

  reads(row: number, position: number, length: number): void {
    const first = position / SECTOR_BYTES;
    const changes = this.#changes.slice(first, first + length / SECTOR_BYTES);
    // What is being written now may be either.
    for (const write of this.#writes.values()) {
      for (let sector = write.first; sector <= write.last; sector++) if (sector >= first) changes[sector - first] = -1;
    }
    this.#reads.set(row, { first, changes: changes.slice(0, length / SECTOR_BYTES) });
  }

  wasRead(row: number, bytes: Uint8Array): void {
    const { first, changes } = this.#reads.get(row)!;
    this.#reads.delete(row);
    changes.forEach((change, i) => {
      if (change !== this.#changes[first + i]) return;
      const wrong = this.#wrong(first + i, bytes.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES));
      if (wrong !== undefined) this.mistakes.push(`a read: ${wrong}`);
    });
  }

  /** What is wrong with this content, while nothing is being written. */
  check(memory: Buffer): string | undefined {
    for (let sector = 0; sector < this.#content.length; sector++) {
      const isChanging = [...this.#writes.values()].some(({ first, last }) => first <= sector && sector <= last);
      const bytes = memory.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
      const wrong = isChanging ? undefined : this.#wrong(sector, bytes);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  }

  #wrong(sector: number, bytes: Uint8Array): string | undefined {
    const content = this.#content[sector];
    if (content === undefined) return undefined;
    const isOne = content.has(bytes[0]) && bytes.every((byte) => byte === bytes[0]);
    return isOne ? undefined : `sector ${sector} has ${bytes[0]}, not ${[...content].join(' or ')}`;
  }
}
