import { checkDiskRequest, DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import type { MessageTable } from '../../device/message-table.ts';
import { Command, CommandFlag, NbdError } from '../../protocols/nbd/constants.ts';
import type { Commands } from './commands.ts';
import type { ExportState } from './export-state.ts';

/** What `begin` and `finish` return for a request that needs another command, or a flush; all other values are the status to answer. */
export const NEEDS_COMMAND = -1;
export const NEEDS_FLUSH = -2;

/** Names for the log, as the disk backend has them. */
const names: Readonly<Record<number, string>> = {
  [Command.read]: 'read',
  [Command.write]: 'write',
  [Command.flush]: 'flush',
  [Command.trim]: 'trim',
  [Command.writeZeroes]: 'writeZeroes',
};

/** The requests of one device as commands for the server: which one comes next for a row, and what its answer means. */
export class NbdWork {
  readonly #state: ExportState;
  readonly #table: MessageTable;
  readonly #commands: Commands;
  /** Per row: bytes that are done. */
  readonly #done: Float64Array;
  /** Per row of a write or writeZeroes: 1 where each of its commands is durable when it is answered. */
  readonly #fua: Uint8Array;

  constructor(state: ExportState, table: MessageTable, commands: Commands) {
    this.#state = state;
    this.#table = table;
    this.#commands = commands;
    this.#done = new Float64Array(table.capacity);
    this.#fua = new Uint8Array(table.capacity);
  }

  /** A request comes. */
  begin(row: number): number {
    const { profile, flushes, canFlush, canFua, canTrim } = this.#state;
    const table = this.#table;
    this.#done[row] = 0;
    this.#fua[row] = 0;
    const status = checkDiskRequest(table, row, profile);
    if (status !== DiskStatus.ok) return status;
    switch (table.kind[row]) {
      case DiskKind.flush:
        // Without it each write was durable.
        return canFlush ? NEEDS_FLUSH : DiskStatus.ok;
      case DiskKind.discard:
        if (!canTrim || this.#discardEnd(row) <= this.#discardStart(row)) return DiskStatus.ok;
        this.#done[row] = this.#discardStart(row) - table.argument[row];
        return NEEDS_COMMAND;
      case DiskKind.read:
        return this.#isAligned(row) ? NEEDS_COMMAND : this.#fail(row, Command.read, NbdError.invalid);
      default: {
        if (!this.#isAligned(row)) return this.#fail(row, Command.write, NbdError.invalid);
        const isDurable = (table.flags[row] & DiskFlag.durable) !== 0;
        // What a server tells of a write that was lost it may tell once: a durable write must not take that from the flush.
        const usesFua = canFua && (!canFlush || (isDurable && !flushes.unflushed));
        this.#fua[row] = usesFua ? 1 : 0;
        return NEEDS_COMMAND;
      }
    }
  }

  /** Queues the row's next command. */
  queue(row: number): void {
    const { transferBytesMax, rangeBytesMax, zeroesBytesMax, canZero } = this.#state;
    const table = this.#table;
    const done = this.#done[row];
    const position = table.argument[row] + done;
    const left = table.extent[row] - done;
    const fua = this.#fua[row] === 1 ? CommandFlag.fua : 0;
    const commands = this.#commands;
    switch (table.kind[row]) {
      case DiskKind.read:
        commands.queue(row, Command.read, 0, position, Math.min(left, transferBytesMax), done);
        break;
      case DiskKind.write:
        commands.queue(row, Command.write, fua, position, Math.min(left, transferBytesMax), done);
        break;
      case DiskKind.discard:
        commands.queue(row, Command.trim, 0, position, Math.min(this.#discardEnd(row) - position, rangeBytesMax), 0);
        break;
      default:
        if (canZero) {
          const hole = (table.flags[row] & DiskFlag.unmap) !== 0 ? 0 : CommandFlag.noHole;
          commands.queue(row, Command.writeZeroes, fua | hole, position, Math.min(left, rangeBytesMax), 0);
        } else {
          commands.queue(row, Command.write, fua, position, Math.min(left, zeroesBytesMax), -1);
        }
    }
  }

  /** The server answered the row's command. */
  finish(row: number, error: number): number {
    const state = this.#state;
    const { command, length } = this.#commands;
    if (error === NbdError.notSupported && command[row] === Command.trim) {
      state.canTrim = false;
      return DiskStatus.ok;
    }
    if (error === NbdError.notSupported && command[row] === Command.writeZeroes) {
      state.canZero = false;
      return NEEDS_COMMAND;
    }
    if (error !== 0) return this.#fail(row, command[row], error);
    this.#done[row] += length[row];
    const end = command[row] === Command.trim ? this.#discardEnd(row) - this.#table.argument[row] : this.#table.extent[row];
    if (this.#done[row] < end) return NEEDS_COMMAND;
    const kind = this.#table.kind[row];
    return kind === DiskKind.write || kind === DiskKind.writeZeroes ? this.#written(row) : DiskStatus.ok;
  }

  /** As `finish`, after a cut: the row is the guest's again, and nobody is answered. */
  finishUnheard(row: number, error: number): void {
    if (error !== 0 && this.#isFua(row)) this.#durableWriteFailed();
  }

  #written(row: number): number {
    if (this.#fua[row] === 1) return DiskStatus.ok;
    if ((this.#table.flags[row] & DiskFlag.durable) !== 0) return NEEDS_FLUSH;
    this.#state.flushes.wrote();
    return DiskStatus.ok;
  }

  #fail(row: number, command: number, error: number): number {
    if (this.#isFua(row)) this.#durableWriteFailed();
    this.#state.failures.report(names[command], this.#table.argument[row], this.#table.extent[row], error);
    return DiskStatus.ioError;
  }

  #isFua(row: number): boolean {
    return (this.#commands.flags[row] & CommandFlag.fua) !== 0 && this.#fua[row] === 1;
  }

  #durableWriteFailed(): void {
    const { flushes, onFlushFailed } = this.#state;
    const before = flushes.failed;
    flushes.durableWriteFailed();
    if (flushes.failed && !before) onFlushFailed();
  }

  #isAligned(row: number): boolean {
    const { blockBytes } = this.#state;
    return this.#table.argument[row] % blockBytes === 0 && this.#table.extent[row] % blockBytes === 0;
  }

  /** A discard may do less than it was asked for (virtio 1.2, 5.2.6.2), never more. */
  #discardStart(row: number): number {
    const { blockBytes } = this.#state;
    return Math.ceil(this.#table.argument[row] / blockBytes) * blockBytes;
  }

  #discardEnd(row: number): number {
    const { blockBytes } = this.#state;
    return Math.floor((this.#table.argument[row] + this.#table.extent[row]) / blockBytes) * blockBytes;
  }
}
