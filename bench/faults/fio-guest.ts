/** A real guest that writes and verifies without end, each of its disks by a fio of its own, and whose kernel has nothing to complain of. */

import { bootAttached } from '../../test/guest/attached.ts';
import type { Guest } from '../../test/guest/guest.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import { waitFor } from '../../test/support/wait.ts';

const SIZE_MIB = 8;
const DEPTH = 8;
const BLOCK_KIB_MAX = 32;
/** Between two looks at a guest, in milliseconds: each costs an emulated processor time. */
const LOOK_MS = 100;
/** Kernel messages of this severity and worse: KERN_WARNING. */
const SEVERITY_MAX = 4;
/** What an emulated processor without its time says; no device is behind it. */
const STARVED = /clocksource|soft lockup|rcu|hrtimer|sched: RT throttling|perf: interrupt took too long|TSC|tsc:/;

export interface FioDisk {
  readonly device: string;
  /** Leaves the processors to the rest. */
  readonly iops: number;
}

/** The work of one fio. */
export interface FioWork {
  /** Its name in the guest, such as vda. */
  readonly disk: string;
  /** It writes the disk's beginning. */
  readonly sizeMiB: number;
  readonly depth: number;
  /** Requests have from 4 KiB to so many. */
  readonly blockKiBMax: number;
  /** As many as it can where it is left out. */
  readonly iops?: number;
}

/** One look at a guest. */
interface Look {
  /** By disk, how many requests its kernel has counted as answered. */
  readonly answered: ReadonlyMap<string, number>;
  /** What is wrong with a fio. */
  readonly problems: string[];
}

export class FioGuest {
  /** Where it runs now: set it when it has moved. */
  guest: Guest;
  readonly #work: readonly FioWork[];
  readonly #seed: number;
  /** Kernel messages that were told already. */
  #told = 0;

  static async boot(
    cluster: Cluster,
    host: string,
    disks: readonly FioDisk[],
    cleanup: Cleanup,
    seed: number,
  ): Promise<FioGuest> {
    const devices = disks.map(({ device }) => device);
    const guest = await bootAttached(cluster, host, 'guest', devices, { cleanup, cpus: 2, fio: true, resettable: true });
    const work = disks.map(({ iops }, i) => ({
      disk: `vd${String.fromCharCode(97 + i)}`,
      sizeMiB: SIZE_MIB,
      depth: DEPTH,
      blockKiBMax: BLOCK_KIB_MAX,
      iops,
    }));
    return FioGuest.start(guest, work, seed);
  }

  /** Begins the work in a guest that runs. */
  static async start(guest: Guest, work: readonly FioWork[], seed: number): Promise<FioGuest> {
    const working = new FioGuest(guest, work, seed);
    await working.#start();
    return working;
  }

  private constructor(guest: Guest, work: readonly FioWork[], seed: number) {
    this.guest = guest;
    this.#work = work;
    this.#seed = seed;
  }

  /** What is wrong: a fio that found something or got an error, a disk that does not go on in time, a kernel that complains. */
  async problems(timeoutMs: number): Promise<string[]> {
    const begun = await this.#look();
    let now = begun;
    const still = () => this.#work.filter(({ disk }) => now.answered.get(disk) === begun.answered.get(disk));
    const goesOn = async () => {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      now = await this.#look();
      return now.problems.length > 0 || still().length === 0;
    };
    if (begun.problems.length === 0) await waitFor('the disks of the guest', goesOn, timeoutMs).catch(() => undefined);
    const problems = [...now.problems];
    if (problems.length === 0) {
      for (const { disk } of still()) problems.push(`${disk} does nothing for ${timeoutMs / 1000} s`);
    }
    return [...problems, ...(await this.#kernelComplaints())];
  }

  /** The reset button, and the work from its beginning. */
  async restart(): Promise<void> {
    await this.guest.reset();
    this.#told = 0;
    await this.#start();
  }

  /** Ends the work; what was written stays unread. */
  async stop(): Promise<void> {
    await this.guest.succeed('for loop in /run/fio-*.loop; do kill $(cat $loop); done; killall -KILL fio');
  }

  async #start(): Promise<void> {
    await this.#kernelComplaints();
    for (const [i, work] of this.#work.entries()) {
      const { disk } = work;
      const fio = `fio --name=${disk} --filename=/dev/${disk} --direct=1 --ioengine=libaio ${fioOptions(work, this.#seed + i)}`;
      // Each pass writes all blocks and then reads and compares all of them.
      await this.guest.succeed(
        `(while ${fio} >/run/fio-${disk}.log 2>&1; do :; done; mv /run/fio-${disk}.log /run/fio-${disk}.failed) </dev/null >/dev/null 2>&1 &
        echo $! >/run/fio-${disk}.loop`,
      );
    }
  }

  /** All in one command: an emulated processor is slow to begin each. */
  async #look(): Promise<Look> {
    const disks = this.#work.map(({ disk }) => disk);
    const looks = disks.map((disk) => `echo ${disk} $(cat /sys/block/${disk}/stat)`).join('\n');
    const failures = `for disk in ${disks.join(' ')}; do
      [ ! -e /run/fio-$disk.failed ] || echo "fio on $disk ended: $(tail -c 500 /run/fio-$disk.failed | tr '\\n' ' ')"
    done`;
    const lines = (await this.guest.succeed(`${looks}\n${failures}`)).split('\n');
    const counts = lines.splice(0, disks.length).map((line) => line.trim().split(/\s+/));
    // Reads and writes that were completed.
    const answered = new Map(counts.map(([disk, ...fields]) => [disk!, Number(fields[0]) + Number(fields[4])]));
    return { answered, problems: lines };
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

/** What fio is told beside where. */
export function fioOptions({ sizeMiB, depth, blockKiBMax, iops }: FioWork, seed: number): string {
  const rate = iops === undefined ? '' : `--rate_iops=${iops} `;
  return `--iodepth=${depth} --size=${sizeMiB}M --rw=randwrite --bsrange=4k-${blockKiBMax}k --fsync=32 --verify=crc32c --verify_fatal=1 ${rate}--randseed=${seed}`;
}
