import type { DiskProfile } from '../../device/profile.ts';
import { TransmissionFlag } from '../../protocols/nbd/constants.ts';
import type { NbdExport } from '../../protocols/nbd/negotiation.ts';
import type { FailureLog } from '../disk/failure-log.ts';
import { FlushState } from '../disk/flush-state.ts';
import { ZEROES_BYTES } from './sender.ts';

/** Trims and zeroes in one command, where the server sets no limit: a multiple of every block size. */
const RANGE_BYTES_MAX = 1024 * 1024 * 1024;

/** A server's export that is open: what its source and all devices of it share. */
export class ExportState {
  readonly profile: DiskProfile;
  readonly flushes = new FlushState();
  readonly failures: FailureLog;
  /** Every position and length is a multiple of it. */
  readonly blockBytes: number;
  /** Of one read or write. */
  readonly transferBytesMax: number;
  /** Of one trim, or of zeroes. */
  readonly rangeBytesMax: number;
  /** Of zeroes that are written. */
  readonly zeroesBytesMax: number;
  readonly canFlush: boolean;
  readonly canFua: boolean;
  /** Until the server says that it cannot. */
  canTrim: boolean;
  canZero: boolean;
  /** A flush failed for the first time. */
  onFlushFailed: () => void = () => {};

  constructor(served: NbdExport, profile: DiskProfile, failures: FailureLog) {
    const { flags, minimumBlockBytes, payloadBytesMax } = served;
    this.profile = profile;
    this.failures = failures;
    this.blockBytes = minimumBlockBytes;
    const wholeBlocks = (bytes: number) => bytes - (bytes % profile.logicalBlockBytes);
    this.transferBytesMax = wholeBlocks(payloadBytesMax);
    this.rangeBytesMax = Math.min(this.transferBytesMax, RANGE_BYTES_MAX);
    this.zeroesBytesMax = Math.min(this.transferBytesMax, ZEROES_BYTES);
    this.canFlush = (flags & TransmissionFlag.sendFlush) !== 0;
    this.canFua = (flags & TransmissionFlag.sendFua) !== 0;
    this.canTrim = (flags & TransmissionFlag.sendTrim) !== 0;
    this.canZero = (flags & TransmissionFlag.sendWriteZeroes) !== 0;
  }
}
