/** The check that a candidate is a disk at all: what was written comes back, and is in the image behind it. */
import { closeSync, openSync, readSync } from 'node:fs';
import { fillPattern } from '../test/support/pattern.ts';
import type { VhostUserFrontend } from '../test/support/vhost-user/frontend.ts';

const SECTOR_BYTES = 512;
const BLOCK_BYTES = 128 * 1024;
const DEPTH = 16;

/**
 * Writes the pattern of `seed` to the first `bytes` of the disk, flushes, reads all of it back through the disk and then from the
 * image. Throws at the first difference.
 */
export async function verifyDisk(vm: VhostUserFrontend, imagePath: string, bytes: number, seed: number): Promise<void> {
  await forEachBlock(bytes, async (position, length) => {
    const data = new Uint8Array(length);
    fillPattern(data, seed, position);
    await vm.write(position / SECTOR_BYTES, data, { queue: (position / BLOCK_BYTES) % vm.queues.length });
  });
  await vm.flush();
  await forEachBlock(bytes, async (position, length) => {
    const data = await vm.read(position / SECTOR_BYTES, length, { queue: (position / BLOCK_BYTES) % vm.queues.length });
    compare(data, seed, position, 'the disk');
  });
  const image = openSync(imagePath, 'r');
  try {
    const data = new Uint8Array(BLOCK_BYTES);
    for (let position = 0; position < bytes; position += BLOCK_BYTES) {
      const length = readSync(image, data, 0, Math.min(BLOCK_BYTES, bytes - position), position);
      compare(data.subarray(0, length), seed, position, imagePath);
    }
  } finally {
    closeSync(image);
  }
}

function compare(data: Uint8Array, seed: number, position: number, where: string): void {
  const expected = Buffer.alloc(data.length);
  fillPattern(expected, seed, position);
  if (expected.equals(data)) return;
  const at = expected.findIndex((byte, i) => byte !== data[i]);
  throw new Error(`wrong data at byte ${position + at} of ${where}`);
}

/** Calls `body` for each block of the first `bytes`, DEPTH at a time. */
async function forEachBlock(bytes: number, body: (position: number, length: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < bytes) {
      const position = next;
      next += BLOCK_BYTES;
      await body(position, Math.min(BLOCK_BYTES, bytes - position));
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, worker));
}
