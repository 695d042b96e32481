/** Hosts of neighbouring releases: a VM goes from one to the other, which is how one upgrades; and where they do not understand each other nothing is touched. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Cluster, type ClusterHost } from '../../test/support/daemon/cluster.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import type { NetbusError } from '../device/errors.ts';
import { HAND_OVER_FEATURE, PROTOCOL_VERSIONS } from '../protocols/netbus/limits.ts';

const IMAGE_BYTES = 1024 * 1024;
const BLOCK_BYTES = 4096;
const block = (value: number) => new Uint8Array(BLOCK_BYTES).fill(value);
const [, PRESENT] = PROTOCOL_VERSIONS;

/** The release after this one, which still speaks what this one does. */
const NEXT = {
  release: '0.9.0',
  protocol: { versions: [PRESENT, PRESENT + 1], features: [HAND_OVER_FEATURE, 'of-the-next-release'] },
} as const;
/** One that speaks nothing that this one does, and one of before live migration. */
const STRANGER = { release: '9.0.0', protocol: { versions: [PRESENT + 1, PRESENT + 2] } } as const;
const BEFORE = { release: '0.0.1', protocol: { features: [] } } as const;

describe('hosts of several releases', () => {
  let cluster: Cluster;
  let m1: ClusterHost;
  let m2: ClusterHost;
  let m3: ClusterHost;
  let image: string;
  let guest: VhostUserFrontend | undefined;

  beforeEach(async () => {
    guest = undefined;
    cluster = await Cluster.make('m1', 'm2', 'm3');
    [m1, m2, m3] = ['m1', 'm2', 'm3'].map((name) => cluster.host(name));
  });
  afterEach(async () => {
    guest?.close();
    await cluster.close();
  });

  /** A VM with a disk of m1 runs on m2. */
  async function run(): Promise<VhostUserFrontend> {
    for (const host of [m1, m2, m3]) await host.start();
    image = m1.image('data.img', IMAGE_BYTES);
    await m1.client.export({ name: 'data', disk: image, allow: ['m2', 'm3'] });
    const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    guest = await VhostUserFrontend.connect(socket, { reconnects: true });
    await guest.write(0, block(1));
    return guest;
  }

  const stored = () => {
    const bytes = readFileSync(image);
    return [bytes[0], bytes[BLOCK_BYTES]];
  };

  for (const [which, host] of [
    ['the host that it goes to', 'm3'],
    ['the host that it leaves', 'm2'],
    ["the disk's host", 'm1'],
  ]) {
    test(`a VM moves where ${which} is of the next release`, async () => {
      cluster.host(host).release = NEXT;
      const vm = await run();
      const { devices } = await m2.client.beginMigration('web', { to: 'm3', check: false });
      await vm.stopRing(0);
      await vm.moveTo(devices[0].socket.replace(m2.folder, m3.folder));
      assert.deepEqual(await vm.read(0, BLOCK_BYTES), block(1));
      await vm.write(8, block(2));
      await vm.flush();
      assert.deepEqual(stored(), [1, 2]);
      assert.equal((await m3.client.status()).attachments[0].state, 'active');
    });
  }

  for (const [what, host, release, message] of [
    ['a destination without a protocol version in common', 'm3', STRANGER, /no version of the Netbus protocol in common/],
    ['a destination of before live migration', 'm3', BEFORE, /host m3 runs netbus 0\.0\.1, which does not know live migration/],
    ["a disk's host of before live migration", 'm1', BEFORE, /host m1 runs netbus 0\.0\.1, which does not know live migration/],
  ] as const) {
    test(`${what} is refused before anything is touched`, async () => {
      cluster.host(host).release = release;
      const vm = await run();
      for (const check of [true, false]) {
        await assert.rejects(m2.client.beginMigration('web', { to: 'm3', check }), (thrown: NetbusError) => {
          assert.equal(thrown.code, 'protocol');
          assert.match(thrown.message, message);
          return true;
        });
      }
      // By hand it is refused there, too.
      if (release === STRANGER) await assert.rejects(m3.client.prepare('web', { from: 'm2' }), { code: 'protocol' });
      assert.deepEqual((await m3.client.status()).attachments, []);
      const [{ standby, state }] = (await m1.client.busAttachments()).attachments;
      assert.deepEqual([standby, state], [undefined, 'active']);
      await vm.write(8, block(2));
      await vm.flush();
      assert.deepEqual(stored(), [1, 2]);
    });
  }
});
