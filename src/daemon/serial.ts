import { createHash } from 'node:crypto';
import { DISK_SERIAL_BYTES_MAX } from '../device/profile.ts';

const DIGEST_CHARACTERS = 8;

/**
 * The identity string that the guest's driver shows (`/dev/disk/by-id/virtio-…`): the virtual device's name, which is unique in its VM. Where that is
 * longer than the 20 bytes that there are, its beginning and a digest of the whole.
 */
export function diskSerial(name: string): string {
  if (name.length <= DISK_SERIAL_BYTES_MAX) return name;
  const digest = createHash('sha256').update(name).digest('hex').slice(0, DIGEST_CHARACTERS);
  return `${name.slice(0, DISK_SERIAL_BYTES_MAX - DIGEST_CHARACTERS - 1)}-${digest}`;
}
