/** The control API's socket: HTTP on a unix socket, for those whom the file's permissions let in. */
import { chmod, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import type { Hono } from 'hono';
import { NetbusError } from '../device/errors.ts';
import { CONTROL_GROUP, giveToGroup } from './group.ts';

const SOCKET_MODE = 0o660;
const CONNECTIONS_MAX = 128;
/** From its first byte to its last, a request of a command is a few milliseconds long. */
const REQUEST_MS_MAX = 10_000;
/** Requests that are being answered when the daemon ends get this long. */
const CLOSE_MS_MAX = 1_000;

export interface ControlServer {
  close(): Promise<void>;
}

/**
 * Listens on `path`. The caller has locked the run folder, so what is there already is of a daemon that is gone. `groupFile` is /etc/group but for
 * tests.
 */
export async function serveControl(path: string, app: Hono, groupFile?: string): Promise<ControlServer> {
  const server = createServer(
    { requestTimeout: REQUEST_MS_MAX, headersTimeout: REQUEST_MS_MAX },
    getRequestListener(app.fetch),
  );
  server.maxConnections = CONNECTIONS_MAX;
  await rm(path, { force: true });
  await listen(server, path);
  // The group before the mode that lets it in.
  await giveToGroup(path, CONTROL_GROUP, groupFile);
  await chmod(path, SOCKET_MODE);
  return {
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      const timer = setTimeout(() => server.closeAllConnections(), CLOSE_MS_MAX);
      await closed;
      clearTimeout(timer);
      await rm(path, { force: true });
    },
  };
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error) =>
      reject(new NetbusError('config', `the control socket ${path} cannot be made: ${error.message}`, { cause: error }));
    server.once('error', fail);
    server.listen(path, () => {
      server.off('error', fail);
      resolve();
    });
  });
}
