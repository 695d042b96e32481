import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { NativeRegion } from '../../native/region.ts';
import { type NbdSourceOptions, openNbdSource } from '../../src/backends/nbd/nbd.ts';
import { bounce } from '../../src/filters/bounce.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { Cleanup } from '../support/cleanup.ts';
import { FakeNbdServer } from '../support/fake-nbd-server.ts';
import { type RunningNbdServer, startNbdkit, startQemuNbd } from '../support/nbd-server.ts';
import { type RunningProcess, runOk } from '../support/process.ts';
import { type DeviceFixture, deviceCompliance } from './device-compliance.ts';

const cleanup = new Cleanup();
const root = mkdtempSync(join(tmpdir(), 'netbus-nbd-'));
const region = NativeRegion.allocate(16 * 1024 * 1024);
after(async () => {
  await cleanup.run();
  region.release();
  rmSync(root, { recursive: true, force: true });
});

function folder(name: string): { cleanup: Cleanup; folder: string } {
  return { cleanup, folder: mkdtempSync(join(root, `${name}-`)) };
}

/** A real server, which hangs while it is stopped. */
async function fixture(server: RunningNbdServer, options: Partial<NbdSourceOptions> = {}): Promise<DeviceFixture> {
  const source = await openNbdSource({ uri: server.uri, clock: systemClock, log: silentLog, ...options });
  return {
    device: source.open(),
    region,
    content: 'kept',
    quietAt: 'cut',
    stall: { begin: () => freeze(server.process), end: () => server.process.signal('SIGCONT') },
    dispose: () => source.close(),
  };
}

/** The signal is on its way when `kill` returns; each thread stops when it gets it. */
function freeze(running: RunningProcess): void {
  running.signal('SIGSTOP');
  const tasks = `/proc/${running.pid}/task`;
  const isStopped = (thread: string) => /^State:\s+T/m.test(readFileSync(`${tasks}/${thread}/status`, 'latin1'));
  while (!readdirSync(tasks).every(isStopped));
}

const qcow2 = join(root, 'disk.qcow2');
await runOk(['qemu-img', 'create', '-q', '-f', 'qcow2', qcow2, '8M']);
const [memory, plain, qemu] = await Promise.all([
  startNbdkit(folder('memory'), 'memory', '8M'),
  startNbdkit(folder('plain'), '--no-sr', '--filter=nozero', '--filter=fua', 'memory', '8M'),
  startQemuNbd(folder('qemu'), '-f', 'qcow2', '--discard=unmap', qcow2),
]);
deviceCompliance('NBD, nbdkit memory', () => fixture(memory));
deviceCompliance('NBD, nbdkit memory, read-only', () => fixture(memory, { readOnly: true }));
deviceCompliance('NBD, nbdkit without structured replies, zeroes and FUA', () => fixture(plain));
deviceCompliance('NBD, qemu-nbd with a qcow2 image', () => fixture(qemu));

async function fakeFixture(): Promise<DeviceFixture> {
  const server = await new FakeNbdServer().listen();
  server.chunkBytes = 1024;
  server.blocks = [512, 4096, 65_536];
  const source = await openNbdSource({ uri: server.uri, clock: systemClock, log: silentLog });
  return {
    device: bounce()(source.open()),
    region,
    content: 'kept',
    quietAt: 'cut',
    stall: {
      begin: () => {
        server.holding = true;
      },
      end: () => server.release(),
    },
    lose: () => server.cut(),
    dispose: async () => {
      await source.close();
      await server.close();
    },
  };
}
deviceCompliance('NBD, fake server with small chunks, behind bounce', fakeFixture);
