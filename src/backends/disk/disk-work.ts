import { IoOp } from '../../../native/index.ts';
import { checkDiskRequest, DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import type { MessageTable } from '../../device/message-table.ts';
import type { Image } from './image.ts';
import { type Operations, operationName, ZEROES_PER_OPERATION_BYTES } from './operations.ts';

/** What `begin` and `finish` return for a request that needs another operation; all other values are the status to answer. */
export const GOES_ON = -1;

/** Errnos by which a storage says that it has no such operation. */
const EOPNOTSUPP = 95;
const ENOTTY = 25;

/** The requests of one device as operations of the kernel: which one comes next for a row, and what its result means. */
export class DiskWork {
  readonly #image: Image;
  readonly #table: MessageTable;
  /** Per row: the operation that is under way. */
  readonly #operation: Uint8Array;
  /** Per row of a write or writeZeroes: bytes that are done. */
  readonly #done: Float64Array;

  constructor(image: Image, table: MessageTable) {
    this.#image = image;
    this.#table = table;
    this.#operation = new Uint8Array(table.capacity);
    this.#done = new Float64Array(table.capacity);
  }

  /** A request comes. */
  begin(row: number): number {
    this.#operation[row] = 0;
    this.#done[row] = 0;
    const status = checkDiskRequest(this.#table, row, this.#image.profile);
    if (status !== DiskStatus.ok) return status;
    return this.#table.kind[row] === DiskKind.discard && this.#isNothing(row) ? DiskStatus.ok : GOES_ON;
  }

  /** What the row needs next. */
  next(row: number): number {
    const { isBlockDevice, canDiscard, canZero, flushes } = this.#image;
    const flags = this.#table.flags[row];
    switch (this.#table.kind[row]) {
      case DiskKind.read:
        return IoOp.read;
      case DiskKind.write:
        if (this.#done[row] > 0) return IoOp.flush;
        // A sync of its own could take the kernel's one report about another write; then the common flush has to do it.
        return (flags & DiskFlag.durable) !== 0 && !flushes.unflushed ? IoOp.writeDurable : IoOp.write;
      case DiskKind.discard:
        return isBlockDevice ? IoOp.blockDiscard : IoOp.punchHole;
      case DiskKind.writeZeroes:
        if (this.#done[row] === this.#table.extent[row]) return IoOp.flush;
        if (isBlockDevice) return canZero ? IoOp.blockZeroOut : IoOp.write;
        if ((flags & DiskFlag.unmap) !== 0 && canDiscard) return IoOp.punchHole;
        return canZero ? IoOp.zeroRange : IoOp.write;
      default:
        return IoOp.flush;
    }
  }

  /** Appends the row's next operation, which is no flush. */
  encode(row: number, operations: Operations): void {
    const table = this.#table;
    const position = table.argument[row];
    const extent = table.extent[row];
    const op = this.next(row);
    this.#operation[row] = op;
    switch (table.kind[row]) {
      case DiskKind.discard:
        operations.addRange(op, row, this.#discardStart(row), this.#discardEnd(row) - this.#discardStart(row));
        break;
      case DiskKind.writeZeroes: {
        const left = extent - this.#done[row];
        const from = position + this.#done[row];
        if (op === IoOp.write) operations.addZeroes(row, from, Math.min(left, ZEROES_PER_OPERATION_BYTES), this.#image.zeroes);
        else operations.addRange(op, row, from, left);
        break;
      }
      default:
        operations.addTransfer(op, row, position, extent, table.segments(row));
    }
  }

  /** The row's operation ended with `result`: bytes, 0, or a negative errno. */
  finish(row: number, result: number): number {
    const image = this.#image;
    const op = this.#operation[row];
    const extent = this.#table.extent[row];
    switch (this.#table.kind[row]) {
      case DiskKind.read:
        // Less is the end of the file.
        return result === extent ? DiskStatus.ok : this.fail(row, Math.max(0, -result));
      case DiskKind.discard:
        if (!isUnsupported(result)) return result < 0 ? this.fail(row, -result) : DiskStatus.ok;
        image.canDiscard = false;
        return DiskStatus.ok;
      case DiskKind.writeZeroes:
        if (isUnsupported(result)) {
          // The next way is tried: a hole, then a range of zeroes, then zeroes that are written.
          if (op === IoOp.punchHole) image.canDiscard = false;
          else image.canZero = false;
          return GOES_ON;
        }
        if (result < 0) return this.fail(row, -result);
        this.#done[row] = op === IoOp.write ? this.#done[row] + result : extent;
        return this.#done[row] < extent ? GOES_ON : this.#written(row);
      default:
        if (result < 0) return this.fail(row, -result);
        this.#done[row] = extent;
        return op === IoOp.writeDurable ? DiskStatus.ok : this.#written(row);
    }
  }

  /** As `finish`, after a cut: the row is the guest's again, and nobody is answered. */
  finishUnheard(row: number, result: number): void {
    if (this.#operation[row] === IoOp.writeDurable && result < 0) this.#durableWriteFailed();
  }

  /** The status of a request that failed, after it was counted and logged; `errno` 0 is the end of the file. */
  fail(row: number, errno: number): number {
    const image = this.#image;
    const op = this.#operation[row];
    if (op === IoOp.writeDurable) this.#durableWriteFailed();
    image.failures.report(operationName(op), this.#table.argument[row], this.#table.extent[row], errno);
    if (errno === 0) image.onEndMet();
    return DiskStatus.ioError;
  }

  #durableWriteFailed(): void {
    const { flushes, onFlushFailed } = this.#image;
    const before = flushes.failed;
    flushes.durableWriteFailed();
    if (flushes.failed && !before) onFlushFailed();
  }

  /** All is written; a durable request needs the flush as well. */
  #written(row: number): number {
    if ((this.#table.flags[row] & DiskFlag.durable) !== 0) return GOES_ON;
    this.#image.flushes.wrote();
    return DiskStatus.ok;
  }

  /** A discard that gives nothing back: the storage cannot, or the range holds no whole block. */
  #isNothing(row: number): boolean {
    return !this.#image.canDiscard || this.#discardEnd(row) <= this.#discardStart(row);
  }

  /** A block device takes whole blocks only. A discard may do less than it was asked for (virtio 1.2, 5.2.6.2), never more. */
  #discardStart(row: number): number {
    const block = this.#discardBlockBytes;
    return Math.ceil(this.#table.argument[row] / block) * block;
  }

  #discardEnd(row: number): number {
    const block = this.#discardBlockBytes;
    return Math.floor((this.#table.argument[row] + this.#table.extent[row]) / block) * block;
  }

  get #discardBlockBytes(): number {
    return this.#image.isBlockDevice ? this.#image.profile.logicalBlockBytes : 1;
  }
}

function isUnsupported(result: number): boolean {
  return result === -EOPNOTSUPP || result === -ENOTTY;
}
