/** TCP ports of this machine, for programs that cannot choose their own. */
import { randomInt } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type ListenOptions, type Server } from 'node:net';
import { waitFor } from './wait.ts';

/** Below the ports that the kernel gives to connections and to listeners that do not choose, which could take one between two looks. */
const PORT_FIRST = 16_384;
const PORTS = 16_384;

/** A port that is free, and that no other program that asks here is given while this one runs. */
export async function freePort(address: string): Promise<number> {
  for (;;) {
    const port = PORT_FIRST + randomInt(PORTS);
    // A name of the kernel's, which goes with the process that has it.
    const reservation = await listen({ path: `\0netbus-test-port-${port}` });
    const probe = reservation && (await listen({ host: address, port }));
    if (probe === undefined) {
      reservation?.close();
      continue;
    }
    await new Promise((resolve) => probe.close(resolve));
    reservation!.unref();
    return port;
  }
}

/** Undefined where the place is taken. */
function listen(place: ListenOptions): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => (error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error)));
    server.listen(place, () => resolve(server));
  });
}

/** Waits until the process `pid` listens at an IPv4 address. Looks at the kernel's table, so the listener sees no connection. */
export async function waitForPort(pid: number, address: string, port: number): Promise<void> {
  const table = `/proc/${pid}/net/tcp`;
  const local = `${hexAddress(address)}:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  await waitFor(`a listener at ${address}:${port}`, () => {
    if (!existsSync(table)) throw new Error(`the process ${pid}, which was to listen at ${address}:${port}, has ended`);
    return readFileSync(table, 'utf8')
      .split('\n')
      .some((line) => isListening(line, local));
  });
}

/** Columns of /proc/net/tcp: number, local address, remote address, state; 0A is LISTEN. */
function isListening(line: string, local: string): boolean {
  const columns = line.trim().split(/\s+/);
  return columns[1] === local && columns[3] === '0A';
}

/** The kernel prints the address as one word in the machine's byte order. */
function hexAddress(address: string): string {
  return address
    .split('.')
    .reverse()
    .map((part) => Number(part).toString(16).toUpperCase().padStart(2, '0'))
    .join('');
}
