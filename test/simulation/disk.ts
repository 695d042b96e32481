/**
 * A disk with a volatile cache, and the kernel's I/O on it. Operations take effect and complete at times and in an order of the seed's; they outlive the
 * process that began them, and die with the host. What was not flushed may be lost then, block by block.
 */
import { IO_COMPLETION_WORDS, IO_OPERATION_WORDS, IO_SEGMENT_WORDS, IoOp } from '../../native/index.ts';
import type { IoCalls } from '../../src/backends/disk/engine.ts';
import type { DiskProfile } from '../../src/device/profile.ts';
import { diskProfile } from '../support/memory-disk.ts';
import type { ProcessMemory } from './memory.ts';
import type { SimProcess, World } from './world.ts';

export const BLOCK_BYTES = 512;
const WORDS_PER_BLOCK = BLOCK_BYTES / 4;
const TYPICAL_MS = 0.3;

/** What watches the disk: each block holds the number of the write that it was last written by; 0: zeroes. */
export interface DiskWitness {
  /** A write takes effect on a block. `isLeftBehind`: of a process that is gone, which keeps the disk from everybody until it has. */
  applied(block: number, write: number, user: string, isLeftBehind: boolean): void;
  /** A flush is done. `user` names the session that it and the writes were for. */
  flushed(user: string): void;
  /** After a power loss: what is left. */
  survived(block: number, write: number): void;
}

interface Block {
  cache: number;
  /** Counts the writes of the disk: the cache's. */
  cacheOrder: number;
  stable: number;
  stableOrder: number;
}

export class SimDisk {
  readonly world: World;
  readonly blocks: Block[];
  /** Under way in the kernel. */
  readonly operations = new Set<Operation>();
  /** Of the guest that uses it; none where it is a copy that nobody uses. */
  witness: DiskWitness | undefined;
  /** Those that had it for a guest whose data is on another disk now. */
  retired: ReadonlySet<string> = new Set();
  /** Added to what each operation takes. */
  stallMs = 0;
  order = 0;
  /** Who has written, by process and engine: of an earlier one nothing may come any more. */
  readonly users: string[] = [];

  constructor(world: World, blocks: number) {
    this.world = world;
    const make = () => ({ cache: 0, cacheOrder: 0, stable: 0, stableOrder: 0 });
    this.blocks = Array.from({ length: blocks }, make);
  }

  get isBlank(): boolean {
    return this.blocks.every(({ cache }) => cache === 0);
  }

  /** Work of processes that are gone. */
  get leftBehind(): boolean {
    return [...this.operations].some(({ process }) => !process.alive);
  }

  writeBack(block: Block): void {
    block.stable = block.cache;
    block.stableOrder = block.cacheOrder;
  }

  /** The host's memory is gone; a block may have been written back before. */
  losePower(): void {
    this.operations.clear();
    for (const [index, block] of this.blocks.entries()) {
      if (block.cacheOrder > block.stableOrder && this.world.chance(2)) this.writeBack(block);
      block.cache = block.stable;
      block.cacheOrder = block.stableOrder;
      this.witness?.survived(index, block.stable);
    }
  }
}

interface Operation {
  readonly process: SimProcess;
  readonly engine: number;
  /** Writes: per block, copied when the process dies before they take effect. */
  content: number[] | undefined;
}

interface Segment {
  readonly handle: number;
  readonly offset: number;
  readonly length: number;
}

interface Engine {
  readonly onCompletion: () => void;
  inFlight: number;
  readonly done: { tag: number; result: number }[];
  announced: boolean;
}

/** The system calls of one process. `disks` by file descriptor. */
export function simulatedIo(process: SimProcess, memory: ProcessMemory, disks: ReadonlyMap<number, SimDisk>): IoCalls {
  const { world } = process;
  const engines = new Map<number, Engine>();
  let lastEngine = 0;
  const announce = (engine: Engine) => {
    if (engine.announced || engine.done.length === 0) return;
    engine.announced = true;
    process.at(0.01, () => {
      engine.announced = false;
      if (engine.done.length === 0) return;
      engine.onCompletion();
      announce(engine);
    });
  };
  return {
    ioCreate: (_options, onCompletion) => {
      engines.set(++lastEngine, { onCompletion, inFlight: 0, done: [], announced: false });
      return lastEngine;
    },
    ioSubmit: (handle, words, count) => {
      const engine = engines.get(handle)!;
      if (!process.alive) return count;
      let at = 0;
      for (let i = 0; i < count; i++) {
        const [op, fd, tag, position, length, segmentCount] = words.subarray(at, at + IO_OPERATION_WORDS);
        at += IO_OPERATION_WORDS;
        const segments: Segment[] = [];
        for (let s = 0; s < segmentCount; s++, at += IO_SEGMENT_WORDS) {
          segments.push({ handle: words[at], offset: words[at + 1], length: words[at + 2] });
        }
        engine.inFlight++;
        const done = (result: number) => {
          engine.done.push({ tag, result });
          announce(engine);
        };
        submit(disks.get(fd)!, { process, memory, engine: handle, op, position, length, segments, done });
      }
      return count;
    },
    ioReap: (handle, completions) => {
      const engine = engines.get(handle)!;
      const taken = engine.done.splice(0, completions.length / IO_COMPLETION_WORDS);
      for (const [i, { tag, result }] of taken.entries()) {
        completions[i * IO_COMPLETION_WORDS] = tag;
        completions[i * IO_COMPLETION_WORDS + 1] = result;
      }
      engine.inFlight -= taken.length;
      return taken.length;
    },
    ioPending: (handle) => engines.get(handle)!.inFlight,
    ioDestroy: (handle) => {
      if (engines.get(handle)!.inFlight > 0) throw new Error('an engine was destroyed while it had work');
      engines.delete(handle);
    },
  };

  function submit(
    disk: SimDisk,
    io: {
      process: SimProcess;
      memory: ProcessMemory;
      engine: number;
      op: number;
      position: number;
      length: number;
      segments: readonly Segment[];
      done: (result: number) => void;
    },
  ): void {
    for (const other of disk.operations) {
      if (other.process === process && other.engine === io.engine) continue;
      world.violated('one writer', `${process.name} begins I/O while that of another session is under way on the same disk`);
    }
    const user = `${process.name} engine ${io.engine}`;
    if (!disk.users.includes(user)) disk.users.push(user);
    if (disk.users.at(-1) !== user) world.violated('one writer', `${user} begins I/O after ${disk.users.at(-1)} had the disk`);
    const operation: Operation = { process, engine: io.engine, content: undefined };
    disk.operations.add(operation);
    const first = io.position / BLOCK_BYTES;
    const blocks = Array.from({ length: io.length / BLOCK_BYTES }, (_, i) => first + i);
    const isWrite = io.op === IoOp.write || io.op === IoOp.writeDurable;
    // The kernel holds on to the memory of a process that ended.
    process.onKill(() => {
      if (isWrite && disk.operations.has(operation)) operation.content ??= readPayload(io.segments);
    });
    const covered = io.op === IoOp.flush ? disk.blocks.map((block) => block.cacheOrder) : [];
    const coveredWrites = io.op === IoOp.flush ? disk.blocks.map((block) => block.cache) : [];
    const written: { order: number; write: number }[] = [];
    const effectMs = world.latency(TYPICAL_MS) + disk.stallMs;
    const completeMs = effectMs + world.latency(TYPICAL_MS / 3);
    /** The blocks of one operation take effect one by one. */
    const apply = (from: number, to: number) => {
      if (!disk.operations.has(operation)) return;
      const payload = isWrite ? (operation.content ?? readPayload(io.segments)) : undefined;
      for (let i = from; i < to; i++) {
        if (payload !== undefined || io.op === IoOp.zeroRange || io.op === IoOp.punchHole) {
          const block = disk.blocks[blocks[i]];
          const before = block.cache;
          block.cache = payload?.[i] ?? 0;
          block.cacheOrder = ++disk.order;
          written[i] = { order: disk.order, write: block.cache };
          if (before !== 0 || block.cache !== 0) world.trace(`disk ${process.name} block ${blocks[i]} = ${block.cache}`);
          if (disk.retired.has(user) && process.alive)
            world.violated('one copy', `${user} wrote to a disk that another one has replaced`);
          disk.witness?.applied(blocks[i], block.cache, user, !process.alive);
          if (world.chance(8)) disk.writeBack(block);
        } else if (io.op === IoOp.read && process.alive) {
          writePayload(io.segments, i, disk.blocks[blocks[i]].cache);
        }
      }
    };
    const half = blocks.length > 1 && world.chance(3) ? world.random.below(blocks.length) : 0;
    if (half > 0) world.at(effectMs / 2, () => apply(0, half), { calls: false });
    world.at(effectMs, () => apply(half, blocks.length), { calls: false });
    const complete = () => {
      if (!disk.operations.delete(operation)) return;
      for (const [i, { order, write }] of written.entries()) {
        const block = disk.blocks[blocks[i]];
        if (io.op !== IoOp.writeDurable || block.stableOrder >= order) continue;
        block.stable = write;
        block.stableOrder = order;
      }
      if (io.op === IoOp.flush) {
        for (const [i, block] of disk.blocks.entries()) {
          if (block.stableOrder >= covered[i]) continue;
          block.stable = coveredWrites[i];
          block.stableOrder = covered[i];
        }
        disk.witness?.flushed(user);
      }
      if (process.alive) io.done(io.op === IoOp.read || isWrite ? io.length : 0);
    };
    world.at(completeMs, complete);
  }

  function readPayload(segments: readonly Segment[]): number[] {
    const content: number[] = [];
    for (const { handle, offset, length } of segments) {
      const bytes = memory.find(handle)?.bytes(offset, length);
      if (bytes === undefined) {
        world.violated('memory', `${process.name}: memory was given back while the kernel's I/O used it`);
        return content;
      }
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset, length / 4);
      for (let at = 0; at < words.length; at += WORDS_PER_BLOCK) content.push(blockContent(world, words, at));
    }
    return content;
  }

  function writePayload(segments: readonly Segment[], block: number, write: number): void {
    let skip = block * BLOCK_BYTES;
    for (const { handle, offset, length } of segments) {
      if (skip < length) {
        const bytes = memory.find(handle)?.bytes(offset + skip, BLOCK_BYTES);
        if (bytes === undefined)
          world.violated('memory', `${process.name}: memory was given back while the kernel read into it`);
        else new Uint32Array(bytes.buffer, bytes.byteOffset, WORDS_PER_BLOCK).fill(write);
        return;
      }
      skip -= length;
    }
  }
}

/** The number that all words of a block have. */
export function blockContent(world: World, words: Uint32Array, at: number): number {
  for (let i = 1; i < WORDS_PER_BLOCK; i++) {
    if (words[at + i] === words[at]) continue;
    world.violated('data', `a block holds ${words[at]} and ${words[at + i]}: it was mixed up on its way`);
    break;
  }
  return words[at];
}

export function profileOf(disk: SimDisk): DiskProfile {
  return diskProfile({
    capacityBytes: disk.blocks.length * BLOCK_BYTES,
    physicalBlockBytes: BLOCK_BYTES,
    optimalIoBytes: 0,
    features: ['flush', 'write-zeroes', 'write-cache-control', 'multi-queue'],
  });
}
