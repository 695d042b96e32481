/** What stands behind a virtual device is taken out and asked for anew, while its guest uses it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ask, setUp, use } from '../../test/support/scripted-host.ts';
import { DiskKind, DiskStatus } from './disk.ts';

test('the guest sees a pause: nothing goes out in between, and everything afterwards', async () => {
  const { host, virtual, clock } = setUp();
  const guest = use(virtual);
  await ask(guest, DiskKind.write);
  const before = host.last;
  let goOn = (): void => {};
  const between = () => {
    assert.deepEqual(before.calls, ['activate', 'close'], 'the session is over');
    assert.ok(before.device.closed);
    return new Promise<void>((resolve) => {
      goOn = resolve;
    });
  };
  const renewed = virtual.renew(between);
  await turn();
  guest.add({ kind: DiskKind.flush });
  assert.equal(guest.pushAll(), 0, 'the guest keeps what it has');
  clock.advance(7);
  assert.equal(host.sessions.length, 1);
  goOn();
  await guest.answered();
  assert.equal(await renewed, 7);
  assert.equal(host.sessions.length, 2);
  assert.equal(guest.answers.at(-1)!.status, DiskStatus.ok);
  assert.deepEqual(guest.breaches, []);
  await guest.close();
});

test('what the device did not answer within the bound goes to the next one', async () => {
  const { host, virtual, clock } = setUp();
  const guest = use(virtual);
  await ask(guest, DiskKind.flush);
  host.last.device.hold();
  guest.add({ kind: DiskKind.write, outBytes: 4096 });
  guest.pushAll();
  const renewed = virtual.renew(async () => {});
  await turn();
  assert.equal(host.sessions.length, 1, 'its answer is waited for');
  clock.advance(2_000);
  await guest.answered();
  assert.equal(await renewed, 2_000);
  assert.equal(host.sessions.length, 2);
  assert.deepEqual(guest.breaches, []);
  await guest.close();
});

test('while the device is away nothing is taken out, and the guest goes on when it is back', async () => {
  const { host, virtual, clock } = setUp();
  host.reachable = false;
  const guest = use(virtual);
  await turn();
  assert.equal(virtual.state.name, 'connecting');
  let called = 0;
  const renewed = virtual.renew(async () => {
    called++;
  });
  await turn();
  assert.equal(called, 1);
  host.reachable = true;
  clock.advance(100);
  await renewed;
  assert.equal(virtual.state.name, 'active');
  assert.equal(called, 1);
  await guest.close();
});

test('one that is asked for while the device is on its way takes that out, and the guest goes on behind it', async () => {
  const { host, virtual } = setUp();
  host.holdActivating = true;
  const guest = use(virtual);
  await turn();
  let called = 0;
  const renewed = virtual.renew(async () => {
    called++;
  });
  host.holdActivating = false;
  host.last.goOn();
  assert.equal(await renewed, 0);
  assert.deepEqual([called, host.sessions.length], [1, 2]);
  guest.add({ kind: DiskKind.flush });
  guest.pushAll();
  await guest.answered();
  assert.deepEqual(guest.breaches, []);
  await guest.close();
});

test('a guest that stops ends it, and one that is not there has nothing to be renewed', async () => {
  const { host, virtual } = setUp();
  assert.equal(await virtual.renew(async () => assert.fail('nobody uses it')), undefined);
  const guest = use(virtual);
  await ask(guest, DiskKind.flush);
  let goOn = (): void => {};
  const renewed = virtual.renew(
    () =>
      new Promise((resolve) => {
        goOn = resolve;
      }),
  );
  await turn();
  await assert.rejects(
    virtual.renew(async () => {}),
    { code: 'in_use' },
  );
  const closed = guest.close();
  goOn();
  assert.equal(await renewed, undefined);
  await closed;
  assert.equal(host.sessions.length, 1);
});
