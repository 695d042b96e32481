/** TCP ports of this machine, for programs that cannot choose their own. */
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { waitFor } from './wait.ts';

/** A port that was free a moment ago: the kernel does not hand it out again soon. */
export function freePort(address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, address, () => {
      const bound = server.address();
      const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
      server.close(() => resolve(port));
    });
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
