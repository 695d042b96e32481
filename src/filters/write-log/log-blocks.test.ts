import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { NativeRegion } from '../../../native/region.ts';
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';
import { SegmentList } from '../../device/segments.ts';
import { SECTORS_PER_BLOCK } from './block-sectors.ts';
import { LogBlocks } from './log-blocks.ts';
import { LOG_BLOCK_BYTES, LogFile } from './log-file.ts';

const DISK_SECTORS = 40;
const BOUND_BYTES = 64 * LOG_BLOCK_BYTES;

type Step =
  | { readonly do: 'write' | 'zero' | 'drop'; readonly sector: number; readonly sectors: number; readonly byte: number }
  | { readonly do: 'flush'; readonly back: number }
  | { readonly do: 'release'; readonly count: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('write' as const, 'write' as const, 'zero' as const, 'drop' as const),
      sector: fc.nat(DISK_SECTORS - 1),
      sectors: fc.integer({ min: 1, max: 20 }),
      byte: fc.integer({ min: 1, max: 255 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('flush' as const), back: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('release' as const), count: fc.nat(3) }) },
);

/** Per sector: the byte that the log has for it, with the acknowledgement that its block had last. */
class Model {
  readonly bytes: (number | undefined)[] = new Array(DISK_SECTORS).fill(undefined);
  readonly blockSequence: number[] = new Array(DISK_SECTORS / SECTORS_PER_BLOCK).fill(0);
}

describe('log blocks', () => {
  let folder: string;
  let source: NativeRegion;
  let runs = 0;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'netbus-log-'));
    source = NativeRegion.allocate(DISK_SECTORS * DISK_SECTOR_BYTES);
  });
  after(() => {
    source.release();
    rmSync(folder, { recursive: true });
  });

  const options = (path: string) => ({ path, owner: 'm2 web/data', boundBytes: BOUND_BYTES });

  function apply(blocks: LogBlocks, model: Model, action: Step): void {
    if (action.do === 'release') {
      blocks.release(action.count);
      return;
    }
    if (action.do === 'flush') {
      const through = Math.max(0, blocks.sequence - action.back);
      blocks.flushed(through);
      model.blockSequence.forEach((sequence, block) => {
        if (sequence > through) return;
        for (let i = 0; i < SECTORS_PER_BLOCK; i++) model.bytes[block * SECTORS_PER_BLOCK + i] = undefined;
      });
      return;
    }
    const sectors = Math.min(action.sectors, DISK_SECTORS - action.sector);
    const position = action.sector * DISK_SECTOR_BYTES;
    const extent = sectors * DISK_SECTOR_BYTES;
    assert.ok(blocks.hasRoom(8));
    let sequence = blocks.sequence;
    if (action.do === 'write') {
      source.bytes(0, extent).fill(action.byte);
      const segments = new SegmentList();
      segments.add(source, 0, extent);
      blocks.write(position, extent, segments, 0);
    } else if (action.do === 'zero') blocks.writeZeroes(position, extent, 0);
    else blocks.drop(position, extent);
    const byte = action.do === 'write' ? action.byte : action.do === 'zero' ? 0 : undefined;
    for (let sector = action.sector; sector < action.sector + sectors; sector++) model.bytes[sector] = byte;
    if (byte === undefined) return;
    // The last block is acknowledged first.
    const [first, last] = [action.sector, action.sector + sectors - 1].map((sector) => Math.floor(sector / SECTORS_PER_BLOCK));
    for (let block = last; block >= first; block--) model.blockSequence[block] = ++sequence;
  }

  function content(blocks: LogBlocks): (number | undefined)[] {
    const found: (number | undefined)[] = new Array(DISK_SECTORS).fill(undefined);
    for (let block = 0; block < DISK_SECTORS / SECTORS_PER_BLOCK; block++) {
      const entry = blocks.entry(block);
      if (entry < 0) continue;
      for (let i = 0; i < SECTORS_PER_BLOCK; i++) {
        if (((blocks.sectors(entry) >> i) & 1) === 0) continue;
        const bytes = blocks.file.region.bytes(blocks.dataOffset(entry) + i * DISK_SECTOR_BYTES, DISK_SECTOR_BYTES);
        if (!blocks.isZero(entry))
          assert.ok(
            bytes.every((byte) => byte === bytes[0]),
            'a torn sector',
          );
        found[block * SECTORS_PER_BLOCK + i] = blocks.isZero(entry) ? 0 : bytes[0];
      }
    }
    return found;
  }

  function reopened(path: string): (number | undefined)[] {
    const file = LogFile.open(options(path));
    assert.ok(file);
    try {
      return content(new LogBlocks(file, 0));
    } finally {
      file.close();
    }
  }

  test('agrees with a model, also after it was opened again', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(59), (steps, restartAt) => {
        const path = join(folder, `model-${runs++}`);
        let blocks = new LogBlocks(LogFile.create(options(path)), 0);
        const model = new Model();
        steps.forEach((action, i) => {
          apply(blocks, model, action);
          assert.deepEqual(content(blocks), model.bytes);
          if (i !== restartAt) return;
          blocks.file.close();
          blocks = new LogBlocks(LogFile.open(options(path))!, 0);
          assert.deepEqual(content(blocks), model.bytes);
        });
        blocks.file.close();
        rmSync(path);
      }),
      { numRuns: 60 },
    );
  });

  test('a daemon that is killed at any store leaves the old content or the new one of each block', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), step, (steps, last) => {
        const path = join(folder, `cut-${runs++}`);
        const file = LogFile.create(options(path));
        const blocks = new LogBlocks(file, 0);
        const model = new Model();
        for (const action of steps) apply(blocks, model, action);
        const old = [...model.bytes];
        const cuts: string[] = [];
        const cut = () => {
          const copy = `${path}-${cuts.length}`;
          copyFileSync(path, copy);
          cuts.push(copy);
        };
        // Every store of an entry, and the file as it is before each of them, that is after the data was copied.
        for (const name of ['setBlock', 'setWord', 'setSequence'] as const) {
          const store = file[name].bind(file);
          file[name] = (entry: number, value: number) => {
            cut();
            store(entry, value);
          };
        }
        const through = Object.getOwnPropertyDescriptor(LogFile.prototype, 'flushedThrough')!;
        Object.defineProperty(file, 'flushedThrough', {
          get: () => through.get!.call(file),
          set: (value: number) => {
            cut();
            through.set!.call(file, value);
          },
        });
        apply(blocks, model, last);
        cut();
        file.close();
        for (const copy of cuts) {
          const found = reopened(copy);
          for (let first = 0; first < DISK_SECTORS; first += SECTORS_PER_BLOCK) {
            const part = (all: readonly (number | undefined)[]) =>
              JSON.stringify(all.slice(first, first + SECTORS_PER_BLOCK), (_, v) => v ?? -1);
            assert.ok([part(old), part(model.bytes)].includes(part(found)), `block at sector ${first}: ${part(found)}`);
          }
          rmSync(copy);
        }
        rmSync(path);
      }),
      { numRuns: 40 },
    );
  });

  test('what a flush covers is gone at once, and taken back in pieces', () => {
    const path = join(folder, 'pieces');
    const blocks = new LogBlocks(LogFile.create(options(path)), 0);
    assert.ok(blocks.hasRoom(8));
    blocks.writeZeroes(0, 8 * LOG_BLOCK_BYTES, 0);
    blocks.flushed(6);
    assert.deepEqual([blocks.used, blocks.entry(7), blocks.releasing], [8, -1, true]);
    blocks.release(2);
    assert.deepEqual([blocks.used, blocks.releasing], [6, true]);
    assert.ok(blocks.hasRoom(62), 'all but the two that no flush covers');
    assert.deepEqual([blocks.used, blocks.releasing], [2, false]);
    assert.deepEqual([...blocks.blocks()], [0, 1]);
    blocks.file.close();
    rmSync(path);
  });

  test('any damaged byte of an entry is found, and so is a file that is cut, of somebody else, or no log at all', () => {
    const path = join(folder, 'damaged');
    const file = LogFile.create(options(path));
    const blocks = new LogBlocks(file, 0);
    assert.ok(blocks.hasRoom(2));
    blocks.writeZeroes(0, LOG_BLOCK_BYTES, 0);
    const [entry] = [blocks.entry(0)];
    for (const [get, set] of [
      [() => file.block(entry), (value: number) => file.setBlock(entry, value)],
      [() => file.word(entry), (value: number) => file.setWord(entry, value)],
      [() => file.sequence(entry), (value: number) => file.setSequence(entry, value)],
    ] as const) {
      const before = get();
      set(before + 1);
      assert.throws(() => new LogBlocks(file, 0), { code: 'device', message: /damaged/ });
      set(before);
    }
    file.close();
    assert.equal(LogFile.open({ ...options(path), owner: 'another' }), undefined);
    truncateSync(path, 100 * 1024);
    assert.throws(() => LogFile.open(options(path)), { code: 'device', message: /another size/ });
    truncateSync(path, 100);
    assert.throws(() => LogFile.open(options(path)), { code: 'device', message: /no whole header/ });
    writeFileSync(path, Buffer.alloc(8192));
    assert.throws(() => LogFile.open(options(path)), { code: 'device', message: /not a write log/ });
    rmSync(path);
    assert.equal(LogFile.open(options(path)), undefined);
  });
});
