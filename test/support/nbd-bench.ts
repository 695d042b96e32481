/** The NBD backend on the fake server, with a guest that knows the rules. */
import assert from 'node:assert/strict';
import { NativeRegion } from '../../native/region.ts';
import type { Loss } from '../../src/backends/nbd/connection.ts';
import { type NbdSourceOptions, openNbdSource } from '../../src/backends/nbd/nbd.ts';
import type { BackendSource } from '../../src/device/source.ts';
import { ManualClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { TestGuest } from '../compliance/test-guest.ts';
import { FakeNbdServer } from './fake-nbd-server.ts';

export class NbdBench {
  readonly server = new FakeNbdServer();
  readonly clock = new ManualClock();
  readonly region = NativeRegion.allocate(16 * 1024 * 1024);
  readonly losses: Loss[] = [];
  flushesFailed = 0;
  source!: BackendSource;
  guest!: TestGuest;
  /** What was read, by row. */
  readonly read = new Map<number, Buffer>();

  async open(options: Partial<NbdSourceOptions> = {}): Promise<BackendSource> {
    const { clock } = this;
    this.source = await openNbdSource({
      ...{ uri: this.server.uri, clock, log: silentLog },
      onLost: (loss) => this.losses.push(loss),
      onFlushFailed: () => this.flushesFailed++,
      ...options,
    });
    return this.source;
  }

  /** Opens the source, unless it is open, and gives a guest on it. */
  async start(options: Partial<NbdSourceOptions> = {}): Promise<TestGuest> {
    if (this.source === undefined) await this.open(options);
    const guest = new TestGuest(this.source.open(), this.region, 64);
    guest.onReply = (row) => this.read.set(row, Buffer.from(guest.payload(row, guest.requests.inLength[row])));
    this.guest = guest;
    return guest;
  }

  /** Asks for one thing, and waits for its status. */
  async ask(request: Parameters<TestGuest['add']>[0], out?: Uint8Array): Promise<number> {
    const { guest } = this;
    const row = guest.add({ ...request, ...(out !== undefined && { outBytes: out.length }) });
    if (out !== undefined) guest.fill(row, out);
    guest.pushAll();
    await guest.until(() => !guest.lent.has(row));
    return guest.answers.findLast((answer) => answer.row === row)!.status;
  }

  async close(): Promise<void> {
    this.server.release();
    await this.guest?.close();
    await this.source?.close();
    await this.server.close();
    this.region.release();
    assert.deepEqual(this.guest?.breaches ?? [], []);
  }
}
