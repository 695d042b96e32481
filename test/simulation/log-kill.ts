/** Kills a daemon in the middle of what it stores in a write log: before any one of the single stores that its file is made of. */
import type { WriteLog } from '../../src/filters/write-log/write-log.ts';

const METHODS = ['setBlock', 'setWord', 'setSequence'] as const;
const FIELDS = ['flushedThrough', 'complete', 'sending', 'device'] as const;

/** Calls `before` before each store; where that throws, the store is not done. */
export function watchStores(log: WriteLog, before: () => void): void {
  const file = log.blocks?.file;
  if (file === undefined) return;
  for (const name of METHODS) {
    const store = file[name];
    file[name] = (entry, value) => {
      before();
      store.call(file, entry, value);
    };
  }
  for (const name of FIELDS) {
    const { get, set } = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(file), name)! as Required<PropertyDescriptor>;
    Object.defineProperty(file, name, {
      get,
      set(value) {
        before();
        set.call(file, value);
      },
    });
  }
}
