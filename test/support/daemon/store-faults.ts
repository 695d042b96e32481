/** What happens at the very moment in which a host of a cluster stores a step of a hot-swap. */
import { RecordStore } from '../../../src/daemon/store.ts';
import { NetbusError } from '../../../src/device/errors.ts';
import type { ClusterHost } from './cluster.ts';

/** Of a device's attachment the new mark, or that its lease was granted; of the VM's host the swap in its record, and the job's state. */
export type StoredStep =
  | 'copied'
  | 'handing-over'
  | 'superseded'
  | 'filling'
  | 'complete'
  | 'aborted'
  | 'decided'
  | 'swap'
  | 'finishing';

export interface Moment {
  readonly host: ClusterHost;
  readonly step: StoredStep;
  /** Before it is on stable storage, which fails then, or after. */
  readonly when: 'before' | 'after';
}

interface Stored {
  readonly copy?: { readonly state: StoredStep; readonly generation: number };
  readonly swapped?: { readonly generation: number };
  readonly swap?: { readonly generation: number };
  readonly state?: string;
}

/** Those that look at the stores of this process, which has one class of them. */
const open = new Set<StoreFaults>();
const { put, remove } = RecordStore.prototype;

/** Of one cluster; looks at its stores as long as it is open. */
export class StoreFaults {
  readonly #dead = new Set<string>();
  readonly #last = new Map<string, Stored>();
  readonly #folder: string;
  #armed: (Moment & { readonly hit: () => void }) | undefined;

  /** `folder`: of the cluster. */
  constructor(folder: string) {
    this.#folder = `${folder}/`;
    if (open.size === 0) Object.assign(RecordStore.prototype, { put: watchedPut, remove: watchedRemove });
    open.add(this);
  }

  static of(folder: string): StoreFaults | undefined {
    for (const faults of open) if (folder.startsWith(faults.#folder)) return faults;
    return undefined;
  }

  close(): void {
    open.delete(this);
    if (open.size === 0) Object.assign(RecordStore.prototype, { put, remove });
  }

  /** `fault` is called at the next such moment, and the result resolves then. */
  at(moment: Moment, fault: () => void): Promise<void> {
    return new Promise((resolve) => {
      const hit = () => {
        this.#armed = undefined;
        fault();
        resolve();
      };
      this.#armed = { ...moment, hit };
    });
  }

  /** Nothing that it stores from now on is stored. */
  kill(host: ClusterHost): void {
    this.#dead.add(host.folder);
  }

  revive(host: ClusterHost): void {
    this.#dead.delete(host.folder);
  }

  /** Stores `value` in `folder`, unless that fails here. */
  async stores(folder: string, key: string, value: Stored, store: () => Promise<void>): Promise<void> {
    this.checkAlive(folder);
    const place = `${folder}/${key}`;
    const step = stepOf(this.#last.get(place), value);
    const armed = this.#armed;
    const isIt = armed !== undefined && step === armed.step && folder.startsWith(`${armed.host.folder}/`);
    if (isIt && armed.when === 'before') {
      armed.hit();
      throw new NetbusError('device', 'the test lets it not be stored');
    }
    await store();
    this.#last.set(place, value);
    if (isIt && armed === this.#armed) armed.hit();
  }

  /** Throws where its host is dead. */
  checkAlive(folder: string): void {
    for (const dead of this.#dead) {
      if (folder.startsWith(`${dead}/`)) throw new NetbusError('device', 'the test lets this host store nothing more');
    }
  }
}

async function watchedPut(this: RecordStore<unknown>, key: string, value: unknown): Promise<void> {
  const store = () => put.call(this, key, value);
  const faults = StoreFaults.of(this.folder);
  await (faults === undefined ? store() : faults.stores(this.folder, key, value as Stored, store));
}

async function watchedRemove(this: RecordStore<unknown>, key: string): Promise<void> {
  StoreFaults.of(this.folder)?.checkAlive(this.folder);
  await remove.call(this, key);
}

function stepOf(before: Stored | undefined, { copy, swapped, swap, state }: Stored): StoredStep | undefined {
  if (copy !== undefined && (copy.state !== before?.copy?.state || copy.generation !== before.copy.generation))
    return copy.state;
  if (swapped !== undefined && swapped.generation !== before?.swapped?.generation) return 'decided';
  if (swap !== undefined && swap.generation !== before?.swap?.generation) return 'swap';
  return state === 'finishing' && before?.state !== 'finishing' ? 'finishing' : undefined;
}
