/** A qcow2 image as the disk of a VM on another host: qemu-nbd serves it, and the command line does the rest. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { AttachmentEntry, ExportEntry } from '../../src/api/types.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import type { Host } from '../support/hosts.ts';
import { run, runOk } from '../support/process.ts';
import { assertFails } from '../support/program.ts';
import { VhostUserFrontend } from '../support/vhost-user/frontend.ts';
import { waitFor } from '../support/wait.ts';

const MIB = 1024 * 1024;
const PORT = '10809';

const cleanup = new Cleanup();
let cluster: Cluster;
let m1: Host;
let m2: Host;

before(async () => {
  cluster = await startCluster(['m1', 'm2'], { cleanup });
  [m1, m2] = [cluster.host('m1'), cluster.host('m2')];
});
after(() => cleanup.run());

test('a qcow2 image goes to a VM of another host, and has what that wrote', { timeout: 120_000 }, async () => {
  const image = join(m1.folder, 'root.qcow2');
  await runOk(['qemu-img', 'create', '-q', '-f', 'qcow2', image, '64M']);
  await runOk(['qemu-io', '-f', 'qcow2', '-c', 'write -q -P 0x11 1M 64k', image]);
  const pidFile = join(m1.folder, 'nbd.pid');
  const listen = ['-b', '127.0.0.1', '-p', PORT, '-x', 'root', `--pid-file=${pidFile}`];
  const server = m1.spawn(['qemu-nbd', '-t', ...listen, '-f', 'qcow2', '--discard=unmap', image]);
  await waitFor('qemu-nbd', () => existsSync(pidFile));

  const uri = `nbd://127.0.0.1:${PORT}/root`;
  assertFails(
    await cluster.netbus('m1', 'export', 'root', '--nbd', uri.replace('root', 'other'), '--allow', 'm2'),
    3,
    /no such export/,
  );
  assertFails(
    await cluster.netbus('m1', 'export', 'root', '--nbd', uri, '--disk', image, '--allow', 'm2'),
    2,
    /cannot be used with/,
  );
  assertFails(await cluster.netbus('m1', 'export', 'root', '--nbd', 'root.qcow2', '--allow', 'm2'), 2, /no NBD URI/);
  const text = await cluster.netbus('m1', 'export', 'root', '--nbd', uri, '--allow', 'm2');
  assert.equal(text.stdout, `exported ${uri} as root: 64 MiB, one VM at a time, for m2\n`, text.stderr);
  const [exported] = (await cluster.ask<{ exports: ExportEntry[] }>('m1', 'status')).exports;
  assert.deepEqual([exported.device, exported.backend.kind, exported.backend.locked], [uri, 'nbd', false]);
  assert.match((await cluster.netbus('m1', 'ls', '-o', 'wide')).stdout, /nbd:\/\/127\.0\.0\.1:10809\/root \(nbd\)/);

  const { socket } = await cluster.ask<AttachmentEntry>('m2', 'attach', 'm1/root', '--vm', 'web');
  const vm = await VhostUserFrontend.connect(m2.path(socket));
  assert.deepEqual(await vm.read(MIB / 512, 4096), new Uint8Array(4096).fill(0x11));
  await vm.write((2 * MIB) / 512, new Uint8Array(256 * 1024).fill(0x22));
  await vm.writeZeroes([{ sector: MIB / 512, sectors: 8 }]);
  await vm.flush();
  vm.close();
  await waitFor('the VMM to be gone', async () => {
    const { attachments } = await cluster.ask<{ attachments: AttachmentEntry[] }>('m2', 'status');
    return attachments.every(({ connected }) => !connected);
  });
  await cluster.ask('m2', 'detach', 'web/root');
  await cluster.ask('m1', 'unexport', 'root');
  await server.stop();

  const reads = ['read -P 0x22 2M 256k', 'read -P 0 1M 4k', 'read -P 0x11 1028k 60k'].flatMap((command) => ['-c', command]);
  const checked = await run(['qemu-io', '-f', 'qcow2', ...reads, image]);
  assert.equal(checked.status, 0, checked.stdout + checked.stderr);
  assert.doesNotMatch(checked.stdout, /Pattern verification failed/);
  await runOk(['qemu-img', 'check', '-q', image]);
});
