import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cleanup } from './cleanup.ts';
import { RunningProcess } from './process.ts';

test('actions run in the reverse order, each also where another fails, and once', async () => {
  const cleanup = new Cleanup();
  const order: string[] = [];
  const note = (what: string) => cleanup.add(what, () => void order.push(what));
  note('first');
  cleanup.add('broken', () => {
    throw new Error('stuck');
  });
  const forget = note('forgotten');
  note('last');
  forget();
  await assert.rejects(cleanup.run(), /could not clean up broken/);
  assert.deepEqual(order, ['last', 'first']);
  await cleanup.run();
  assert.deepEqual(order, ['last', 'first']);
});

test('a signal runs the actions, lets nothing new begin, and then ends the process', async () => {
  const source = `
    import { Cleanup } from ${JSON.stringify(new URL('./cleanup.ts', import.meta.url).href)};
    const cleanup = new Cleanup();
    setInterval(() => {}, 1000);
    cleanup.add('first', async () => {
      await new Promise((resolve) => setTimeout(resolve, 10));
      try {
        cleanup.add('late', () => console.log('late is undone'));
      } catch (error) {
        console.log(error.message);
      }
    });
    console.log('ready');
  `;
  const program = new RunningProcess([process.execPath, '--import', 'tsx', '--input-type=module', '--eval', source], {});
  await program.waitForLine(/^ready$/);
  program.signal('SIGINT');
  assert.equal((await program.exited).signal, 'SIGINT');
  assert.deepEqual(program.stdout.split('\n'), ['ready', 'late is undone', 'ending by SIGINT', '']);
});
