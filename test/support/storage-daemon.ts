/** QEMU's storage daemon as a vhost-user back-end: the independent one of the interop tests, and the C peer of the benchmark. */
import { closeSync, existsSync, ftruncateSync, openSync } from 'node:fs';
import type { Cleanup } from './cleanup.ts';
import { type RunningProcess, startProcess } from './process.ts';
import { waitForListener } from './wait.ts';

/** What the daemon exports. */
export type StorageBackend =
  /**
   * A file, through the page cache; made with `sizeBytes` of zeroes where it does not exist. `shared`: it is not locked, so that two daemons can
   * have it while a guest goes from one to the other.
   */
  | { readonly kind: 'file'; readonly imagePath: string; readonly sizeBytes?: number; readonly shared?: boolean }
  /** Nothing behind it: reads give whatever is there. For the speed of the protocol alone. */
  | { readonly kind: 'null'; readonly sizeBytes: number }
  /**
   * An NBD server, with TLS where `credentials` name a directory of QEMU's x509 files. Requests wait for a lost server for
   * `reconnectDelayS`, 0 by default.
   */
  | {
      readonly kind: 'nbd';
      readonly address: string;
      readonly port: number;
      readonly credentials?: string;
      readonly reconnectDelayS?: number;
    };

export interface StorageDaemonOptions {
  readonly cleanup: Cleanup;
  /** Where the disk is offered (vhost-user-blk). */
  readonly socketPath: string;
  readonly queues: number;
  readonly backend: StorageBackend;
  /** Where it runs; the harness's own namespaces by default. The socket's path is the same on both. */
  readonly host?: { command(argv: readonly string[]): string[] };
}

/** TLS 1.3 and nothing older, so that a comparison knows what it compares. */
export const TLS_PRIORITY = 'NORMAL:-VERS-ALL:+VERS-TLS1.3';

/** Starts the daemon and waits until its socket listens. It serves one front-end after the other. */
export async function startStorageDaemon(options: StorageDaemonOptions): Promise<RunningProcess> {
  const { cleanup, socketPath, queues, backend } = options;
  if (backend.kind === 'file' && !existsSync(backend.imagePath)) makeImage(backend.imagePath, backend.sizeBytes ?? 0);
  const command = [
    'qemu-storage-daemon',
    ...blockdevArguments(backend),
    '--export',
    `type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=${socketPath},writable=on,num-queues=${queues}`,
  ];
  const daemon = startProcess(options.host?.command(command) ?? command, cleanup);
  const ended = daemon.exited.then(() => {
    throw new Error(`qemu-storage-daemon ended: ${daemon.stderr.trim()}`);
  });
  ended.catch(() => {});
  await Promise.race([waitForListener(socketPath, daemon.pid), ended]);
  return daemon;
}

function blockdevArguments(backend: StorageBackend): string[] {
  switch (backend.kind) {
    case 'file': {
      const locking = backend.shared === true ? ',locking=off' : '';
      return ['--blockdev', `driver=file,node-name=disk,filename=${backend.imagePath},discard=unmap${locking}`];
    }
    case 'null':
      return ['--blockdev', `driver=null-co,node-name=disk,size=${backend.sizeBytes},read-zeroes=off`];
    case 'nbd': {
      const server = `server.type=inet,server.host=${backend.address},server.port=${backend.port}`;
      const node = `driver=nbd,node-name=disk,${server},discard=unmap,reconnect-delay=${backend.reconnectDelayS ?? 0}`;
      if (backend.credentials === undefined) return ['--blockdev', node];
      const credentials = `tls-creds-x509,id=tls,endpoint=client,dir=${backend.credentials},priority=${TLS_PRIORITY}`;
      return ['--object', credentials, '--blockdev', `${node},tls-creds=tls`];
    }
  }
}

function makeImage(path: string, bytes: number): void {
  const fd = openSync(path, 'wx');
  ftruncateSync(fd, bytes);
  closeSync(fd);
}
