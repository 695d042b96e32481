/** One use of a virtual device by a frontend: the rows that the device has, or will have, and what they are for. */
import type { StagingRegion } from '../../src/bus/staging.ts';
import type { Batch } from '../../src/device/batch.ts';
import type { Device } from '../../src/device/device.ts';
import { DiskFlag, DiskKind } from '../../src/device/disk.ts';
import type { QueueHandOver } from '../../src/device/hand-over.ts';
import type { FreeRows, MessageTable } from '../../src/device/message-table.ts';
import { BLOCK_BYTES, blockContent } from './disk.ts';
import { BLOCKS_PER_REQUEST_MAX, type Request } from './guest.ts';
import type { SimQueue } from './queue.ts';
import type { SimVmm } from './vmm.ts';
import type { World } from './world.ts';

export const REQUEST_BYTES_MAX = BLOCKS_PER_REQUEST_MAX * BLOCK_BYTES;

/** A row that the device has, or will have. */
export interface Held {
  readonly request: Request;
  /** Undefined: the guest does not wait for it. */
  readonly head: number | undefined;
  readonly isAgain: boolean;
}

/** One use of the virtual device, from the start of the ring to its stop. */
export interface Use {
  readonly vmm: SimVmm;
  readonly device: Device;
  readonly table: MessageTable;
  readonly batch: Batch;
  readonly memory: StagingRegion;
  readonly rows: FreeRows;
  readonly held: Map<number, Held>;
  /** Undefined: it waits for what the last host left, or does not fit that. */
  queue: SimQueue | undefined;
  /** What the last host left, once that is known; undefined: the guest was here. */
  handOver: QueueHandOver | null | undefined;
  isExpected: boolean;
  /** The device takes no more at the moment. */
  isFull: boolean;
  isStopping: boolean;
}

/** Makes a row of it, for the next push. */
export function fill({ table, memory, batch, rows, held }: Use, what: Held): void {
  const { request } = what;
  const row = rows.take();
  if (row < 0) throw new Error('a guest has more requests than its device takes');
  const bytes = request.blocks * BLOCK_BYTES;
  const segments = table.segments(row);
  segments.clear();
  table.kind[row] = request.kind;
  table.flags[row] = request.isDurable ? DiskFlag.durable : 0;
  table.argument[row] = request.first * BLOCK_BYTES;
  table.extent[row] = bytes;
  table.outLength[row] = request.kind === DiskKind.write ? bytes : 0;
  table.inLength[row] = request.kind === DiskKind.read ? bytes : 0;
  const at = row * REQUEST_BYTES_MAX;
  if (request.kind === DiskKind.write || request.kind === DiskKind.read) segments.add(memory, at, bytes);
  if (bytes > 0) words(memory, at, bytes).fill(request.kind === DiskKind.write ? request.write! : 0xffff_ffff);
  held.set(row, what);
  batch.add(row);
}

/** What a read gave. */
export function read(world: World, { memory }: Use, row: number, { blocks }: Request): number[] {
  const content = words(memory, row * REQUEST_BYTES_MAX, blocks * BLOCK_BYTES);
  return Array.from({ length: blocks }, (_, i) => blockContent(world, content, i * (BLOCK_BYTES / 4)));
}

/** Rows that the device has not got; what was not taken before goes back into the ring. */
export function untake({ batch, held, queue }: Use): number[] {
  const kept: number[] = [];
  const rows = Array.from({ length: batch.count }, (_, i) => batch.rows[i]);
  for (const row of rows.reverse()) {
    const { head, isAgain } = held.get(row)!;
    if (isAgain || head === undefined) kept.unshift(row);
    else queue!.untake(head);
  }
  batch.drop(batch.count);
  return kept;
}

function words(memory: StagingRegion, offset: number, length: number): Uint32Array {
  const bytes = memory.bytes(offset, length);
  return new Uint32Array(bytes.buffer, bytes.byteOffset, length / 4);
}
