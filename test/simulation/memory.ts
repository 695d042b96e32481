import { NativeRegion } from '../../native/region.ts';
import type { StagingRegion } from '../../src/bus/staging.ts';
import type { SimProcess } from './world.ts';

/** The memory of one process that the kernel's I/O can name, by handle. It counts what is not given back, and goes with the process. */
export class ProcessMemory {
  readonly #regions = new Map<number, NativeRegion>();

  constructor(process: SimProcess) {
    process.onKill(() => {
      for (const region of this.#regions.values()) region.release();
      this.#regions.clear();
    });
  }

  /** Regions that are in use. */
  get count(): number {
    return this.#regions.size;
  }

  readonly allocate = (bytes: number): StagingRegion => {
    const region = NativeRegion.allocate(bytes);
    this.#regions.set(region.handle, region);
    return {
      handle: region.handle,
      size: region.size,
      bytes: (offset, length) => region.bytes(offset, length),
      release: () => {
        this.#regions.delete(region.handle);
        region.release();
      },
    };
  };

  /** Undefined where it was given back, or never was. */
  find(handle: number): NativeRegion | undefined {
    return this.#regions.get(handle);
  }
}
