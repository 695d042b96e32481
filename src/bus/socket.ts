import { isIP, type Socket } from 'node:net';

/** TCP's own probes begin after this silence. The heartbeat finds a dead peer first; these cover the time before it runs. */
const KEEPALIVE_AFTER_MS = 10_000;

export function setSocketOptions(socket: Socket): void {
  // Whatever is ready leaves in one write: Nagle's algorithm could only add delay.
  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEPALIVE_AFTER_MS);
}

/** "192.0.2.1:7443", "[2001:db8::1]:7443". */
export function addressText(target: { address: string; port: number }): string {
  return isIP(target.address) === 6 ? `[${target.address}]:${target.port}` : `${target.address}:${target.port}`;
}

/** The peer's address and port; undefined where the socket has gone. */
export function peerAddress(socket: Socket): string | undefined {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  return addressText({ address: remoteAddress.replace(/^::ffff:(?=\d+\.)/, ''), port: remotePort });
}
