import { native } from './index.ts';

/** Most bytes of one `bytes` call, as `Region` says. */
const VIEW_BYTES_MAX = 2 ** 30;
/** Windows begin every GiB and are up to two long, so that every view that may be asked for lies inside one of them. */
const WINDOW_STRIDE_BYTES = VIEW_BYTES_MAX;
const WINDOW_BYTES_MAX = 2 * VIEW_BYTES_MAX;

/** A `Region` (src/device/region.ts, by its shape: nothing here depends on the rest) that system calls can use: a mapping of the addon. */
export class NativeRegion {
  readonly handle: number;
  readonly size: number;
  /** By number, made when first looked through. */
  readonly #windows: (ArrayBuffer | undefined)[] = [];
  #released = false;

  private constructor(handle: number, size: number) {
    this.handle = handle;
    this.size = size;
  }

  /** Anonymous memory, zeroed, its pages taken when they are first written. Throws the addon's error (ENOMEM …). */
  static allocate(size: number): NativeRegion {
    return new NativeRegion(native.allocateRegion(size), size);
  }

  /** Maps [offset, offset + length) of `fd`, shared. The descriptor stays the caller's. Throws the addon's error (EINVAL: file too short …). */
  static map(fd: number, offset: number, length: number): NativeRegion {
    return new NativeRegion(native.mapRegion(fd, offset, length), length);
  }

  bytes(offset: number, length: number): Uint8Array {
    if (!(offset >= 0 && length >= 0 && length <= VIEW_BYTES_MAX && offset + length <= this.size)) {
      throw new RangeError(`a view of ${length} bytes at ${offset} is not inside a region of ${this.size} bytes`);
    }
    if (this.#released) throw new Error('a view of a region that was released');
    // The end of a region whose size is whole strides belongs to the window before.
    const window = Math.floor(Math.min(offset, this.size - 1) / WINDOW_STRIDE_BYTES);
    return new Uint8Array(this.#windows[window] ?? this.#open(window), offset - window * WINDOW_STRIDE_BYTES, length);
  }

  /** Accesses that found the file behind the mapping gone. */
  get faults(): number {
    return native.regionFaults(this.handle);
  }

  /** Ends the owner's use: views become empty at once, the memory goes when no system call uses it. Twice is once. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#windows.length = 0;
    native.unmapRegion(this.handle);
  }

  #open(window: number): ArrayBuffer {
    const start = window * WINDOW_STRIDE_BYTES;
    const buffer = native.regionWindow(this.handle, start, Math.min(WINDOW_BYTES_MAX, this.size - start));
    this.#windows[window] = buffer;
    return buffer;
  }
}
