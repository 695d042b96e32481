/** What makes a mirror copy everything once more: the old device is not what was copied. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ForgetfulDisk } from '../../test/support/forgetful-disk.ts';
import { MemoryRegion } from '../../test/support/memory-region.ts';
import { NetbusError } from '../device/errors.ts';
import { MessageTable } from '../device/message-table.ts';
import type { Grant } from '../device/source.ts';
import { ManualClock } from '../lib/clock.ts';
import { SwapMirror } from './swap-mirror.ts';

const BYTES = 256 * 1024;
const folder = mkdtempSync(join(tmpdir(), 'netbus-swap-mirror-'));
after(() => rmSync(folder, { recursive: true }));
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const lost = new NetbusError('device', 'writes may be lost');

for (const [what, given, isCopiedAgain] of [
  ['is the same', { epoch: 2, bootId: 'first' }, false],
  ['forgot, and is sent what it forgot', { epoch: 2, bootId: 'second', unflushed: 'kept' }, false],
  ['forgot, and nobody sends it again', { epoch: 2, bootId: 'second', unflushed: lost }, true],
  ['forgot, and nobody knows what', { epoch: 2, bootId: 'second' }, true],
  ['was with somebody else', { epoch: 3, bootId: 'first' }, true],
] as const) {
  test(`an old device that ${what} is copied ${isCopiedAgain ? 'again' : 'once'}`, async () => {
    const [old, target] = [new ForgetfulDisk(BYTES), new ForgetfulDisk(BYTES)];
    old.memory.fill(1);
    let present: Omit<Grant, 'device'> = { epoch: 1, bootId: 'first', instance: 'one' };
    const sessions = (disk: ForgetfulDisk, ids: () => Omit<Grant, 'device'>) => async () => ({
      activate: async () => ({ ...ids(), device: disk.open() }),
      quiesced: async () => {},
      close: () => {},
    });
    const mirror = new SwapMirror(
      {
        ...{ path: join(folder, 'map'), owner: what, capacityBytes: BYTES, isBlank: false },
        ...{ bytesPerSecondMax: undefined, paused: false, generation: () => 2 },
        openTarget: sessions(target, () => ({ epoch: 1, bootId: 'target', instance: 'one' })),
        allocate: (bytes) => Object.assign(new MemoryRegion(bytes), { release: () => {} }),
        ...{ onConverged: () => {}, onFailed: (cause) => assert.fail(cause), clock: new ManualClock(), log: quiet },
      },
      { left: false },
    );
    const session = async () => {
      const { device } = await (await mirror.wrap(sessions(old, () => present))(() => {})).activate();
      device.start({ requests: new MessageTable(1), reply: () => {}, push: () => 0, ready: () => {}, lost: () => {} });
      return device;
    };
    const first = await session();
    for (let turns = 0; !mirror.converged; turns++) {
      assert.ok(turns < 10_000);
      await turn();
    }
    await first.close();
    mirror.pause();
    present = { instance: 'one', ...given };
    const second = await session();
    assert.equal(mirror.progress.dirtyBytes, isCopiedAgain ? BYTES : 0);
    await second.close();
    await mirror.close();
    mirror.remove();
  });
}
