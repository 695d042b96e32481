/** What the guest does with a disk in the demo: files that are written, read back and compared, and how fast that goes. */

import type { Guest } from '../../test/guest/guest.ts';

/** The large file, whose way to the disk and back is timed, and small ones beside it. */
const LARGE_MIB = 64;
const SMALL_FILES = 64;
const SMALL_KIB = 64;

const FIO_SECONDS = 2;

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
  const written = await guest.succeed(`
    cd /tmp/source && dd if=large of=${mountPoint}/large bs=1M conv=fsync 2>&1
    cp small-* ${mountPoint}/ && sync && echo 3 >/proc/sys/vm/drop_caches`);
  const large = await guest.succeed(`dd if=${mountPoint}/large of=/dev/null bs=1M 2>&1`);
  const sums = await guest.succeed(`echo 3 >/proc/sys/vm/drop_caches; cd ${mountPoint} && sha256sum large small-*`);
  return { read: parseChecksums(sums), writeMBs: parseRate(written), readMBs: parseRate(large) };
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

/** busybox's dd: "67108864 bytes (64.0MB) copied, 0.351 seconds, 182.3MB/s". */
function parseRate(text: string): number {
  const match = /^(\d+) bytes .*copied, ([\d.]+) s/m.exec(text);
  if (match === null) throw new Error(`dd did not say how fast it was: ${text}`);
  return Number(match[1]) / 1e6 / Number(match[2]);
}
