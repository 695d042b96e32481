/** A guest that changes random places of its disk all the time, and knows what has to be there. */
import assert from 'node:assert/strict';
import type { VhostUserFrontend } from '../vhost-user/frontend.ts';
import { waitFor } from '../wait.ts';

const BLOCK_BYTES = 4096;
const SECTORS_PER_BLOCK = BLOCK_BYTES / 512;
/** Generous: it ends a test that hangs and says nothing about speed. */
const WAIT_MS_MAX = 60_000;

export class DiskWriter {
  /** What was acknowledged. */
  readonly model: Buffer;
  readonly #frontend: VhostUserFrontend;
  #state: number;
  #running: Promise<void> | undefined;
  #isRunning = false;
  #failure: unknown;
  #rounds = 0;

  constructor(frontend: VhostUserFrontend, { bytes, seed }: { bytes: number; seed: number }) {
    this.#frontend = frontend;
    this.model = Buffer.alloc(bytes);
    this.#state = seed || 1;
  }

  /** Changes the disk until `pause` or `stop`. */
  run(): void {
    this.#isRunning = true;
    this.#running = (async () => {
      while (this.#isRunning) await this.#change();
    })().catch((thrown: unknown) => {
      this.#failure = thrown;
    });
  }

  /** So many more changes are answered. Rejects where the guest got an error, or read what it had not written. */
  async write(changes: number): Promise<void> {
    if (this.#running === undefined) {
      for (let i = 0; i < changes; i++) await this.#change();
      return;
    }
    const until = this.#rounds + changes;
    await waitFor('the guest goes on', () => this.#failure !== undefined || this.#rounds >= until, WAIT_MS_MAX);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** A few more changes are answered. */
  settle(): Promise<void> {
    return this.write(5);
  }

  reconnect(): Promise<void> {
    return this.#frontend.reconnect();
  }

  /** All that was changed is flushed. */
  async pause(): Promise<void> {
    this.#isRunning = false;
    await this.#running;
    this.#running = undefined;
    if (this.#failure !== undefined) throw this.#failure;
    await this.#frontend.flush();
  }

  async stop(): Promise<void> {
    this.#isRunning = false;
    await this.#running;
    this.#running = undefined;
    await this.#frontend.flush().catch(() => {});
    this.#frontend.close();
  }

  /** Ends it at once, whatever it waits for. */
  kill(): void {
    this.#isRunning = false;
    this.#frontend.close();
  }

  async #change(): Promise<void> {
    const blocks = 1 + (this.#random() % 8);
    const block = this.#random() % (this.model.length / BLOCK_BYTES - blocks);
    const position = block * BLOCK_BYTES;
    const end = position + blocks * BLOCK_BYTES;
    const sector = block * SECTORS_PER_BLOCK;
    const sectors = blocks * SECTORS_PER_BLOCK;
    switch (this.#random() % 8) {
      case 0:
        await this.#frontend.writeZeroes({ sector, sectors });
        this.model.fill(0, position, end);
        break;
      case 1:
        await this.#frontend.flush();
        break;
      case 2:
        assert.deepEqual(Buffer.from(await this.#frontend.read(sector, end - position)), this.model.subarray(position, end));
        break;
      default: {
        const data = Buffer.alloc(end - position, 1 + (this.#random() % 255));
        await this.#frontend.write(sector, data);
        data.copy(this.model, position);
      }
    }
    this.#rounds++;
  }

  /** Xorshift. */
  #random(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }
}
