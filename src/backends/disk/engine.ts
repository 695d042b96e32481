import { IO_COMPLETION_WORDS, IO_OPERATION_WORDS, IO_SEGMENT_WORDS, IoOp, type Native } from '../../../native/index.ts';
import { NativeRegion } from '../../../native/region.ts';
import { NetbusError } from '../../device/errors.ts';

/** The calls that move data, so that tests can put faults in their place. */
export type IoCalls = Pick<Native, 'ioCreate' | 'ioSubmit' | 'ioReap' | 'ioPending' | 'ioDestroy'>;

export type Engine = 'io_uring' | 'threads';

/** The engine that works here: `auto` takes io_uring unless the host forbids it. Throws `usage` where the chosen one does not work. */
export function chooseEngine(calls: IoCalls, wanted: Engine | 'auto'): { engine: Engine; reason: string } {
  if (wanted === 'threads') return { engine: 'threads', reason: 'chosen' };
  try {
    calls.ioDestroy(calls.ioCreate({ entries: 1, engine: 'io_uring' }, () => {}));
    return { engine: 'io_uring', reason: wanted === 'auto' ? 'available' : 'chosen' };
  } catch (thrown) {
    const reason = `io_uring is not available: ${(thrown as Error).message}`;
    if (wanted === 'auto') return { engine: 'threads', reason };
    throw new NetbusError('usage', `${reason}: allow it (sysctl kernel.io_uring_disabled), or choose the engine "auto"`);
  }
}

/**
 * The smallest block that direct I/O on this file takes: the filesystem does not always say, so it is tried by reading.
 * Throws `usage` where none works.
 */
export async function directBlockBytes(calls: IoCalls, engine: Engine, fd: number, path: string): Promise<number> {
  for (const bytes of [512, 4096]) {
    // At its own size, so that the position is not aligned to more than the length is.
    if ((await readOnce(calls, engine, fd, bytes)) >= 0) return bytes;
  }
  throw new NetbusError('usage', `${path}: direct I/O does not work on its filesystem: leave "direct" out`);
}

/** Reads `length` bytes at position `length` and returns how many came, or a negative errno. */
async function readOnce(calls: IoCalls, engine: Engine, fd: number, length: number): Promise<number> {
  const region = NativeRegion.allocate(length);
  const completions = new Float64Array(IO_COMPLETION_WORDS);
  try {
    return await new Promise<number>((resolve) => {
      const handle = calls.ioCreate({ entries: 1, engine }, () => {
        if (calls.ioReap(handle, completions) === 0) return;
        calls.ioDestroy(handle);
        resolve(completions[1]);
      });
      const operation = new Float64Array(IO_OPERATION_WORDS + IO_SEGMENT_WORDS);
      operation.set([IoOp.read, fd, 0, length, 0, 1, region.handle, 0, length]);
      const taken = calls.ioSubmit(handle, operation, 1);
      if (taken === 1) return;
      calls.ioDestroy(handle);
      resolve(taken);
    });
  } finally {
    region.release();
  }
}
