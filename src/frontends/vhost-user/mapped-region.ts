import { native } from '../../../native/index.ts';
import type { GuestRegion } from '../../protocols/virtqueue/index.ts';

/**
 * Views are made for each GiB and reach one GiB further, so that whatever is at most 1 GiB long lies inside the view of its first byte.
 */
const VIEW_STEP_BYTES = 2 ** 30;
const VIEW_BYTES_MAX = 2 * VIEW_STEP_BYTES;

/** A file of guest memory, mapped from its beginning. Its views are made once, when they are first needed. */
export class MappedRegion implements GuestRegion {
  readonly handle: number;
  readonly size: number;
  readonly #views: (DataView<ArrayBuffer> | undefined)[];

  /** Maps `size` bytes of `fd`, which stays the caller's. Throws as `mapRegion`: EINVAL where the file is shorter. */
  constructor(fd: number, size: number) {
    this.handle = native.mapRegion(fd, 0, size);
    this.size = size;
    this.#views = new Array(Math.ceil(size / VIEW_STEP_BYTES)).fill(undefined);
  }

  bytes(offset: number, length: number): Uint8Array {
    if (!(length <= VIEW_STEP_BYTES)) throw new RangeError(`a view of ${length} bytes is longer than ${VIEW_STEP_BYTES}`);
    const step = Math.floor(offset / VIEW_STEP_BYTES);
    return new Uint8Array(this.#view(step).buffer, offset - step * VIEW_STEP_BYTES, length);
  }

  readU8(offset: number): number {
    const step = Math.floor(offset / VIEW_STEP_BYTES);
    return this.#view(step).getUint8(offset - step * VIEW_STEP_BYTES);
  }

  readU16(offset: number): number {
    const step = Math.floor(offset / VIEW_STEP_BYTES);
    return this.#view(step).getUint16(offset - step * VIEW_STEP_BYTES, true);
  }

  readU32(offset: number): number {
    const step = Math.floor(offset / VIEW_STEP_BYTES);
    return this.#view(step).getUint32(offset - step * VIEW_STEP_BYTES, true);
  }

  writeU8(offset: number, value: number): void {
    const step = Math.floor(offset / VIEW_STEP_BYTES);
    this.#view(step).setUint8(offset - step * VIEW_STEP_BYTES, value);
  }

  /** Bytes [offset, offset + length) as a buffer that begins there, for typed arrays. Empty once the region is unmapped. */
  window(offset: number, length: number): ArrayBuffer {
    return native.regionWindow(this.handle, offset, length);
  }

  /** Ends all views; the pages go when the last I/O in flight on them is done. */
  unmap(): void {
    native.unmapRegion(this.handle);
  }

  #view(step: number): DataView<ArrayBuffer> {
    const view = this.#views[step];
    if (view !== undefined) return view;
    const start = step * VIEW_STEP_BYTES;
    const made = new DataView(native.regionWindow(this.handle, start, Math.min(VIEW_BYTES_MAX, this.size - start)));
    this.#views[step] = made;
    return made;
  }
}
