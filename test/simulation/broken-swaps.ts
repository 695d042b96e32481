/** Hosts that are broken where disks are swapped. */
import { Copies } from '../../src/daemon/copies.ts';
import type { DeviceHost } from '../../src/daemon/device-host.ts';
import { isTarget } from '../../src/device/copy-mark.ts';
import { DirtyMap } from '../../src/migration/mirror/dirty-map.ts';
import type { CopyHost } from '../../src/migration/swap/copy-host.ts';
import type { Broken } from './broken.ts';
import { replaced } from './broken-moves.ts';

/** A write that is missing on the new disk shows at the decision, if not before. */
const LOSSES = ['one copy', 'acknowledged', 'flushed'];

export const brokenSwaps: readonly Broken[] = [
  {
    what: 'the map of a copy forgets what the guest writes',
    invariants: LOSSES,
    wrappers: { swaps: true, map: (map) => Object.assign(map, { markDirty: () => {} }) },
  },
  {
    what: 'a switch does not finish the copy',
    invariants: LOSSES,
    wrappers: { swaps: true, during: neverBehind },
  },
  {
    what: 'the old disk is not told to hand over, and never superseded',
    invariants: ['one copy', 'every hold ends'],
    wrappers: { swaps: true, deviceHost: (host) => withCopies(host, { handOver: async () => {}, supersede: async () => {} }) },
  },
  {
    what: 'the host of the old disk does not store that it is superseded',
    invariants: ['one copy'],
    wrappers: { swaps: true, during: () => replaced(Copies.prototype, 'supersede', async () => {}) },
  },
  {
    what: 'the host of the new disk does not store that a swap was given up',
    invariants: ['one copy', 'every hold ends'],
    wrappers: { swaps: true, during: abortingNothing },
  },
  {
    what: 'the guest goes back to the old disk without a word of the new one',
    invariants: ['one copy', 'every hold ends'],
    wrappers: { swaps: true, deviceHost: (host) => withCopies(host, { abort: async () => ({ decided: false }) }) },
  },
];

/** Says that both are the same whatever is missing. */
function neverBehind(): () => void {
  const real = Object.getOwnPropertyDescriptor(DirtyMap.prototype, 'dirty')!;
  Object.defineProperty(DirtyMap.prototype, 'dirty', { ...real, get: () => 0 });
  return () => Object.defineProperty(DirtyMap.prototype, 'dirty', real);
}

/** As far as the new disk is concerned: it answers that it has done it. */
function abortingNothing(): () => void {
  const { abort } = Copies.prototype;
  return replaced(Copies.prototype, 'abort', async function (this: Copies, caller, attachment, generation) {
    const mark = this.mark(caller, attachment);
    return mark !== null && isTarget(mark) ? { decided: false } : abort.call(this, caller, attachment, generation);
  });
}

/** The same host, which does something else for swaps. */
function withCopies(host: DeviceHost, change: Partial<CopyHost>): DeviceHost {
  const copies = new Proxy(host.copies, {
    get: (target, name) => {
      const method = Reflect.get(change, name) ?? Reflect.get(target, name);
      return (method as (...given: unknown[]) => unknown).bind(target);
    },
  });
  return new Proxy(host, {
    get: (target, name) => {
      if (name === 'copies') return copies;
      return (Reflect.get(target, name) as (...given: unknown[]) => unknown).bind(target);
    },
  });
}
