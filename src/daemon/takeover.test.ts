/** A VM's host is dead, or seems to be: fence and takeover between real daemons, looked at on the image of the disk. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Cluster, type ClusterHost, proxyBetween } from '../../test/support/daemon/cluster.ts';
import { type RunResult, run } from '../../test/support/process.ts';
import { assertFails, netbusProgram } from '../../test/support/program.ts';
import { CLEAR_WIRE, type TcpProxy } from '../../test/support/tcp-proxy.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { waitFor as waitForWithin } from '../../test/support/wait.ts';
import type { AttachmentEntry } from '../api/types.ts';

const IMAGE_BYTES = 1024 * 1024;
const BLOCK_BYTES = 4096;
/** Generous: they end a test that hangs and say nothing about speed. */
const WAIT_MS_MAX = 60_000;
const TEST = { timeout: 180_000 };
const waitFor = <T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>) =>
  waitForWithin(what, probe, WAIT_MS_MAX);
const block = (value: number) => new Uint8Array(BLOCK_BYTES).fill(value);
const ioError = { name: 'BlockError', message: /status 1$/ };

describe('the host of a VM is dead', () => {
  let cluster: Cluster;
  let m1: ClusterHost;
  let m2: ClusterHost;
  let m3: ClusterHost;
  let proxy: TcpProxy;
  let image: string;
  let guests: VhostUserFrontend[];

  beforeEach(async () => {
    guests = [];
    cluster = await Cluster.make('m1', 'm2', 'm3');
    [m1, m2, m3] = ['m1', 'm2', 'm3'].map((name) => cluster.host(name));
    // All that m2 says to m1 goes this way.
    proxy = await proxyBetween(m2, 'm1');
    for (const host of [m1, m2, m3]) await host.start();
    image = m1.image('data.img', IMAGE_BYTES);
    await m1.client.export({ name: 'data', disk: image, allow: ['m2', 'm3'] });
  });
  afterEach(async () => {
    for (const guest of guests) guest.close();
    await cluster.close();
    await proxy.close();
  });

  /** A guest of the VM web that has written and flushed its first blocks. */
  async function runGuest(host: ClusterHost, entry: AttachmentEntry, value: number): Promise<VhostUserFrontend> {
    const guest = await VhostUserFrontend.connect(entry.socket, { reconnects: true });
    guests.push(guest);
    for (const sector of [0, 8]) await guest.write(sector, block(value));
    await guest.flush();
    assert.equal((await stateOn(host)).state, 'active');
    return guest;
  }

  async function stateOn(host: ClusterHost): Promise<AttachmentEntry> {
    return (await host.client.status()).attachments[0];
  }

  function netbus(host: ClusterHost, ...argv: string[]): Promise<RunResult> {
    const env = { NETBUS_RUN_DIR: `${host.folder}/run` };
    return run([...netbusProgram(), ...argv], { env, timeoutMs: WAIT_MS_MAX });
  }

  const stored = () => {
    const bytes = readFileSync(image);
    return [bytes[0], bytes[BLOCK_BYTES], bytes[2 * BLOCK_BYTES]];
  };
  const device = { device: 'm1/data', vm: 'web' };

  test('requests that were on their way when it was fenced write nothing; it comes back and gets errors', TEST, async () => {
    const old = await runGuest(m2, await m2.client.attach(device), 1);
    proxy.set({ ...CLEAR_WIRE, stalled: true });
    // They leave m2, and arrive when somebody else has the disk.
    const late = [0, 8, 16].map((sector) => old.write(sector, block(2)));
    for (const write of late) write.catch(() => undefined);
    await waitFor('the writes are on their way', async () => (await stateOn(m2)).inFlight === 3);

    const attach = ['attach', 'm1/data', '--vm', 'web', '--takeover'];
    assertFails(await netbus(m3, ...attach), 4, /host m2 holds the lease: stop the VM there; .*: netbus fence m2$/m);
    assertFails(await netbus(m3, ...attach.slice(0, -1)), 4, /to start that VM on this host instead: --takeover$/m);
    const fence = await netbus(m3, 'fence', 'm2', '--yes');
    assert.deepEqual([fence.status, fence.stdout], [0, 'host m2 is fenced:\n  m2:web/data, by m1\n']);
    const { attachments } = await m3.client.busAttachments();
    assert.deepEqual(
      attachments.map(({ vm, host, state, epoch }) => [vm, host, state, epoch]),
      [['web', 'm2', 'fenced', 1]],
    );
    assert.equal((await netbus(m3, ...attach)).status, 0);
    const guest = await runGuest(m3, await stateOn(m3), 3);
    assert.deepEqual(await guest.read(0, BLOCK_BYTES), block(3));

    proxy.set(CLEAR_WIRE);
    for (const write of late) await assert.rejects(write, ioError);
    await assert.rejects(old.write(0, block(2)), ioError);
    const told = await stateOn(m2);
    assert.equal(told.state, 'failed');
    assert.match(told.reason!, /host m2 was fenced, on the word of host m3|the device was taken from host m2/);
    await guest.flush();
    assert.deepEqual(stored(), [3, 3, 0]);

    await m2.stop();
    await m2.start();
    await old.reconnect();
    await assert.rejects(old.write(16, block(2)), ioError);
    await guest.flush();
    assert.deepEqual(stored(), [3, 3, 0]);
    assert.deepEqual(
      (await m3.client.busAttachments()).attachments.map(({ host, state, epoch }) => [host, state, epoch]),
      [['m3', 'active', 2]],
    );
    assert.deepEqual(
      (await m1.client.events()).events.map(({ type }) => type).filter((type) => /fenced|taken-over/.test(type)),
      ['export.fenced', 'export.taken-over'],
    );

    // Anew, where it was once: what it kept is gone.
    old.close();
    await waitFor('the VMM has gone', async () => !(await stateOn(m2)).connected);
    await m2.client.detach('web', 'data');
    await guest.stopRing(0);
    guest.close();
    await waitFor('the lease is free', async () => (await m3.client.busAttachments()).attachments[0].state === 'idle');
    await runGuest(m2, await m2.client.attach({ ...device, takeover: true }), 4);
    assert.deepEqual(stored(), [4, 4, 0]);
  });

  test(
    'a host that was cut off and comes back with what it kept is told that it was fenced, and sends nothing',
    TEST,
    async () => {
      const old = await runGuest(m2, await m2.client.attach(device), 1);
      proxy.set({ ...CLEAR_WIRE, cut: true });
      const kept = old.write(16, block(2));
      kept.catch(() => undefined);
      await waitFor('the session is over', async () => (await m3.client.busAttachments()).attachments[0].state === 'away');
      const result = await m3.client.fence('m2');
      assert.deepEqual(result, { host: 'm2', fenced: [{ by: 'm1', attachments: ['m2:web/data'] }], untold: [] });
      const guest = await runGuest(m3, await m3.client.attach({ ...device, takeover: true }), 3);
      proxy.set(CLEAR_WIRE);
      await assert.rejects(kept, ioError);
      await waitFor('it knows', async () => (await stateOn(m2)).state === 'failed');
      await guest.flush();
      assert.deepEqual(stored(), [3, 3, 0]);
    },
  );

  test('the daemon of a host that was off comes back when its VM has another host', TEST, async () => {
    const entry = await m2.client.attach(device);
    const old = await runGuest(m2, entry, 1);
    proxy.set({ ...CLEAR_WIRE, cut: true });
    await waitFor('the session is over', async () => (await m3.client.busAttachments()).attachments[0].state === 'away');
    await m2.stop();
    old.close();
    // A host that has devices and does not answer has fenced nothing: that is told.
    await m1.client.fence('m2');
    const guest = await runGuest(m3, await m3.client.attach({ ...device, takeover: true }), 3);
    proxy.set(CLEAR_WIRE);
    await m2.start();
    const again = await VhostUserFrontend.connect(entry.socket, { reconnects: true });
    guests.push(again);
    await assert.rejects(again.write(16, block(2)), ioError);
    assert.match((await stateOn(m2)).reason!, /the device was taken from host m2, by a fence or a takeover: detach it there/);
    await guest.flush();
    assert.deepEqual(stored(), [3, 3, 0]);
  });

  test('nobody is fenced who is this host, or whom nobody knows; a host that does not answer is told', TEST, async () => {
    assertFails(await netbus(m1, 'fence', 'm1', '--yes'), 2, /host m1 is this one, and it is alive/);
    assertFails(await netbus(m1, 'fence', 'm9', '--yes'), 3, /there is no host m9/);
    await m2.client.attach(device);
    await m1.stop();
    const { stderr, stdout, status } = await netbus(m3, 'fence', 'm2', '--yes');
    assert.deepEqual([status, stdout], [0, 'host m2 has no attachment at the hosts that answered\n']);
    assert.match(stderr, /^netbus: warning: host m1 has fenced nothing: /m);
    const { attachments } = await m2.client.busAttachments();
    assert.deepEqual(
      attachments.map(({ device: name, state }) => [name, state]),
      [['m1/data', 'unknown']],
    );
  });
});
