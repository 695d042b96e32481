/** Where an image has data: what is not there need not be copied. */
import { type FileHandle, open } from 'node:fs/promises';
import { native } from '../../../native/index.ts';
import type { DataExtents } from '../../device/source.ts';
import type { Image } from './image.ts';

/** So much data is read to see whether it is zeroes; an image with more of it is not blank. */
const BLANK_DATA_BYTES_MAX = 64 * 1024 * 1024;
const READ_BYTES = 1024 * 1024;

/** Up to the image's capacity. Rejects with the system's error. */
export async function dataExtents({ fd, isBlockDevice, profile }: Image, from: number): Promise<DataExtents> {
  const end = profile.capacityBytes;
  if (from >= end) return { ranges: [] };
  // Block devices say nothing of holes.
  if (isBlockDevice) return { ranges: [[from, end - from]] };
  const [next, ...values] = await native.dataExtents(fd, from, end);
  const ranges: [number, number][] = [];
  for (let i = 0; i < values.length; i += 2) ranges.push([values[i], values[i + 1]]);
  // The image changed under each look: what nobody could say anything about is data.
  if (next === from) return { ranges: [[from, end - from]] };
  return next < end ? { ranges, next } : { ranges };
}

/** It has no data, or so little that all of it can be read, and that is zeroes. Rejects with the system's error. */
export async function readsAsZeroes(image: Image): Promise<boolean> {
  // Opened once more, because a descriptor with O_DIRECT wants aligned memory. The lock belongs to the other one.
  const file = await open(`/proc/self/fd/${image.fd}`, 'r');
  try {
    let left = BLANK_DATA_BYTES_MAX;
    for (let from: number | undefined = 0; from !== undefined; ) {
      const { ranges, next }: DataExtents = await dataExtents(image, from);
      left -= ranges.reduce((sum, [, length]) => sum + length, 0);
      if (left < 0) return false;
      for (const [position, length] of ranges) if (!(await isZero(file, position, length))) return false;
      from = next;
    }
    return true;
  } finally {
    await file.close();
  }
}

async function isZero(file: FileHandle, position: number, length: number): Promise<boolean> {
  const [buffer, zeroes] = [Buffer.alloc(READ_BYTES), Buffer.alloc(READ_BYTES)];
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(READ_BYTES, length - done), position + done);
    // The end of a file that shrank.
    if (bytesRead === 0) return true;
    if (buffer.compare(zeroes, 0, bytesRead, 0, bytesRead) !== 0) return false;
    done += bytesRead;
  }
  return true;
}
