/** The work of a guest in the demos: it copies files to its disk, reads each back and compares it, and says so as it goes. */

import { DebugPort } from '../../test/guest/debug-port.ts';
import type { Guest } from '../../test/guest/guest.ts';
import { waitFor } from '../../test/support/wait.ts';

const SOURCES = 16;
const SOURCE_KIB = 128;
/** Generous: it ends a wait that hangs, and says nothing about speed. In milliseconds. */
const START_MS_MAX = 60_000;

/**
 * In the guest: copies files from memory to the disk, reads each back past the cache and compares it, for as long as /run/work is there.
 * A line on the second serial port for each: its sum was right (+), or wrong (!).
 */
const WORK = `
  n=0
  while [ -e /run/work ]; do
    i=$((n % ${SOURCES})); n=$((n + 1))
    if dd if=/tmp/source-$i of=/mnt/copy-$i bs=128k oflag=direct 2>/dev/null &&
      dd if=/mnt/copy-$i bs=128k iflag=direct 2>/dev/null | cmp -s - /tmp/source-$i; then echo +; else echo !; fi
  done >/dev/ttyS1
  sync; touch /run/rested`;

export class CopyWork {
  /** When each copy was found equal, on the work's clock. */
  readonly doneAtMs: number[] = [];
  /** Give the guest its serial port with this, and connect it. */
  readonly port = new DebugPort((data, atMs) => this.#hear(data.toString('latin1'), atMs));
  #wrong = 0;
  #startedAt = 0;

  /** Since the guest began to copy, in milliseconds of this process's clock: the guest's own may stand still. */
  get now(): number {
    return this.at(performance.now());
  }

  /** The same of another moment, by `performance.now()`. */
  at(ms: number): number {
    return ms - this.#startedAt;
  }

  get copies(): number {
    return this.doneAtMs.length;
  }

  /** Makes a filesystem on the guest's disk and files in its memory, and begins. */
  async start(guest: Guest): Promise<void> {
    await guest.succeed(
      `mkfs.ext4 -q /dev/vda && mkdir -p /mnt && mount /dev/vda /mnt
      for i in $(seq 0 ${SOURCES - 1}); do dd if=/dev/urandom of=/tmp/source-$i bs=1k count=${SOURCE_KIB} 2>/dev/null; done`,
    );
    this.#startedAt = performance.now();
    await guest.succeed(`touch /run/work; (${WORK}) </dev/null >/dev/null 2>&1 &`);
    await waitFor('the first copies', () => this.copies > 1, START_MS_MAX);
  }

  /** Ends the work. What was wrong, in words. */
  async finish(guest: Guest): Promise<string[]> {
    await guest.succeed('rm /run/work; until [ -e /run/rested ]; do usleep 50000; done');
    const complaints = await guest.run('dmesg | grep -E "I/O error|EXT4-fs (error|warning)|Buffer I/O|blocked for more"');
    const errors = complaints.output.trim() === '' ? [] : complaints.output.trim().split('\n');
    if (this.#wrong > 0) errors.push(`${this.#wrong} copies failed or came back different`);
    return errors;
  }

  #hear(marks: string, atMs: number): void {
    for (const mark of marks) {
      if (mark === '+') this.doneAtMs.push(this.at(atMs));
      else if (mark === '!') this.#wrong++;
    }
  }
}
