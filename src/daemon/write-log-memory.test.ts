import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { BlockWriter } from '../../bench/faults/block-writer.ts';
import { Cluster } from '../../test/support/daemon/cluster.ts';
import { NOT_POSSIBLE_HERE } from '../../test/support/skip.ts';
import { waitFor } from '../../test/support/wait.ts';

const MIB = 1024 * 1024;
/** Of the run folder: room for the log's first step, and none for its second. */
const MEMORY_MIB = 3;
/** More than fit the log there. */
const BLOCKS = 1024;
/** Below half of that log. */
const UNFLUSHED_BLOCKS = 100;
const WAIT_MS = 60_000;

const skip = process.getuid?.() === 0 ? false : `${NOT_POSSIBLE_HERE}only root may mount a tmpfs`;

test('a run folder without memory for more of the log: slower, said so, and nothing is lost', {
  skip,
  timeout: 120_000,
}, async () => {
  const cluster = await Cluster.make('m1', 'm2');
  const [m1, m2] = [cluster.host('m1'), cluster.host('m2')];
  const run = join(m2.folder, 'run');
  mkdirSync(run);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${MEMORY_MIB}m,mode=755`, 'tmpfs', run]);
  let writer: BlockWriter | undefined;
  try {
    await m1.start('first boot');
    await m2.start();
    const image = m1.image('data.img', BLOCKS * 4096);
    await m1.client.export({ name: 'data', disk: image, allow: ['m2'] });
    const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    const options = {
      name: 'data',
      socketPath: socket,
      blocks: BLOCKS,
      seed: 1,
      queues: 1,
      depth: 16,
      paceMs: 0,
      flushPercent: 0,
    };
    writer = await BlockWriter.connect(options);
    writer.resume();
    const writes = writer;
    const log = async () => (await m2.client.status()).attachments[0].writeLog;
    const short = await waitFor(
      'the log to be short of memory',
      async () => {
        const now = await log();
        return now?.reason === undefined ? undefined : now;
      },
      WAIT_MS,
    );
    assert.match(short.reason!, /no memory for more in the folder of .*: writes wait for flushes more often/);
    assert.equal(short.boundBytes, MIB);
    const until = writes.acknowledged + 4 * BLOCKS;
    await waitFor('the guest to go on', () => writes.acknowledged > until || undefined, WAIT_MS);
    assert.ok((await log())!.backgroundFlushes > 0);

    // The device's host loses its power, with all that was not flushed: fewer blocks than the log flushes by itself.
    assert.ok(await writes.pause(WAIT_MS));
    assert.ok(await writes.flush());
    copyFileSync(image, `${image}.flushed`);
    for (let block = 0; block < UNFLUSHED_BLOCKS; block++) assert.ok(await writes.write(block));
    await m1.stop();
    copyFileSync(`${image}.flushed`, image);
    await m1.start('second boot');
    assert.ok(await writes.verify(WAIT_MS));
    assert.deepEqual([writes.lost, writes.stale, writes.errorCount], [0, 0, 0], JSON.stringify(writes.findings[0]));

    execFileSync('mount', ['-o', 'remount,size=64m', run]);
    writes.resume();
    await waitFor('the log to have memory', async () => ((await log())?.reason === undefined ? true : undefined), WAIT_MS);
    assert.ok((await log())!.boundBytes > MIB);
    assert.deepEqual([writes.lost, writes.stale, writes.errorCount], [0, 0, 0]);
  } finally {
    writer?.close();
    await m2.stop();
    execFileSync('umount', [run]);
    await cluster.close();
  }
});
