/** A real guest that writes and verifies without end, each of its disks by a fio of its own, and whose kernel has nothing to complain of. */

import { bootAttached } from '../../test/guest/attached.ts';
import type { Guest } from '../../test/guest/guest.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import { waitFor } from '../../test/support/wait.ts';

const SIZE_MIB = 8;
/** Leaves the processors to the rest. */
const RATE_IOPS = 150;
/** Between two looks at a guest, in milliseconds: each costs an emulated processor time. */
const LOOK_MS = 100;
/** Kernel messages of this severity and worse: KERN_WARNING. */
const SEVERITY_MAX = 4;
/** What an emulated processor without its time says; no device is behind it. */
const STARVED = /clocksource|soft lockup|rcu|hrtimer|sched: RT throttling|perf: interrupt took too long|TSC|tsc:/;

export class FioGuest {
  readonly guest: Guest;
  readonly #disks: string[];
  readonly #seed: number;
  /** Kernel messages that were told already. */
  #told = 0;

  static async boot(
    cluster: Cluster,
    host: string,
    devices: readonly string[],
    cleanup: Cleanup,
    seed: number,
  ): Promise<FioGuest> {
    const guest = await bootAttached(cluster, host, 'guest', devices, { cleanup, cpus: 2, fio: true, resettable: true });
    const work = new FioGuest(guest, devices.length, seed);
    await work.#start();
    return work;
  }

  private constructor(guest: Guest, disks: number, seed: number) {
    this.guest = guest;
    this.#disks = Array.from({ length: disks }, (_, i) => `vd${String.fromCharCode(97 + i)}`);
    this.#seed = seed;
  }

  /** What is wrong: a fio that found something or got an error, a disk that does not go on in time, a kernel that complains. */
  async problems(timeoutMs: number): Promise<string[]> {
    const problems: string[] = [];
    for (const disk of this.#disks) {
      const failure = await this.guest.run(`cat /run/fio-${disk}.failed 2>/dev/null`);
      if (failure.status === 0) problems.push(`fio on ${disk} ended: ${failure.output.trim().slice(-500)}`);
      else if (!(await this.#goesOn(disk, timeoutMs))) problems.push(`${disk} does nothing for ${timeoutMs / 1000} s`);
    }
    problems.push(...(await this.#kernelComplaints()));
    return problems;
  }

  /** The reset button, and the work from its beginning. */
  async restart(): Promise<void> {
    await this.guest.reset();
    this.#told = 0;
    await this.#start();
  }

  async #start(): Promise<void> {
    await this.#kernelComplaints();
    for (const [i, disk] of this.#disks.entries()) {
      const fio = [
        `fio --name=${disk} --filename=/dev/${disk} --direct=1 --ioengine=libaio --iodepth=8 --size=${SIZE_MIB}M`,
        `--rw=randwrite --bsrange=4k-32k --fsync=32 --verify=crc32c --verify_fatal=1 --rate_iops=${RATE_IOPS}`,
        `--randseed=${this.#seed + i}`,
      ].join(' ');
      // Each pass writes all blocks and then reads and compares all of them.
      await this.guest.succeed(
        `(while ${fio} >/run/fio-${disk}.log 2>&1; do :; done; mv /run/fio-${disk}.log /run/fio-${disk}.failed) </dev/null >/dev/null 2>&1 &`,
      );
    }
  }

  /** The kernel counts what a disk has answered. */
  async #goesOn(disk: string, timeoutMs: number): Promise<boolean> {
    const answered = async () => {
      const fields = (await this.guest.succeed(`cat /sys/block/${disk}/stat`)).trim().split(/\s+/).map(Number);
      return fields[0]! + fields[4]!;
    };
    const before = await answered();
    try {
      await waitFor(
        disk,
        async () => {
          await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
          return (await answered()) > before;
        },
        timeoutMs,
      );
      return true;
    } catch {
      return false;
    }
  }

  async #kernelComplaints(): Promise<string[]> {
    const lines = (await this.guest.succeed('dmesg -r')).split('\n');
    const fresh = lines.slice(this.#told);
    this.#told = lines.length;
    return fresh.filter((line) => {
      const priority = /^<(\d+)>/.exec(line);
      return priority !== null && (Number(priority[1]) & 7) <= SEVERITY_MAX && !STARVED.test(line);
    });
  }
}
