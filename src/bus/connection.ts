/**
 * One connection with another host, after TLS: bytes to frames and back, heartbeat, BYE. What the frames mean is its owner's
 * business: the handshake first, then a control link or one end of a session.
 */
import type { X509Certificate } from 'node:crypto';
import { NetbusError } from '../device/errors.ts';
import { type FrameHeader, FrameType, frameTypeName } from '../protocols/netbus/frame.ts';
import { type FrameHandler, FrameParser } from '../protocols/netbus/frame-parser.ts';
import { HEARTBEAT_CUT_MS, PINGS_UNANSWERED_MAX } from '../protocols/netbus/limits.ts';
import { decodeError, decodeMessage, encodeError, encodeMessage, wireErrorSchema } from '../protocols/netbus/messages.ts';
import type { ByteStream, StreamUser } from './byte-stream.ts';
import type { Endpoint } from './endpoint.ts';
import { Heartbeat } from './heartbeat.ts';
import { type FrameSource, makeFrame, Outgoing, UNSENT_BYTES_MAX } from './outgoing.ts';

/** How long a connection that is being closed may take to send BYE. */
const CLOSE_MS_MAX = 1_000;
const NOTHING = new Uint8Array();

/** Who a connection's frames go to. It sees every frame except BYE and, after WELCOME, PING and PONG; what it throws is a violation by the peer. */
export interface ConnectionOwner extends FrameHandler {
  /** What arrived together has been handed on: time to act on it. */
  arrived(): void;
  /** The connection is over, other than by `close`: told once, and nothing comes after it. */
  ended(cause: NetbusError): void;
}

export class Connection implements StreamUser {
  /** The peer for people: "m1 (192.0.2.1:7443)". */
  readonly peerText: string;
  readonly endpoint: Endpoint;
  /** The peer's name by its certificate. */
  readonly peer: string;
  /** The peer's certificate; undefined for one that joins. */
  readonly certificate: X509Certificate | undefined;
  /** The last round trip of PING and PONG; undefined until there was one. */
  rttMs: number | undefined;
  readonly #stream: ByteStream;
  readonly #outgoing: Outgoing;
  readonly #parser: FrameParser;
  readonly #heartbeat: Heartbeat;
  #owner: ConnectionOwner;
  #state: 'open' | 'closing' | 'closed' = 'open';
  /** The handshake is over. */
  #begun = false;
  #pingId = 0;
  #pingSentAt = 0;
  #pongsWaiting = 0;
  #cancelClose: (() => void) | undefined;

  /** The stream's user from now on, TLS and peer checked; `address` is for people. */
  constructor(options: {
    endpoint: Endpoint;
    stream: ByteStream;
    peer: string;
    certificate?: X509Certificate;
    address: string;
    owner: ConnectionOwner;
  }) {
    const { endpoint, stream } = options;
    this.endpoint = endpoint;
    this.peer = options.peer;
    this.certificate = options.certificate;
    this.peerText = `${options.peer} (${options.address})`;
    this.#stream = stream;
    this.#owner = options.owner;
    this.#heartbeat = new Heartbeat(endpoint.clock, { idle: () => this.ping(), silent: () => this.#silent() });
    this.#outgoing = new Outgoing(stream, endpoint.sendBuffer, () => this.#heartbeat.sent());
    this.#parser = new FrameParser(this.#frames());
    stream.use(this);
  }

  get open(): boolean {
    return this.#state === 'open';
  }

  /** WELCOME was sent or received: frames go to `owner` from the next one on, and the heartbeat begins. */
  begin(owner: ConnectionOwner): void {
    this.#owner = owner;
    this.#begun = true;
    if (this.#state === 'open') this.#heartbeat.start();
  }

  /** Where data frames come from. */
  set source(source: FrameSource | undefined) {
    if (this.#state === 'open') this.#outgoing.source = source;
  }

  /** The source has something to send. */
  schedule(): void {
    this.#outgoing.schedule();
  }

  /** Writes what waits at once, instead of at the end of the turn. */
  flush(): void {
    this.#outgoing.flush();
  }

  /** A frame outside the data path. A peer that lets too many of them pile up is cut. */
  send(type: number, fields: { kind?: number; id?: number; argument?: number }, payload: object | undefined = undefined): void {
    if (this.#state !== 'open') return;
    const bytes = payload === undefined ? NOTHING : encodeMessage(payload);
    this.#outgoing.send(type, fields.kind ?? 0, fields.id ?? 0, fields.argument ?? 0, bytes);
    if (this.#outgoing.unsentBytes > UNSENT_BYTES_MAX) {
      this.#fail(new NetbusError('limit', `${this.peerText} does not read: more than ${UNSENT_BYTES_MAX} bytes wait for it`));
    }
  }

  ping(): void {
    this.#pingId = (this.#pingId + 1) >>> 0;
    this.#pingSentAt = this.endpoint.clock.now();
    this.send(FrameType.ping, { id: this.#pingId });
  }

  /** Says BYE and closes; the owner hears nothing more. `reason` is what the peer is told. Twice is once. */
  close(reason: NetbusError): void {
    if (this.#state !== 'open') return;
    this.#stop('closing');
    this.#outgoing.finish(makeFrame(FrameType.bye, 0, 0, 0, encodeMessage(encodeError(reason))));
    this.#cancelClose = this.endpoint.clock.after(CLOSE_MS_MAX, () => this.#stream.destroy());
  }

  /** Closes at once, without a word; after the call no byte that arrived is looked at. */
  destroy(): void {
    if (this.#state === 'open') this.#stop('closed');
    this.#outgoing.close();
    this.#stream.destroy();
  }

  // --- StreamUser ------------------------------------------------------------------------------------------------------

  received(chunk: Uint8Array): void {
    if (this.#state !== 'open') return;
    this.#heartbeat.received();
    try {
      this.#parser.feed(chunk);
    } catch (thrown) {
      const error = NetbusError.from(thrown);
      if (error.code === 'internal') this.endpoint.log.error({ peer: this.peer, err: thrown }, 'a frame met a bug');
      const told = new NetbusError(error.code, `${this.peerText} sent what this host cannot take: ${error.message}`);
      this.#fail(told, error);
      return;
    }
    if (this.#state !== 'open') return;
    // What the owner schedules from here is flushed right after.
    this.#outgoing.hold();
    this.#owner.arrived();
    this.#outgoing.flush();
  }

  writable(): void {
    this.#outgoing.writable();
  }

  ended(): void {
    this.#cut(this.#parser.atBoundary ? 'closed by the peer' : 'closed by the peer within a frame');
  }

  failed(code: string): void {
    this.#cut(code);
  }

  // --- inside ----------------------------------------------------------------------------------------------------------

  #frames(): FrameHandler {
    return {
      begin: (frame) => {
        const ours =
          frame.type === FrameType.bye || (this.#begun && (frame.type === FrameType.ping || frame.type === FrameType.pong));
        if (!ours) this.#owner.begin(frame);
      },
      payload: (frame, bytes, offset, length, position) => this.#owner.payload(frame, bytes, offset, length, position),
      end: (frame, text) => {
        switch (frame.type) {
          case FrameType.bye:
            this.#bye(text!);
            break;
          case FrameType.ping:
            this.#answerPing(frame);
            break;
          case FrameType.pong:
            if (frame.id === this.#pingId) this.rttMs = this.endpoint.clock.now() - this.#pingSentAt;
            break;
          default:
            this.#owner.end(frame, text);
        }
      },
    };
  }

  #answerPing(frame: FrameHeader): void {
    // Counted between looks at the send queue: a peer that pings and does not read gets no queue of its own.
    if (this.#outgoing.unsentBytes === 0) this.#pongsWaiting = 0;
    if (++this.#pongsWaiting > PINGS_UNANSWERED_MAX) {
      throw new NetbusError('protocol', `more than ${PINGS_UNANSWERED_MAX} PINGs without waiting for PONG`);
    }
    this.send(FrameType.pong, { id: frame.id });
  }

  #bye(text: Uint8Array): void {
    const error = decodeError(decodeMessage(wireErrorSchema, text, 'BYE'));
    this.#finish(new NetbusError(error.code, `${this.peerText} ended the connection: ${error.message}`));
    this.#outgoing.finish(undefined);
    this.#cancelClose = this.endpoint.clock.after(CLOSE_MS_MAX, () => this.#stream.destroy());
  }

  #silent(): void {
    this.#cut(`nothing was heard for ${HEARTBEAT_CUT_MS / 1000} s`);
  }

  /** The stream is of no more use, in either direction. */
  #cut(reason: string): void {
    this.#finish(new NetbusError('unreachable', `the connection with ${this.peerText} was cut: ${reason}`));
    this.#state = 'closed';
    this.#cancelClose?.();
    this.#outgoing.close();
    this.#stream.destroy();
  }

  /** Ends a connection whose peer is at fault: `reason` goes into its BYE. */
  #fail(cause: NetbusError, reason = cause): void {
    const owner = this.#owner;
    if (this.#state !== 'open') return;
    this.close(reason);
    owner.ended(cause);
  }

  /** Tells the owner that it is over, once. */
  #finish(cause: NetbusError): void {
    if (this.#state !== 'open') return;
    const owner = this.#owner;
    this.#stop('closing');
    owner.ended(cause);
  }

  #stop(state: 'closing' | 'closed'): void {
    this.#state = state;
    this.#parser.stop();
    this.#heartbeat.stop();
  }
}

/** A frame that this connection's kind or state does not allow: docs/protocol.md, 2. */
export function unexpected(frame: FrameHeader, where: string): NetbusError {
  return new NetbusError('protocol', `${frameTypeName(frame.type)} ${where}`);
}
