/** A guest leaves a host that is cut off from its device, between real daemons, looked at on the image of the disk. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Cluster, type ClusterHost, proxyBetween } from '../../test/support/daemon/cluster.ts';
import { CLEAR_WIRE, type TcpProxy } from '../../test/support/tcp-proxy.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { waitFor as waitForWithin } from '../../test/support/wait.ts';
import type { AttachmentEntry } from '../api/types.ts';
import { LEAVE_SHARE } from '../frontends/vhost-user/device-use.ts';
import { QUIESCE_MS_MAX } from '../frontends/vhost-user/disk-frontend.ts';
import { type Clock, systemClock } from '../lib/clock.ts';

const IMAGE_BYTES = 1024 * 1024;
const BLOCK_BYTES = 4096;
/** Generous: they end a test that hangs and say nothing about speed. */
const WAIT_MS_MAX = 60_000;
const TEST = { timeout: 180_000 };
const waitFor = <T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>) =>
  waitForWithin(what, probe, WAIT_MS_MAX);
/** As the system's, but what a VMM is kept waiting when it stops its rings is a thousandth: no device answers here, and nothing is gained by its time. */
const impatient: Clock = {
  ...systemClock,
  after(delayMs, callback) {
    const isBound = delayMs === QUIESCE_MS_MAX || delayMs === QUIESCE_MS_MAX * (1 - LEAVE_SHARE);
    return systemClock.after(isBound ? delayMs / 1000 : delayMs, callback);
  },
};
const block = (value: number) => new Uint8Array(BLOCK_BYTES).fill(value);

describe('a guest leaves a host that is cut off from its device', () => {
  let cluster: Cluster;
  let device: ClusterHost;
  let source: ClusterHost;
  let destination: ClusterHost;
  let proxy: TcpProxy;
  let image: string;
  let guests: VhostUserFrontend[];

  beforeEach(async () => {
    guests = [];
    cluster = await Cluster.make('m1', 'm2', 'm3');
    [device, source, destination] = ['m1', 'm2', 'm3'].map((name) => cluster.host(name));
    // All that m2 says to m1 goes this way.
    proxy = await proxyBetween(source, 'm1');
    for (const host of [device, destination]) await host.start();
    await source.start(undefined, impatient);
    image = device.image('data.img', IMAGE_BYTES);
    await device.client.export({ name: 'data', disk: image, allow: ['m2', 'm3'] });
  });
  afterEach(async () => {
    for (const guest of guests) guest.close();
    await cluster.close();
    await proxy.close();
  });

  /** A guest of the VM web that has written and flushed its first block. */
  async function runGuest(): Promise<VhostUserFrontend> {
    const { socket } = await source.client.attach({ device: 'm1/data', vm: 'web' });
    const guest = await VhostUserFrontend.connect(socket, { reconnects: true });
    guests.push(guest);
    await guest.write(0, block(1));
    await guest.flush();
    return guest;
  }

  async function prepare(): Promise<string> {
    const { attachments } = await destination.client.prepare('web', { from: 'm2' });
    return attachments[0].socket;
  }

  async function stateOn(host: ClusterHost): Promise<AttachmentEntry> {
    return (await host.client.status()).attachments[0];
  }

  /** Writes that the device's host has not answered; the image has nothing of them. */
  async function pendingWrites(guest: VhostUserFrontend, value: number): Promise<Promise<void>[]> {
    const writes = [0, 8, 16].map((sector) => guest.write(sector, block(value)));
    for (const write of writes) write.catch(() => undefined);
    await waitFor('the writes are on their way', async () => (await stateOn(source)).inFlight === 3);
    return writes;
  }

  async function eventsOf(host: ClusterHost, type: RegExp): Promise<string[]> {
    const { events } = await host.client.events();
    return events.filter((event) => type.test(event.type)).map(({ message }) => message);
  }

  const stored = () => {
    const bytes = readFileSync(image);
    return [bytes[0], bytes[BLOCK_BYTES], bytes[2 * BLOCK_BYTES]];
  };
  const isSent = () => waitFor('it is sent', async () => (await eventsOf(source, /^attachment\.hand-over-sent$/)).length === 1);

  test(
    'what it asked for is done at the other host, once, and what comes late from the first one writes nothing',
    TEST,
    async () => {
      const guest = await runGuest();
      const socket = await prepare();
      proxy.set({ ...CLEAR_WIRE, stalled: true });
      const writes = await pendingWrites(guest, 2);
      assert.deepEqual(stored(), [1, 0, 0]);
      await guest.stopRing(0);
      await guest.moveTo(socket);
      await Promise.all(writes);
      assert.deepEqual(await guest.read(16, BLOCK_BYTES), block(2));
      const [arrived] = (await destination.client.status()).attachments;
      assert.deepEqual([arrived.state, arrived.epoch, arrived.inFlight], ['active', 2, 0]);
      await guest.write(0, block(3));
      await guest.flush();
      assert.deepEqual(stored(), [3, 2, 2]);

      // Now the first writes arrive, of a session that is over.
      proxy.set(CLEAR_WIRE);
      await waitFor('the first host has heard it', async () => (await source.client.status()).attachments.length === 0);
      await guest.flush();
      assert.deepEqual(stored(), [3, 2, 2]);
      assert.deepEqual(await eventsOf(device, /^export\.(handed-over|moved|returned)$/), [
        'm2:web/data gave the device back, with 3 requests unfinished, for host m3',
        'm3:web/data has the device (epoch 2): the VM came from host m2',
      ]);
      assert.deepEqual(await eventsOf(source, /^attachment\.hand-over-sent$/), [
        'm1/data does not answer: what its guest left went to host m3, where it is expected',
      ]);
    },
  );

  test(
    'it is prepared when the cut is there already; then its daemon ends, and the other one starts anew with what it was given',
    TEST,
    async () => {
      const guest = await runGuest();
      proxy.set({ ...CLEAR_WIRE, cut: true });
      const writes = await pendingWrites(guest, 2);
      const socket = await prepare();
      await guest.stopRing(0);
      await isSent();
      await source.stop();
      await destination.stop();
      await destination.start();
      await guest.moveTo(socket, false);
      await Promise.all(writes);
      await guest.flush();
      assert.deepEqual(stored(), [2, 2, 2]);
    },
  );

  test('the guest goes on at the first host: what was sent is void', TEST, async () => {
    const guest = await runGuest();
    const socket = await prepare();
    proxy.set({ ...CLEAR_WIRE, cut: true });
    const writes = await pendingWrites(guest, 2);
    await guest.stopRing(0);
    await isSent();
    await guest.startRing(0);
    proxy.set(CLEAR_WIRE);
    await Promise.all(writes);
    await guest.flush();
    assert.deepEqual([(await stateOn(source)).state, (await stateOn(source)).epoch], ['active', 2]);

    await waitFor('it was taken back', () => destination.lines.some(({ message }) => /took back what it had/.test(message)));
    const other = VhostUserFrontend.open(socket);
    guests.push(other);
    for (const step of other.handshake()) await step.run();
    await waitFor('it was refused', async () => /m2 holds the lease/.test((await stateOn(destination)).reason ?? ''));
    await guest.write(0, block(4));
    await guest.flush();
    assert.deepEqual(stored(), [4, 2, 2]);
    assert.deepEqual(await eventsOf(device, /^export\.(handed-over|moved|returned)$/), []);
  });

  test('a host where it is not expected any more is sent nothing', TEST, async () => {
    const guest = await runGuest();
    await prepare();
    await destination.client.unprepare('web');
    proxy.set({ ...CLEAR_WIRE, cut: true });
    await pendingWrites(guest, 2);
    await guest.stopRing(0);
    proxy.set(CLEAR_WIRE);
    await waitFor('it has given the lease back', async () => (await stateOn(source)).state === 'idle');
    assert.deepEqual(await eventsOf(source, /^attachment\.hand-over-sent$/), []);
    assert.deepEqual(stored(), [1, 0, 0]);
  });
});
