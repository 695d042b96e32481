/** The other end of a connection as bytes: a peer that does in tests what ours never would. TLS and certificates are in order. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import type { Target } from '../../src/bus/dial.ts';
import type { EndpointIdentity } from '../../src/bus/endpoint.ts';
import { FrameType } from '../../src/protocols/netbus/frame.ts';
import { type Frame, FrameCollector, frame } from './frames.ts';
import { waitFor } from './wait.ts';

const secure = ({ ca, certificate: cert, key }: EndpointIdentity) => ({
  ...{ ca, cert, key, ALPNProtocols: ['netbus'], minVersion: 'TLSv1.3' as const },
  rejectUnauthorized: false,
});

export class TlsPeer {
  readonly socket: TLSSocket;
  readonly collector = new FrameCollector();
  closed = false;

  constructor(socket: TLSSocket) {
    this.socket = socket;
    socket.on('data', (chunk: Uint8Array) => this.collector.parser.feed(Uint8Array.from(chunk)));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.closed = true;
    });
  }

  /** Connects as `identity`, from `localAddress` where it is given; nothing is said yet. */
  static async connect(identity: EndpointIdentity, target: Target, localAddress?: string): Promise<TlsPeer> {
    const from = localAddress === undefined ? {} : { localAddress };
    const socket = connect({ ...secure(identity), host: target.address, port: target.port, ...from });
    const peer = new TlsPeer(socket);
    await once(socket, 'secureConnect');
    return peer;
  }

  /** Listens as `identity`; each connection goes to `accept`. */
  static async listen(identity: EndpointIdentity, accept: (peer: TlsPeer) => void): Promise<{ target: Target; close(): void }> {
    const server = createServer({ ...secure(identity), requestCert: true }, (socket) => accept(new TlsPeer(socket)));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    return { target: { host: identity.host, address: '127.0.0.1', port }, close: () => server.close() };
  }

  send(fields: Frame, json?: object): void {
    this.socket.write(frame(fields, json));
  }

  /** The first frame of a type, once it is there. */
  async received(type: number): Promise<Required<Frame>> {
    const find = () => this.collector.frames.find((candidate) => candidate.type === type);
    await waitFor(`a frame of type ${type}`, () => find() !== undefined);
    return find()!;
  }

  /** BYE's text, once it is there. */
  async bye(): Promise<{ code: string; message: string }> {
    return JSON.parse(Buffer.from((await this.received(FrameType.bye)).payload).toString());
  }

  /** HELLO for a session, WELCOME, and the lease. */
  async activate(attachment: string): Promise<void> {
    await this.hello(attachment);
    this.send({ type: FrameType.state, kind: 1, id: 1 });
    await this.received(FrameType.stated);
  }

  async hello(attachment: string, features: readonly string[] = []): Promise<void> {
    const session = { purpose: 'session', attachment, state: 'standby', epoch: 0 };
    this.send({ type: FrameType.hello }, { magic: 'netbus', versions: [1, 1], features, ...session });
    await this.received(FrameType.welcome);
  }
}
