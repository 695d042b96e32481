/** A disk that a machine's firmware boots from, and that counts: a guest with no operating system, whose only driver is that of the firmware. */

import { closeSync, openSync, readSync, truncateSync, writeFileSync } from 'node:fs';

const SECTOR_BYTES = 512;
/** The debug port on which the guest says how each round went. */
export const COUNTING_PORT = 0xea;
/** Of a round: the counter was read, increased and written; or the firmware reported an error. */
export const COUNTED = '+';

/** The boot sector, which the firmware loads to 0x7c00 (x86, 16 bit). */
const BOOT_SECTOR = [
  ...[0x31, 0xc0], // xor ax, ax
  ...[0x8e, 0xd8], // mov ds, ax
  ...[0x8e, 0xd0], // mov ss, ax
  ...[0xbc, 0x00, 0x7c], // mov sp, 0x7c00
  // again:
  ...[0xbe, 0x2d, 0x7c], // mov si, packet
  ...[0xb4, 0x42], // mov ah, 0x42: read
  ...[0xcd, 0x13], // int 0x13
  ...[0x72, 0x15], // jc bad
  ...[0x66, 0xff, 0x06, 0x00, 0x80], // inc dword [0x8000]
  ...[0xbe, 0x2d, 0x7c], // mov si, packet
  ...[0xb8, 0x00, 0x43], // mov ax, 0x4300: write
  ...[0xcd, 0x13], // int 0x13
  ...[0x72, 0x06], // jc bad
  ...[0xb0, 0x2b], // mov al, '+'
  ...[0xe6, COUNTING_PORT], // out COUNTING_PORT, al
  ...[0xeb, 0xe2], // jmp again
  // bad:
  ...[0xb0, 0x21], // mov al, '!'
  ...[0xe6, COUNTING_PORT], // out COUNTING_PORT, al
  ...[0xeb, 0xdc], // jmp again
  // packet: 16 bytes, one sector, to 0000:8000, from sector 1
  ...[0x10, 0x00, 0x01, 0x00, 0x00, 0x80, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
];

export function makeCountingDisk(path: string, sizeMiB: number): void {
  const sector = Buffer.alloc(SECTOR_BYTES);
  sector.set(BOOT_SECTOR);
  sector.writeUInt16LE(0xaa55, SECTOR_BYTES - 2);
  writeFileSync(path, sector);
  truncateSync(path, sizeMiB * 1024 * 1024);
}

/** How far it has counted. */
export function readCount(path: string): number {
  const fd = openSync(path, 'r');
  const bytes = Buffer.alloc(4);
  readSync(fd, bytes, 0, bytes.length, SECTOR_BYTES);
  closeSync(fd);
  return bytes.readUInt32LE();
}
