/**
 * A device's host has forgotten what was not flushed and gets it again: first what the guest's last host kept, where it is there, then what is in the log
 * here, which is newer.
 */
import type { Device } from '../../device/device.ts';
import { DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import type { MessageTable } from '../../device/message-table.ts';
import { blocksBelow, checkKeptPage, type KeptLog } from './kept-blocks.ts';
import type { LogBlocks } from './log-blocks.ts';
import { blocksOf, Resend } from './resend.ts';

export interface SendingOptions {
  /** Undefined where there is no log here, and so nothing of it to send. */
  readonly own: LogBlocks | undefined;
  /** Undefined where the guest was here all the time. */
  readonly kept: KeptLog | undefined;
  readonly device: Device;
  /** The rows from `firstRow` on are its own. */
  readonly table: MessageTable;
  readonly firstRow: number;
  /** All was sent and answered. */
  readonly onDone: () => void;
  readonly onFailed: (why: string) => void;
}

export class Sending {
  readonly #options: SendingOptions;
  #resend: Resend | undefined;
  #tellSent: () => void = () => {};
  #sentBefore = 0;
  #isOver = false;

  constructor(options: SendingOptions) {
    this.#options = options;
  }

  /** Blocks that went into requests. */
  get sent(): number {
    return this.#sentBefore + (this.#resend?.sent ?? 0);
  }

  /** Once. Nothing is sent before it has returned. */
  begin(): void {
    void this.#run().catch((thrown: unknown) => {
      if (!this.#isOver) this.#options.onFailed(NetbusError.from(thrown).message);
    });
  }

  /** The device may have room. */
  more(): void {
    if (!this.#isOver && this.#resend?.more() === true) this.#tellSent();
  }

  /** `more` has to follow. */
  answered(row: number, status: number): void {
    this.#resend!.answered(row);
    if (status !== DiskStatus.ok) this.#options.onFailed('a write of it failed');
  }

  /** Nothing more is sent. */
  end(): void {
    this.#isOver = true;
  }

  async #run(): Promise<void> {
    const { own, kept } = this.#options;
    await undefined;
    if (kept !== undefined) {
      for (let after = -1, more = true; more && !this.#isOver; ) {
        const page = await kept.read(after);
        if (this.#isOver) return;
        checkKeptPage(page, after, kept.capacityBytes);
        await this.#send(blocksBelow(own, page, kept.staging));
        after = page.blocks.at(-1)?.block ?? after;
        more = page.more;
      }
    }
    if (own !== undefined && !this.#isOver) await this.#send(blocksOf(own));
    if (!this.#isOver) this.#options.onDone();
  }

  #send(blocks: ReturnType<typeof blocksOf>): Promise<void> {
    const { device, table, firstRow } = this.#options;
    this.#sentBefore = this.sent;
    this.#resend = new Resend(blocks, device, table, firstRow);
    return new Promise((resolve) => {
      this.#tellSent = resolve;
      this.more();
    });
  }
}
