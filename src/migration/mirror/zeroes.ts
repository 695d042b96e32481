/** Zeroes for a disk: asked for where it can make them, and sent where it cannot. */
import { DiskFlag, DiskKind } from '../../device/disk.ts';
import type { MessageTable } from '../../device/message-table.ts';
import type { Region } from '../../device/region.ts';

/** Most bytes of zeroes in one request, so that each one takes a bounded time. */
export const ZEROES_BYTES_MAX = 4 * 1024 * 1024;
/** Memory full of zeroes, which is sent as often as is needed. */
export const ZERO_BYTES = 64 * 1024;

/**
 * Fills a row with the request for `extent` bytes of zeroes, at most ZEROES_BYTES_MAX, which give their space back. `zero`: ZERO_BYTES of zeroes
 * at `offset`, which is what goes where the disk cannot make them (`canZero`).
 */
export function fillZeroes(
  table: MessageTable,
  row: number,
  { position, extent }: { position: number; extent: number },
  canZero: boolean,
  zero: { region: Region; offset: number },
): void {
  table.kind[row] = canZero ? DiskKind.writeZeroes : DiskKind.write;
  table.flags[row] = canZero ? DiskFlag.unmap : 0;
  table.argument[row] = position;
  table.extent[row] = extent;
  table.outLength[row] = canZero ? 0 : extent;
  table.inLength[row] = 0;
  const segments = table.segments(row);
  segments.clear();
  if (canZero) return;
  for (let left = extent; left > 0; left -= ZERO_BYTES) {
    segments.addSeparately(zero.region, zero.offset, Math.min(left, ZERO_BYTES));
  }
}
