import { setImmediate as turn } from 'node:timers/promises';
import { Batch, type Replies } from '../../src/device/batch.ts';
import { ChunkPool } from '../../src/device/chunk-pool.ts';
import type { Device, Guest, Quiesced } from '../../src/device/device.ts';
import type { NetbusError } from '../../src/device/errors.ts';
import { FreeRows, MessageTable } from '../../src/device/message-table.ts';
import type { Region } from '../../src/device/region.ts';
import { gather, scatter } from '../../src/device/segments.ts';

/** Large enough that the largest transfer has few segments. */
const CHUNK_BYTES = 32 * 1024;
/** Turns of the event loop after which a device that should be silent is believed to be. */
const SILENT_TURNS = 20;

export interface Request {
  readonly kind: number;
  readonly position?: number;
  readonly extent?: number;
  readonly flags?: number;
  readonly outBytes?: number;
  readonly inBytes?: number;
}

export interface Answer {
  readonly row: number;
  readonly status: number;
  readonly length: number;
}

/** A guest that knows the rules of the contract and notes each breach, since a guest must not throw. */
export class TestGuest implements Guest {
  readonly requests: MessageTable;
  readonly device: Device;
  readonly breaches: string[] = [];
  readonly answers: Answer[] = [];
  readonly events: { kind: number; argument: number }[] = [];
  readonly lostCauses: NetbusError[] = [];
  /** Rows that the device has, in the order in which it took them. */
  readonly lent = new Set<number>();
  /** Rows that the device has not taken yet. */
  readonly waiting: Batch;
  /** Events that are taken before `push` begins to refuse. */
  eventRoom = Number.POSITIVE_INFINITY;
  readyCalls = 0;
  /** Called inside `reply`, after the rows are free again. */
  onReply: (row: number, status: number) => void = () => {};
  readonly #free: FreeRows;
  readonly #pool: ChunkPool;
  #insideOwnCall = false;
  #mustBeSilent = false;
  #refused = false;
  #pushAfterReady = true;
  #wake: () => void = () => {};

  constructor(device: Device, region: Region, rows: number) {
    this.device = device;
    this.requests = new MessageTable(rows);
    this.waiting = new Batch(this.requests);
    this.#free = new FreeRows(rows);
    this.#pool = new ChunkPool(region, CHUNK_BYTES);
    this.#own(() => device.start(this));
  }

  /** Fills a row and queues it. */
  add(request: Request): number {
    const row = this.#free.take();
    if (row === -1) throw new Error('the test has used all rows');
    const { requests } = this;
    const outBytes = request.outBytes ?? 0;
    const inBytes = request.inBytes ?? 0;
    requests.kind[row] = request.kind;
    requests.flags[row] = request.flags ?? 0;
    requests.argument[row] = request.position ?? 0;
    requests.extent[row] = request.extent ?? Math.max(outBytes, inBytes);
    requests.outLength[row] = outBytes;
    requests.inLength[row] = inBytes;
    if (!this.#pool.take(requests.segments(row), outBytes + inBytes)) throw new Error('the test has used all memory');
    this.waiting.add(row);
    return row;
  }

  get rowsFree(): number {
    return this.#free.count;
  }

  fill(row: number, bytes: Uint8Array): void {
    scatter(this.requests.segments(row), 0, bytes, 0, bytes.length);
  }

  payload(row: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    gather(this.requests.segments(row), 0, bytes, 0, length);
    return bytes;
  }

  /** Pushes what is queued. Where not all is taken, the rest goes after `ready`, unless `pushRestAfterReady` is false. */
  pushAll(pushRestAfterReady = true): number {
    this.#pushAfterReady = pushRestAfterReady;
    const count = this.#own(() => this.device.push(this.waiting));
    if (!Number.isInteger(count) || count < 0 || count > this.waiting.count) {
      this.breaches.push(`push returned ${count} for ${this.waiting.count} rows`);
    }
    for (let i = 0; i < count; i++) this.lent.add(this.waiting.rows[i]);
    this.waiting.drop(count);
    this.#refused = this.waiting.count > 0;
    if (this.lent.size > this.device.depth) this.breaches.push(`${this.lent.size} requests held at depth ${this.device.depth}`);
    return count;
  }

  readyForEvents(): void {
    this.#own(() => this.device.ready());
  }

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    const quiesced = await this.#own(() => this.device.quiesce(signal));
    this.#mustBeSilent = true;
    return quiesced;
  }

  close(): Promise<void> {
    this.#mustBeSilent = true;
    return this.#own(() => this.device.close());
  }

  /** Resolves as soon as `condition` holds; looked at after each call of the device. The test's timeout is the bound. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  answered(): Promise<void> {
    return this.until(() => this.lent.size === 0 && this.waiting.count === 0);
  }

  /** Gives a device that should say nothing the chance to break the rule. */
  async silence(): Promise<void> {
    for (let i = 0; i < SILENT_TURNS; i++) await turn();
  }

  reply(replies: Replies): void {
    this.#hear('reply');
    if (replies.count === 0) this.breaches.push('an empty reply');
    const rows = Array.from(replies.rows.subarray(0, replies.count));
    const statuses = Array.from(replies.statuses.subarray(0, replies.count));
    rows.forEach((row, i) => {
      if (!this.lent.delete(row)) this.breaches.push(`a reply to row ${row}, which the device does not have`);
      this.answers.push({ row, status: statuses[i], length: replies.lengths[i] });
    });
    // The guest may push inside `reply`, so the rows are looked at again afterwards: they must stand until it returns.
    rows.forEach((row, i) => {
      this.onReply(row, statuses[i]);
    });
    if (rows.some((row, i) => replies.rows[i] !== row)) this.breaches.push('replies changed while they were read');
    for (const row of rows) {
      this.#pool.give(this.requests.segments(row));
      this.#free.give(row);
    }
    this.#wake();
  }

  push(events: Batch): number {
    this.#hear('push');
    const count = Math.min(events.count, this.eventRoom);
    this.eventRoom -= count;
    for (let i = 0; i < count; i++) {
      const row = events.rows[i];
      this.events.push({ kind: events.table.kind[row], argument: events.table.argument[row] });
    }
    this.#wake();
    return count;
  }

  ready(): void {
    this.#hear('ready');
    this.readyCalls++;
    if (this.#refused && this.#pushAfterReady) this.pushAll();
    this.#wake();
  }

  lost(cause: NetbusError): void {
    this.#hear('lost');
    this.lostCauses.push(cause);
    if (this.lostCauses.length > 1) this.breaches.push('lost was told twice');
    this.#wake();
  }

  #hear(call: string): void {
    if (this.#insideOwnCall) this.breaches.push(`${call} was called inside the guest's own call`);
    if (this.#mustBeSilent) this.breaches.push(`${call} was called after a cut or close`);
  }

  #own<T>(call: () => T): T {
    const before = this.#insideOwnCall;
    this.#insideOwnCall = true;
    try {
      return call();
    } finally {
      this.#insideOwnCall = before;
    }
  }
}
