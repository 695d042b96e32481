/** What the guest does with a disk in the demo: files that are written, read back and compared, and how fast that goes. */

import type { Guest } from '../../test/guest/guest.ts';

/** The large file, whose way to the disk and back is timed, and small ones beside it. */
const LARGE_MIB = 64;
const SMALL_FILES = 32;
const SMALL_KIB = 64;

const FIO_SECONDS = 1;

/** Content of the files by name: SHA-256 in hex. */
export type Checksums = ReadonlyMap<string, string>;

export interface Speeds {
  writeMBs: number;
  readMBs: number;
  randomReadIops: number;
  randomWriteIops: number;
}

export const VOLUME_BYTES = (LARGE_MIB * 1024 + SMALL_FILES * SMALL_KIB) * 1024;

/** Makes the files in the guest's memory, random, and their checksums before any of it has seen a disk. */
export async function makeSources(guest: Guest): Promise<Checksums> {
  const output = await guest.succeed(`
    mkdir /tmp/source && cd /tmp/source
    dd if=/dev/urandom of=large bs=1M count=${LARGE_MIB} 2>/dev/null
    for i in $(seq 1 ${SMALL_FILES}); do dd if=/dev/urandom of=small-$i bs=1k count=${SMALL_KIB} 2>/dev/null; done
    sha256sum *`);
  return parseChecksums(output);
}

/** Writes the files to a filesystem, drops everything that is cached of it, and reads them back. */
export async function writeAndRead(
  guest: Guest,
  mountPoint: string,
): Promise<{ read: Checksums; writeMBs: number; readMBs: number }> {
  const writeMs = await timed(guest, `dd if=/tmp/source/large of=${mountPoint}/large bs=1M conv=fsync`);
  await guest.succeed(`cp /tmp/source/small-* ${mountPoint}/ && sync && echo 3 >/proc/sys/vm/drop_caches`);
  const readMs = await timed(guest, `dd if=${mountPoint}/large of=/dev/null bs=1M`);
  const sums = await guest.succeed(`echo 3 >/proc/sys/vm/drop_caches; cd ${mountPoint} && sha256sum large small-*`);
  return { read: parseChecksums(sums), writeMBs: rate(writeMs), readMBs: rate(readMs) };
}

/** 4 KiB at random places, 32 at a time, past the guest's cache. */
export async function randomIops(guest: Guest, mountPoint: string, mode: 'randread' | 'randwrite'): Promise<number> {
  const output = await guest.succeed(
    `fio --name=demo --filename=${mountPoint}/random --size=${LARGE_MIB}M --rw=${mode} --bs=4k --iodepth=32 --ioengine=libaio \
      --direct=1 --time_based --runtime=${FIO_SECONDS} --randseed=1 --output-format=json`,
  );
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as {
    jobs: { error: number; read: { iops: number }; write: { iops: number } }[];
  };
  const job = jobs[0];
  if (job === undefined || job.error !== 0) throw new Error(`fio failed in the guest: ${output}`);
  return mode === 'randread' ? job.read.iops : job.write.iops;
}

/** "HASH  NAME" lines. */
export function parseChecksums(text: string): Checksums {
  const sums = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^([0-9a-f]{64}) {2}(\S+)$/.exec(line.trim());
    if (match !== null) sums.set(match[2]!, match[1]!);
  }
  return sums;
}

/** How long a command takes in the guest, in milliseconds (by the kernel's clock, in steps of 10). */
async function timed(guest: Guest, command: string): Promise<number> {
  const output = await guest.succeed(`
    read before idle </proc/uptime
    ${command} >/dev/null 2>&1 || exit 1
    read after idle </proc/uptime
    echo $before $after`);
  const [before = 0, after = 0] = output.split(' ').map(Number);
  return Math.max(10, (after - before) * 1000);
}

/** MB/s of the large file. */
function rate(milliseconds: number): number {
  return (LARGE_MIB * 1024 * 1024) / 1000 / milliseconds;
}
