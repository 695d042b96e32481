import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { TestAuthority } from '../../test/support/bus-host.ts';
import { ManualClock } from '../lib/clock.ts';
import { dial } from './dial.ts';
import { CONNECT_MS_MAX } from './tls-transport.ts';

const BACKLOG = 1;
/** Listens, and takes nothing from then on. */
const LISTENER = `
  require('node:net').createServer().listen({ host: '127.0.0.1', port: 0, backlog: ${BACKLOG} }, function () {
    process.stdout.write(this.address().port + '\\n', () => process.kill(process.pid, 'SIGSTOP'));
  });`;

const disposals: (() => void)[] = [];
after(() => {
  for (const dispose of disposals) dispose();
});

/** A port whose first packets the kernel drops without a word, as some networks do: its queue is full. */
async function silentPort(): Promise<number> {
  const listener = spawn(process.execPath, ['-e', LISTENER], { stdio: ['ignore', 'pipe', 'inherit'] });
  disposals.push(() => listener.kill('SIGKILL'));
  const [line] = (await once(listener.stdout, 'data')) as [Buffer];
  const port = Number(line.toString());
  for (let i = 0; i <= BACKLOG; i++) {
    const socket = connect(port, '127.0.0.1');
    disposals.push(() => socket.destroy());
    await once(socket, 'connect');
  }
  return port;
}

test('a network that drops the first packet without a word: the dial gives up soon, and says so', async () => {
  const port = await silentPort();
  const authority = new TestAuthority();
  const clock = new ManualClock();
  const endpoint = await authority.endpoint('m2', { identity: await authority.identity('m2'), clock });
  let ended: Error | undefined;
  const target = { host: 'm1', address: '127.0.0.1', port };
  const dialing = dial(endpoint, target, { purpose: 'control' }, () => assert.fail('nobody is there')).catch((error: Error) => {
    ended = error;
  });
  for (let i = 0; i < 3; i++) await turn();
  clock.advance(CONNECT_MS_MAX - 1);
  for (let i = 0; i < 9; i++) await turn();
  assert.equal(ended, undefined);
  clock.advance(1);
  await dialing;
  assert.match(ended!.message, /m1 \(127\.0\.0\.1:\d+\) does not answer \(ETIMEDOUT\): is that host up/);
});
