import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Cluster } from '../../test/support/daemon/cluster.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';

const content = Uint8Array.from({ length: 4096 }, (_, i) => (i * 7) & 0xff);

for (const [order, restart] of [
  ['the device’s host while the VM’s daemon is away', ['stop m2', 'reboot m1', 'start m2']],
  ['the VM’s daemon, then the device’s host', ['stop m2', 'start m2', 'read', 'reboot m1']],
] as const) {
  test(`a disk that nobody writes has nothing to lose: restarted are ${order}`, { timeout: 180_000 }, async () => {
    const cluster = await Cluster.make('m1', 'm2');
    const [m1, m2] = [cluster.host('m1'), cluster.host('m2')];
    let vm: VhostUserFrontend | undefined;
    try {
      await m1.start('first boot');
      await m2.start();
      const image = m1.image('data.img', 1024 * 1024);
      writeFileSync(image, content, { flag: 'r+' });
      await m1.client.export({ name: 'data', disk: image, allow: ['m2'], readOnly: true });
      const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
      vm = await VhostUserFrontend.connect(socket, { reconnects: true });
      assert.deepEqual(await vm.read(0, 4096), content);
      for (const step of restart) {
        switch (step) {
          case 'stop m2':
            await m2.stop();
            break;
          case 'start m2':
            await m2.start();
            await vm.reconnect();
            break;
          case 'reboot m1':
            await m1.stop();
            await m1.start('second boot');
            break;
          case 'read':
            assert.deepEqual(await vm.read(0, 4096), content);
        }
      }
      assert.deepEqual(await vm.read(0, 4096), content);
    } finally {
      vm?.close();
      await cluster.close();
    }
  });
}
