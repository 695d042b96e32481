/**
 * The folder of records of one host: names and contents that are not synced are lost with the power, and what is being written when a process or
 * the host ends may be half there.
 */
import { dirname } from 'node:path';
import type { RecordFiles } from '../../src/daemon/record-files.ts';
import type { SimProcess, World } from './world.ts';

const TYPICAL_MS = 1;

interface Inode {
  content: string;
  /** What is on stable storage. */
  synced: string;
}

type NameChange =
  | { readonly kind: 'set'; readonly path: string; readonly inode: Inode }
  | { readonly kind: 'delete'; readonly path: string };

export class SimFiles {
  readonly #world: World;
  #names = new Map<string, Inode>();
  readonly #stableNames = new Map<string, Inode>();
  /** Changes of names that are not on stable storage, oldest first. */
  #journal: NameChange[][] = [];

  constructor(world: World) {
    this.#world = world;
  }

  /** As if it had been there for long. */
  put(path: string, content: string): void {
    const inode = { content, synced: content };
    this.#names.set(path, inode);
    this.#stableNames.set(path, inode);
  }

  losePower(): void {
    const kept = this.#world.random.below(this.#journal.length + 1);
    for (const changes of this.#journal.slice(0, kept)) this.#settle(changes);
    this.#journal = [];
    for (const inode of new Set(this.#stableNames.values())) {
      if (inode.content !== inode.synced) inode.content = this.#half(inode.content, inode.synced);
      inode.synced = inode.content;
    }
    this.#names = new Map(this.#stableNames);
  }

  /** What a process of this host does with files. */
  of(process: SimProcess): RecordFiles {
    return {
      makeFolder: () => this.#later(process, 'makeFolder', () => {}),
      list: (folder) => this.#later(process, 'list', () => this.#list(folder)),
      read: (path) =>
        this.#later(process, `read ${path}`, () => {
          const inode = this.#find(path);
          inode.synced = inode.content;
          return inode.content;
        }),
      write: (path, content) => this.#write(process, path, content),
      overwrite: (path, position, content) => this.#overwrite(process, path, position, content),
      rename: (from, to) =>
        this.#later(process, `rename ${to}`, () => {
          const inode = this.#find(from);
          this.#change([
            { kind: 'delete', path: from },
            { kind: 'set', path: to, inode },
          ]);
        }),
      remove: (path) =>
        this.#later(process, `remove ${path}`, () => {
          this.#find(path);
          this.#change([{ kind: 'delete', path }]);
        }),
      syncFolder: (folder) =>
        this.#later(process, `sync ${folder}`, () => {
          for (const changes of this.#journal) this.#settle(changes);
          this.#journal = [];
        }),
    };
  }

  #write(process: SimProcess, path: string, content: string): Promise<void> {
    let inode = this.#names.get(path);
    if (!process.alive) return new Promise(() => {});
    if (inode === undefined) {
      inode = { content: '', synced: '' };
      this.#change([{ kind: 'set', path, inode }]);
    }
    const written = inode;
    written.content = this.#half(content, '');
    return this.#later(process, `write ${path}`, () => {
      written.content = content;
      written.synced = content;
    });
  }

  /** In place: what is on its way may be there in part, in memory and on the disk. */
  #overwrite(process: SimProcess, path: string, position: number, content: string): Promise<void> {
    const what = `overwrite ${path} at ${position}`;
    const inode = this.#names.get(path);
    if (inode === undefined) return this.#later(process, what, () => void this.#find(path));
    if (process.alive) inode.content = splice(inode.content, position, this.#half(content, ''));
    return this.#later(process, what, () => {
      inode.content = splice(inode.content, position, content);
      inode.synced = splice(inode.synced, position, content);
    });
  }

  /** The call is in the kernel: what a process that ends has begun may be done or not. */
  #later<T>(process: SimProcess, what: string, work: () => T): Promise<T> {
    if (!process.alive) return new Promise(() => {});
    return new Promise((resolve, reject) => {
      let isPending = true;
      const end = () => {
        isPending = false;
        try {
          const result = work();
          this.#world.trace(`files ${process.name} ${what}`);
          process.tell(() => resolve(result));
        } catch (thrown) {
          process.tell(() => reject(thrown));
        }
      };
      process.onKill(() => {
        if (isPending && this.#world.chance(2)) end();
        isPending = false;
      });
      this.#world.at(this.#world.latency(TYPICAL_MS), () => {
        if (isPending) end();
      });
    });
  }

  #list(folder: string): string[] {
    const paths = [...this.#names.keys()].filter((path) => dirname(path) === folder);
    return paths.map((path) => path.slice(folder.length + 1));
  }

  #find(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' });
    return inode;
  }

  #change(changes: NameChange[]): void {
    apply(this.#names, changes);
    this.#journal.push(changes);
  }

  #settle(changes: readonly NameChange[]): void {
    apply(this.#stableNames, changes);
  }

  /** As much of it as was written. */
  #half(content: string, synced: string): string {
    if (this.#world.chance(3)) return synced;
    const part = content.slice(0, this.#world.random.below(content.length + 1));
    // A file that had this size keeps it.
    return synced.length === content.length ? splice(synced, 0, part) : part;
  }
}

function splice(content: string, position: number, part: string): string {
  return content.slice(0, position) + part + content.slice(position + part.length);
}

function apply(names: Map<string, Inode>, changes: readonly NameChange[]): void {
  for (const change of changes) {
    if (change.kind === 'delete') names.delete(change.path);
    else names.set(change.path, change.inode);
  }
}
