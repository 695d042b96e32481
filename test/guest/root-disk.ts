/** Disk images for guests, made on the host. */

import { truncateSync, writeFileSync } from 'node:fs';
import { runOk } from '../support/process.ts';
import { guestImage } from './image.ts';

/** Makes a sparse, empty image file. */
export function makeEmptyDisk(path: string, sizeMiB: number): void {
  writeFileSync(path, '');
  truncateSync(path, sizeMiB * 1024 * 1024);
}

/**
 * Makes an image file with an ext4 root filesystem that a guest boots from (`root: '/dev/vda'`): the same programs and agent as
 * in the initramfs, fio included. At least 192 MiB.
 */
export async function makeRootDisk(path: string, sizeMiB: number): Promise<void> {
  makeEmptyDisk(path, sizeMiB);
  // A fixed UUID and hash seed, so that two images differ in nothing but their times.
  const uuid = '6e657462-7573-4000-8000-000000000001';
  const options = ['-q', '-F', '-d', guestImage().tree, '-U', uuid, '-E', `hash_seed=${uuid},root_owner=0:0`];
  await runOk(['mkfs.ext4', ...options, path]);
}

/** Checks the ext4 filesystem of an image that nobody uses. Throws, with e2fsck's own words, unless it is clean. */
export async function checkFilesystem(path: string): Promise<void> {
  await runOk(['e2fsck', '-f', '-n', path]);
}
