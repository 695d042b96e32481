/** Exports whose device goes away by itself: an NBD server's. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { TestHost } from '../../test/support/daemon/exports.ts';
import { waitFor } from '../../test/support/wait.ts';
import { exportRequestSchema } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { exportRecordSchema } from './records.ts';

const uri = 'nbd+unix:///?socket=/run/nbd.sock';
const cause = new NetbusError('unreachable', 'the NBD server ended the connection');

let host: TestHost;
beforeEach(async () => {
  host = await new TestHost().start();
});
afterEach(() => host.stop());

function add(name: string, more: { nbd?: string; readOnly?: boolean } = {}) {
  return host.exports.add({ name, nbd: uri, readOnly: false, direct: false, allow: ['m1', 'm2'], ...more });
}

/** The state of the export, as people see it. */
async function state(): Promise<[string, string | undefined]> {
  const [entry] = await host.exports.entries();
  return [entry.state, entry.reason];
}

test('a server that is lost ends the sessions, and is opened anew by itself, as another instance', async () => {
  const entry = await add('data');
  assert.equal(entry.device, uri);
  const { attachment } = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
  const ends: NetbusError[] = [];
  const { session } = host.exports.openSession('m2', attachment, (ended) => ends.push(ended));
  await session.activate();
  const { lost } = host.disks.asked!;
  host.disks.lock();
  host.recorded.length = 0;
  lost({ cause, inDoubt: false });
  await waitFor('the export to wait', async () => (await state())[0] === 'waiting' && host.recorded.length >= 2);
  assert.deepEqual(ends, [cause]);
  assert.equal(host.disks.opened, 0);
  assert.throws(() => host.exports.openSession('m2', attachment, () => {}), { code: 'device' });
  assert.deepEqual(
    host.recorded.map(({ type, details }) => [type, details?.nbd]),
    [
      ['export.reopened', uri],
      ['export.waiting', uri],
    ],
  );
  host.disks.unlock();
  await waitFor('the export to be ready', async () => (await state())[0] === 'ready');
  assert.equal(host.disks.asked!.reopened, 1);
  host.exports.openSession('m2', attachment, () => {});
  // What an opening says that is over has no effect, nor has what it says twice.
  lost({ cause, inDoubt: false });
  assert.equal((await add('other', { nbd: 'nbd://m9/other' })).state, 'ready');
  assert.equal((await state())[0], 'ready');
  assert.equal(host.disks.asked!.reopened, 0, 'the last one that was opened is the other export');
  // It holds over a restart.
  await host.exports.close();
  await host.start();
  const reopened = [...host.exports.all].map(({ name, record }) => [name, record.reopened]);
  assert.deepEqual(reopened.sort(), [
    ['data', 1],
    ['other', 0],
  ]);
});

test('a server that may still be at something is opened anew by people alone', async () => {
  await add('data');
  host.disks.asked!.lost({ cause, inDoubt: true });
  await waitFor('the export to be held', async () => (await state())[0] === 'failed');
  assert.match((await state())[1]!, /restart it, then type: netbus export data --reopen/);
  host.clock.advance(60_000);
  assert.equal((await state())[0], 'failed');
  assert.equal(host.disks.opened, 0);
  await host.exports.reopen('data');
  assert.equal((await state())[0], 'ready');
  assert.equal(host.disks.asked!.reopened, 2);
});

test('one server export has one export here, unless all only read it', async () => {
  await add('data');
  await assert.rejects(add('again', { nbd: 'NBD+unix:///?socket=%2Frun/nbd.sock' }), {
    code: 'in_use',
    message: /exported as data/,
  });
  await assert.rejects(add('again', { readOnly: true }), { code: 'in_use' });
  await assert.rejects(add('tls', { nbd: 'nbds://m9/x' }), { code: 'usage', message: /TLS/ });
  await add('one', { nbd: 'nbd://m9/x', readOnly: true });
  await add('two', { nbd: 'nbd://m9/x', readOnly: true });
});

test('requests and records name exactly one device, and records of before NBD are still read', () => {
  const request = (more: object) => exportRequestSchema.safeParse({ name: 'data', ...more }).success;
  assert.deepEqual([{}, { disk: '/d' }, { nbd: uri }, { disk: '/d', nbd: uri }, { nbd: uri, direct: true }].map(request), [
    false,
    true,
    true,
    false,
    false,
  ]);
  const old = { version: 1, name: 'data', readOnly: false, direct: false, allow: [], reopened: 0, createdAt: 'x' };
  assert.deepEqual(exportRecordSchema.parse({ ...old, disk: '/d' }), { ...old, disk: '/d' });
  assert.equal(exportRecordSchema.safeParse(old).success, false);
});
