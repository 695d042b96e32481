/**
 * The same loss with today's tools: nbdkit on the device's host, QEMU's storage daemon on the VM's host, the same wire between them,
 * which is cut for three seconds while a guest writes.
 */
import { join } from 'node:path';
import { makeEmptyDisk } from '../../test/guest/root-disk.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import { waitForPort } from '../../test/support/port.ts';
import { startStorageDaemon } from '../../test/support/storage-daemon.ts';
import { CLEAR_WIRE } from '../../test/support/tcp-proxy.ts';
import { pathBetween } from '../../test/support/wired-cluster.ts';
import { BlockWriter } from './block-writer.ts';
import { DEVICE_HOST, type Stage, VM_HOST } from './stage.ts';

const CUT_MS = 3_000;
const BLOCKS = 256;
const NBD_PORT = 10809;
/** QEMU's option: how long requests wait for the server before they fail. */
const RECONNECT_DELAY_S = 30;
/** What is waited for an answer after the cut. */
const BACK_MS_MAX = 30_000;

/** What a guest noticed of a cut. */
export interface Outage {
  /** From the cut to the first answer after it that was no error; undefined where there was none in time. */
  readonly pauseMs: number | undefined;
  /** Requests that failed. */
  readonly errors: number;
}

export interface OutageComparison {
  readonly cutMs: number;
  readonly netbus: Outage;
  readonly nbd: Outage;
  readonly nbdWithReconnectDelay: Outage;
}

/** Cuts the wire under each of them, one after the other. */
export async function compareWithNbd(stage: Stage, cleanup: Cleanup, say: (text: string) => void): Promise<OutageComparison> {
  say(`the wire is cut for ${CUT_MS / 1000} s, and the same for an NBD server with qemu-storage-daemon before the guest`);
  stage.writer.resume();
  const netbus = await cut(stage, pathBetween(DEVICE_HOST, VM_HOST), stage.writer);
  const nbd = await nbdOutage(stage, cleanup, 'nbd', NBD_PORT, 0);
  const nbdWithReconnectDelay = await nbdOutage(stage, cleanup, 'nbd-delay', NBD_PORT + 1, RECONNECT_DELAY_S);
  const comparison = { cutMs: CUT_MS, netbus, nbd, nbdWithReconnectDelay };
  say(`Netbus: ${describe(netbus)}`);
  say(`NBD, as it comes: ${describe(nbd)}`);
  say(`NBD with reconnect-delay=${RECONNECT_DELAY_S}: ${describe(nbdWithReconnectDelay)}`);
  return comparison;
}

async function nbdOutage(stage: Stage, cleanup: Cleanup, name: string, port: number, reconnectDelayS: number): Promise<Outage> {
  const [m1, m2] = [stage.cluster.host(DEVICE_HOST), stage.cluster.host(VM_HOST)];
  const image = join(m1.folder, `${name}.img`);
  makeEmptyDisk(image, 1);
  const server = m1.spawn(['nbdkit', '-f', '-i', m1.address, '-p', String(port), '--tls=off', 'file', image]);
  await waitForPort(server.pid, m1.address, port);
  const through = await stage.wire.to(name, { host: m1.address, port });
  const socketPath = join(m2.folder, `${name}.sock`);
  const backend = { kind: 'nbd', address: through.host, port: through.port, reconnectDelayS } as const;
  const client = await startStorageDaemon({ cleanup, socketPath, queues: 1, backend, host: m2 });
  const writer = await BlockWriter.connect({ name, socketPath, blocks: BLOCKS, seed: port, queues: 1, depth: 8, paceMs: 1 });
  try {
    writer.resume();
    return await cut(stage, name, writer);
  } finally {
    writer.close();
    await client.stop();
    await server.stop();
  }
}

async function cut(stage: Stage, path: string, writer: BlockWriter): Promise<Outage> {
  await writer.nextAcknowledgement(BACK_MS_MAX);
  const errors = writer.errorCount;
  const cutAt = performance.now();
  await stage.wire.set(path, { ...CLEAR_WIRE, cut: true });
  await new Promise((resolve) => setTimeout(resolve, CUT_MS));
  await stage.wire.set(path, CLEAR_WIRE);
  const backAt = await writer.nextAcknowledgement(BACK_MS_MAX);
  return {
    pauseMs: backAt === undefined ? undefined : Math.round(backAt - cutAt),
    errors: writer.errorCount - errors,
  };
}

function describe({ pauseMs, errors }: Outage): string {
  const pause = pauseMs === undefined ? 'did not come back' : `a pause of ${(pauseMs / 1000).toFixed(1)} s`;
  return `${pause}, ${errors} requests failed`;
}
