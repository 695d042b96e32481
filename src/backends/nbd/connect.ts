/** From a URI to a connection on which requests may be sent: the name's addresses, the socket, the handshake. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { getSystemErrorName } from 'node:util';
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import { abortAfter, type Clock } from '../../lib/clock.ts';
import { type NbdExport, Negotiation } from '../../protocols/nbd/negotiation.ts';
import type { NbdTarget } from '../../protocols/nbd/uri.ts';

/** For one address: until the server has said all of the handshake. */
const CONNECT_MS_MAX = 10_000;
const RECEIVE_BYTES = 8192;
const NO_DESCRIPTORS: readonly number[] = [];
const EAGAIN = 11;
/**
 * TCP's own probes begin after this silence, about when the kernel gives up sending as well (tcp_retries2): a network that is cut for less than that
 * costs time only. An earlier end would leave in doubt what the server still does with what it has.
 */
const KEEPALIVE_AFTER_S = 900;

/** `fd` is the caller's. */
export interface Connected {
  readonly fd: number;
  readonly served: NbdExport;
}

/**
 * Rejects with `unreachable` or `timeout` where nobody answers (yet), `not_found` or `denied` where the server refuses, `protocol` where it is none that can be
 * used. `signal` gives up.
 */
export async function connectNbd(target: NbdTarget, clock: Clock, signal: AbortSignal): Promise<Connected> {
  const { server, uri } = target;
  if (server.kind === 'unix') return await open(() => native.connectUnix(server.path), target, clock, signal);
  let failure: unknown = new NetbusError('unreachable', `${uri}: ${server.host} has no address`);
  for (const address of await resolve(server.host, uri)) {
    try {
      return await open(() => native.connectTcp(address, server.port), target, clock, signal);
    } catch (thrown) {
      failure = thrown;
      if (signal.aborted) break;
    }
  }
  throw failure;
}

async function resolve(host: string, uri: string): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  try {
    return (await lookup(host, { all: true, order: 'verbatim' })).map(({ address }) => address);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    throw new NetbusError('unreachable', `${uri}: the address of ${host} cannot be found (${code}): check the name`);
  }
}

async function open(connect: () => number, target: NbdTarget, clock: Clock, signal: AbortSignal): Promise<Connected> {
  let fd: number;
  try {
    fd = connect();
  } catch (thrown) {
    throw unreachable(target, (thrown as NodeJS.ErrnoException).code ?? String(thrown));
  }
  try {
    if (target.server.kind === 'tcp') native.setTcpOptions(fd, KEEPALIVE_AFTER_S);
    return { fd, served: await shakeHands(fd, target, clock, signal) };
  } catch (thrown) {
    native.close(fd);
    throw thrown;
  }
}

/** The socket may still be connecting. */
function shakeHands(fd: number, target: NbdTarget, clock: Clock, signal: AbortSignal): Promise<NbdExport> {
  const { uri } = target;
  return new Promise((resolvePromise, reject) => {
    const negotiation = new Negotiation(target.exportName);
    const buffer = new Uint8Array(RECEIVE_BYTES);
    let isConnected = false;
    const bound = abortAfter(clock, CONNECT_MS_MAX);
    const end = (settle: () => void) => {
      native.unwatch(watch);
      bound.cancel();
      bound.signal.removeEventListener('abort', late);
      signal.removeEventListener('abort', givenUp);
      settle();
    };
    const fail = (error: Error) => end(() => reject(error));
    const late = () => {
      const where = isConnected ? 'the NBD server says nothing; it may be serving another client' : 'nobody answers';
      fail(new NetbusError('timeout', `${uri}: ${where} (${CONNECT_MS_MAX / 1000} s)`));
    };
    const givenUp = () => fail(new NetbusError('ended', `${uri}: given up`));
    const watch = native.watch(fd, { readable: true, writable: true }, (error, readable) => {
      if (error < 0) return fail(unreachable(target, getSystemErrorName(error)));
      if (!isConnected) {
        isConnected = true;
        native.rewatch(watch, { readable: true, writable: false });
      }
      if (!readable) return;
      const { bytes } = native.receiveMessage(fd, buffer, 0, buffer.length);
      if (bytes === -EAGAIN) return;
      if (bytes === 0)
        return fail(
          new NetbusError('unreachable', `${uri}: the NBD server ended the connection; it may be serving another client`),
        );
      if (bytes < 0) return fail(unreachable(target, getSystemErrorName(bytes)));
      try {
        const answer = negotiation.receive(buffer.subarray(0, bytes));
        // A few kilobytes at most, and the server waits for them: a socket that does not take them at once is broken.
        const sent = answer.length === 0 ? 0 : native.sendMessage(fd, answer, 0, answer.length, NO_DESCRIPTORS);
        if (sent !== answer.length) return fail(unreachable(target, sent < 0 ? getSystemErrorName(sent) : 'EAGAIN'));
      } catch (thrown) {
        const refusal = NetbusError.from(thrown);
        return fail(new NetbusError(refusal.code, `${uri}: ${refusal.message}`));
      }
      const { result } = negotiation;
      if (result !== undefined) end(() => resolvePromise(result));
    });
    bound.signal.addEventListener('abort', late, { once: true });
    signal.addEventListener('abort', givenUp, { once: true });
    if (signal.aborted) givenUp();
  });
}

function unreachable({ uri, server }: NbdTarget, code: string): NetbusError {
  if (server.kind === 'unix') {
    switch (code) {
      case 'ENOENT':
        return new NetbusError('unreachable', `${uri}: there is no socket ${server.path}: start the NBD server there`);
      case 'EACCES':
        return new NetbusError('denied', `${uri}: no permission to use the socket ${server.path}: change its owner or mode`);
    }
  }
  return new NetbusError('unreachable', `${uri}: the NBD server cannot be reached (${code}): check that it runs there`);
}
