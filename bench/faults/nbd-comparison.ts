/**
 * The same loss with today's tools: nbdkit on the device's host, QEMU's storage daemon on the VM's host. What serves the disk is killed
 * while a guest writes, and started again three seconds later.
 */
import { join } from 'node:path';
import { makeEmptyDisk } from '../../test/guest/root-disk.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import { waitForPort } from '../../test/support/port.ts';
import type { RunningProcess } from '../../test/support/process.ts';
import { startStorageDaemon } from '../../test/support/storage-daemon.ts';
import { BlockWriter } from './block-writer.ts';
import { DEVICE_HOST, type Stage, VM_HOST } from './stage.ts';

const AWAY_MS = 3_000;
const BLOCKS = 256;
const NBD_PORT = 10809;
/** QEMU's option: how long requests wait for the server before they fail. */
const RECONNECT_DELAY_S = 30;
/** What is waited for an answer after that. */
const BACK_MS_MAX = 30_000;

/** What a guest noticed. */
export interface Outage {
  /** From the kill to the first answer that was no error, after the new start; undefined where there was none in time. */
  readonly pauseMs: number | undefined;
  /** Requests that failed. */
  readonly errors: number;
}

export interface OutageComparison {
  readonly awayMs: number;
  readonly netbus: Outage;
  readonly nbd: Outage;
  readonly nbdWithReconnectDelay: Outage;
}

/** Kills each of them, one after the other. */
export async function compareWithNbd(stage: Stage, cleanup: Cleanup, say: (text: string) => void): Promise<OutageComparison> {
  say(
    `the device's side is away for ${AWAY_MS / 1000} s; then the same of an NBD server with qemu-storage-daemon before the guest`,
  );
  stage.writer.resume();
  const daemon = stage.cluster.daemon(DEVICE_HOST);
  const netbus = await lose(stage.writer, daemon, () => stage.startDaemon(DEVICE_HOST));
  const nbd = await nbdOutage(stage, cleanup, 'nbd', NBD_PORT, 0);
  const nbdWithReconnectDelay = await nbdOutage(stage, cleanup, 'nbd-delay', NBD_PORT + 1, RECONNECT_DELAY_S);
  const comparison = { awayMs: AWAY_MS, netbus, nbd, nbdWithReconnectDelay };
  say(`Netbus: ${describe(netbus)}`);
  say(`NBD, as it comes: ${describe(nbd)}`);
  say(`NBD with reconnect-delay=${RECONNECT_DELAY_S}: ${describe(nbdWithReconnectDelay)}`);
  return comparison;
}

async function nbdOutage(stage: Stage, cleanup: Cleanup, name: string, port: number, reconnectDelayS: number): Promise<Outage> {
  const [m1, m2] = [stage.cluster.host(DEVICE_HOST), stage.cluster.host(VM_HOST)];
  const image = join(m1.folder, `${name}.img`);
  makeEmptyDisk(image, 1);
  const serve = () => m1.spawn(['nbdkit', '-f', '-i', m1.address, '-p', String(port), '--tls=off', 'file', image]);
  const start = () => waitForPort(server.pid, m1.address, port);
  let server = serve();
  await start();
  const socketPath = join(m2.folder, `${name}.sock`);
  const backend = { kind: 'nbd', address: m1.address, port, reconnectDelayS } as const;
  const client = await startStorageDaemon({ cleanup, socketPath, queues: 1, backend, host: m2 });
  const writer = await BlockWriter.connect({ name, socketPath, blocks: BLOCKS, seed: port, queues: 1, depth: 8, paceMs: 1 });
  try {
    writer.resume();
    return await lose(writer, server, async () => {
      server = serve();
      await start();
    });
  } finally {
    writer.close();
    await client.stop();
    await server.stop();
  }
}

async function lose(writer: BlockWriter, server: RunningProcess, start: () => Promise<unknown>): Promise<Outage> {
  await writer.nextAcknowledgement(BACK_MS_MAX);
  const errors = writer.errorCount;
  const lostAt = performance.now();
  server.signal('SIGKILL');
  await server.exited;
  await new Promise((resolve) => setTimeout(resolve, AWAY_MS));
  await start();
  const backAt = await writer.nextAcknowledgement(BACK_MS_MAX);
  return {
    pauseMs: backAt === undefined ? undefined : Math.round(backAt - lostAt),
    errors: writer.errorCount - errors,
  };
}

function describe({ pauseMs, errors }: Outage): string {
  const pause = pauseMs === undefined ? 'did not come back' : `a pause of ${(pauseMs / 1000).toFixed(1)} s`;
  return `${pause}, ${errors} requests failed`;
}
