import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Cleanup } from '../test/support/cleanup.ts';
import { Datagrams } from '../test/support/datagrams.ts';
import { native } from './index.ts';
import { openDescriptors, systemError, temporaryDirectory } from './testing.ts';

/** More than a send buffer holds (net.core.wmem_max is 208 KiB by default, and a system may have made it larger). */
const TOO_LONG_BYTES = 64 * 1024 * 1024;
/** net.unix.max_dgram_qlen is 10 or 512; a queue of this length has more than one full. */
const QUEUE_DATAGRAMS_MAX = 100_000;

const cleanup = new Cleanup();
after(() => cleanup.run());

function send(path: string, text: string): void {
  const bytes = Buffer.from(text);
  native.sendDatagram(path, bytes, 0, bytes.length);
}

test('a datagram arrives as it was sent, by path and by abstract name', async (context) => {
  const path = join(temporaryDirectory(context), 'socket');
  const abstract = `@netbus-test-${process.pid}`;
  const [byPath, byName] = [await Datagrams.listen(path, cleanup), await Datagrams.listen(abstract, cleanup)];
  const before = openDescriptors();
  send(path, 'READY=1\nSTATUS=ä\n');
  send(path, '');
  native.sendDatagram(path, Buffer.from('..three..'), 2, 5);
  send(abstract, 'abstract');
  assert.ok(openDescriptors() <= before);
  await byPath.waitFor('the last one', (datagram) => datagram === 'three');
  assert.deepEqual(byPath.received, ['READY=1\nSTATUS=ä\n', '', 'three']);
  await byName.waitFor('the one by name', (datagram) => datagram === 'abstract');
});

test('it never waits: a full queue is EAGAIN', async (context) => {
  const path = join(temporaryDirectory(context), 'socket');
  await Datagrams.listen(path, cleanup, { reads: false });
  const before = openDescriptors();
  const fill = () => {
    for (let sent = 0; sent < QUEUE_DATAGRAMS_MAX; sent++) send(path, 'x');
  };
  assert.throws(fill, systemError('EAGAIN', 'sendto'));
  const long = Buffer.alloc(TOO_LONG_BYTES);
  assert.throws(() => native.sendDatagram(path, long, 0, long.length), systemError('EMSGSIZE', 'sendto'));
  assert.ok(openDescriptors() <= before);
});

test('errors name the path', (context) => {
  const directory = temporaryDirectory(context);
  const missing = join(directory, 'missing');
  const message = `ENOENT: sendto ${missing} (No such file or directory)`;
  assert.throws(() => send(missing, 'x'), { message, code: 'ENOENT', errno: 2, syscall: 'sendto' });
  assert.throws(() => send(`@netbus-nobody-${process.pid}`, 'x'), systemError('ECONNREFUSED', 'sendto'));
  const file = join(directory, 'file');
  writeFileSync(file, '');
  assert.throws(() => send(file, 'x'), systemError('ECONNREFUSED', 'sendto'));
  const listener = native.listenUnix(join(directory, 'stream'), 0o600);
  assert.throws(() => send(join(directory, 'stream'), 'x'), systemError('EPROTOTYPE', 'sendto'));
  native.close(listener);
  const longest = '/'.repeat(107);
  assert.throws(() => send(longest, 'x'), { syscall: 'sendto', code: 'ECONNREFUSED' });
  assert.throws(() => send(`${longest}/`, 'x'), systemError('ENAMETOOLONG', 'sendto'));
  assert.throws(() => send(`@${'a'.repeat(106)}`, 'x'), systemError('ECONNREFUSED', 'sendto'));
});

test('what only a bug can ask for is a RangeError or TypeError', (context) => {
  const path = join(temporaryDirectory(context), 'socket');
  const bytes = Buffer.from('four');
  for (const empty of ['', '@']) assert.throws(() => send(empty, 'x'), RangeError);
  assert.throws(() => send('a\0b', 'x'), RangeError);
  assert.throws(() => native.sendDatagram(path, bytes, 0, 5), RangeError);
  assert.throws(() => native.sendDatagram(path, bytes, 5, 0), RangeError);
  assert.throws(() => native.sendDatagram(path, bytes, -1, 1), RangeError);
  assert.throws(() => native.sendDatagram(path, 'text' as unknown as Uint8Array, 0, 1), TypeError);
  assert.throws(() => native.sendDatagram(7 as unknown as string, bytes, 0, 1), TypeError);
  assert.throws(() => (native.sendDatagram as (path: string) => void)(path), TypeError);
});
