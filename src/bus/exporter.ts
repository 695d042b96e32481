/** The device's side of sessions: docs/protocol.md, 4. Authorises each through the SessionHost, and carries its requests to the device. */
import type { LeasePurpose } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import type { HandOver } from '../device/hand-over.ts';
import { type FrameHeader, FrameType, SessionStateKind } from '../protocols/netbus/frame.ts';
import { CREDIT_BYTES_DEFAULT, HAND_OVER_FEATURE, SESSIONS_MAX, SWAP_FEATURE } from '../protocols/netbus/limits.ts';
import { activeSchema, decodeMessage, encodeError, quiescedSchema, type SessionHello } from '../protocols/netbus/messages.ts';
import { type Connection, type ConnectionOwner, unexpected } from './connection.ts';
import type { Endpoint } from './endpoint.ts';
import type { Incoming } from './listener.ts';
import type { BusObserver } from './observer.ts';
import { RequestPort, type RequestPortLink } from './request-port.ts';
import type { OpenedSession, SessionHost } from './session-host.ts';
import type { AllocateStaging } from './staging.ts';

/** A session as `status` shows it. */
export interface ExportedSessionInfo {
  readonly peer: string;
  readonly attachment: string;
  readonly state: ExportedState['name'];
  /** Milliseconds since 1970: when it was opened. */
  readonly since: number;
  /** While it has the device. */
  readonly epoch?: number;
  /** Requests without a reply. */
  readonly inFlight: number;
}

export class Exporter {
  readonly #endpoint: Endpoint;
  readonly #host: SessionHost;
  readonly #allocate: AllocateStaging;
  readonly #observer: BusObserver | undefined;
  readonly #sessions = new Set<ExportedSession>();
  readonly #opening = new Set<Connection>();

  constructor(options: { endpoint: Endpoint; host: SessionHost; allocate: AllocateStaging; observer?: BusObserver }) {
    this.#endpoint = options.endpoint;
    this.#host = options.host;
    this.#allocate = options.allocate;
    this.#observer = options.observer;
  }

  get sessions(): ExportedSessionInfo[] {
    return [...this.#sessions].map((session) => session.describe());
  }

  /** Takes a connection whose purpose is `session`. */
  async accept(incoming: Incoming & { readonly hello: SessionHello }): Promise<void> {
    const { connection, hello } = incoming;
    const { log } = this.#endpoint;
    if (this.#sessions.size + this.#opening.size >= SESSIONS_MAX) {
      connection.close(new NetbusError('limit', `${this.#endpoint.host} has ${SESSIONS_MAX} sessions already`));
      return;
    }
    const fields = { peer: connection.peer, attachment: hello.attachment };
    let session: ExportedSession | undefined;
    let endedBefore: NetbusError | undefined;
    this.#opening.add(connection);
    try {
      const opened = await this.#host.open(connection.peer, hello, (cause) => {
        if (session === undefined) endedBefore = cause;
        else session.displaced(cause);
      });
      const { profile, depth, instance, bytes = CREDIT_BYTES_DEFAULT } = opened;
      const handsOver = incoming.features.includes(HAND_OVER_FEATURE);
      const swaps = incoming.features.includes(SWAP_FEATURE);
      session = new ExportedSession({ connection, hello, opened, handsOver, swaps, bytes, allocate: this.#allocate });
      session.onOver = (exported) => this.#sessions.delete(exported);
      session.onLost = (cause) => this.#observer?.sessionLost(connection.peer, hello.attachment, cause);
      this.#sessions.add(session);
      if (endedBefore !== undefined) session.displaced(endedBefore);
      else if (incoming.welcome(session, { session: { instance, profile, depth, bytes } })) log.info(fields, 'session opened');
      else session.ended(new NetbusError('unreachable', 'the connection was closed before WELCOME'));
    } catch (thrown) {
      const error = NetbusError.from(thrown);
      if (error.code === 'internal') log.error({ ...fields, err: thrown }, 'a session could not be opened');
      else log.warn({ ...fields, code: error.code }, `session refused: ${error.message}`);
      connection.close(error);
    } finally {
      this.#opening.delete(connection);
    }
  }

  /** Ends all sessions of `peer`, also those that it is opening; resolves when the I/O of each has finished. */
  async drop(peer: string, cause: NetbusError): Promise<void> {
    for (const connection of this.#opening) if (connection.peer === peer) connection.close(cause);
    const dropped = [...this.#sessions].filter((session) => session.peer === peer);
    await Promise.all(dropped.map((session) => session.displaced(cause)));
  }

  /** Ends all sessions; resolves when the I/O of each has finished. */
  async close(cause = new NetbusError('ended', `netbusd of ${this.#endpoint.host} stops`)): Promise<void> {
    await Promise.all([...this.#sessions].map((session) => session.displaced(cause)));
  }
}

type ExportedState =
  | { readonly name: 'standby' | 'activating' | 'quiesced' }
  | { readonly name: 'active'; readonly port: RequestPort; readonly epoch: number }
  /** `port`: of the device that it had; undefined where it gives back what an earlier session had. */
  | { readonly name: 'releasing'; readonly port: RequestPort | undefined; readonly epoch: number }
  | { readonly name: 'over' };

class ExportedSession implements ConnectionOwner, RequestPortLink {
  onOver: (session: ExportedSession) => void = () => {};
  /** It ends while it has the device. */
  onLost: (cause: NetbusError) => void = () => {};
  readonly #connection: Connection;
  readonly #hello: SessionHello;
  readonly #opened: OpenedSession;
  /** STATE quiesced says what is left, and STATED what was. */
  readonly #handsOver: boolean;
  /** STATE active may say what the lease is for. */
  readonly #swaps: boolean;
  readonly #bytes: number;
  readonly #allocate: AllocateStaging;
  readonly #since: number;
  #state: ExportedState = { name: 'standby' };
  /** Set once it is over: its device is closed and its staging free when this resolves. */
  #cleanedUp: Promise<void> | undefined;

  constructor(options: {
    connection: Connection;
    hello: SessionHello;
    opened: OpenedSession;
    handsOver: boolean;
    swaps: boolean;
    bytes: number;
    allocate: AllocateStaging;
  }) {
    this.#connection = options.connection;
    this.#hello = options.hello;
    this.#opened = options.opened;
    this.#handsOver = options.handsOver;
    this.#swaps = options.swaps;
    this.#bytes = options.bytes;
    this.#allocate = options.allocate;
    this.#since = options.connection.endpoint.clock.wallTime();
  }

  get peer(): string {
    return this.#connection.peer;
  }

  get attachment(): string {
    return this.#hello.attachment;
  }

  describe(): ExportedSessionInfo {
    const { peer, attachment } = this;
    const state = this.#state;
    const base = { peer, attachment, state: state.name, since: this.#since };
    if (state.name !== 'active' && state.name !== 'releasing') return { ...base, inFlight: 0 };
    return { ...base, epoch: state.epoch, inFlight: state.port?.inFlight ?? 0 };
  }

  /** The device's side ends it: the lease went to a newer session, the export was removed, the daemon stops. */
  displaced(cause: NetbusError): Promise<void> {
    this.#connection.close(cause);
    return this.#over(cause);
  }

  // --- ConnectionOwner -------------------------------------------------------------------------------------------------------

  begin(frame: FrameHeader): void {
    const state = this.#state;
    switch (frame.type) {
      case FrameType.request:
        if (state.name !== 'active') throw unexpected(frame, `in the state ${state.name}`);
        state.port.begin(frame);
        return;
      case FrameType.event:
      case FrameType.credit:
        if (state.name === 'active') state.port.begin(frame);
        // Credit for events may cross the peer's own STATE.
        else if (frame.type === FrameType.event) throw unexpected(frame, `in the state ${state.name}`);
        return;
      case FrameType.state:
        if (frame.payloadLength > 0 && !this.#mayHavePayload(frame.kind)) {
          throw unexpected(frame, 'with a payload, which goes with the features hand-over (quiesced) and swap (active)');
        }
        return;
      default:
        throw unexpected(frame, 'is not for the device side of a session');
    }
  }

  payload(frame: FrameHeader, bytes: Uint8Array, offset: number, length: number, position: number): void {
    if (this.#state.name === 'active') this.#state.port.payload(frame, bytes, offset, length, position);
  }

  end(frame: FrameHeader, text: Uint8Array | undefined): void {
    if (frame.type === FrameType.state) this.#stateAsked(frame, text!);
    else if (this.#state.name === 'active') this.#state.port.end(frame);
  }

  arrived(): void {
    if (this.#state.name === 'active') this.#state.port.arrived();
  }

  ended(cause: NetbusError): void {
    void this.#over(cause);
  }

  // --- RequestPortLink ---------------------------------------------------------------------------------------------------------

  schedule(): void {
    this.#connection.schedule();
  }

  credit(messages: number, bytes: number): void {
    this.#connection.send(FrameType.credit, { id: messages, argument: bytes });
  }

  deviceLost(cause: NetbusError): void {
    void this.displaced(new NetbusError('device', cause.message, { cause }));
  }

  // --- states --------------------------------------------------------------------------------------------------------------------

  #stateAsked(frame: FrameHeader, text: Uint8Array): void {
    const state = this.#state;
    // The header is the parser's, and the next one's soon.
    const { id } = frame;
    switch (frame.kind) {
      case SessionStateKind.active:
        if (state.name !== 'standby' && state.name !== 'quiesced') throw unexpected(frame, `active in the state ${state.name}`);
        void this.#activate(id, state, this.#purpose(text));
        return;
      case SessionStateKind.quiesced:
        if (state.name === 'active') {
          if (!state.port.idle) throw unexpected(frame, 'quiesced while requests have no reply');
          void this.#release(id, state.port, state.epoch, this.#left(text));
        } else if (this.#handsOver && (state.name === 'standby' || state.name === 'quiesced')) {
          void this.#releaseEarlier(id, state, this.#left(text));
        } else {
          throw unexpected(frame, `quiesced in the state ${state.name}`);
        }
        return;
      default:
        throw unexpected(frame, `of the unknown kind ${frame.kind}`);
    }
  }

  #mayHavePayload(kind: number): boolean {
    return kind === SessionStateKind.active ? this.#swaps : kind === SessionStateKind.quiesced && this.#handsOver;
  }

  /** What the VM's side wants the lease for; undefined: for the guest. */
  #purpose(text: Uint8Array): LeasePurpose | undefined {
    return text.length === 0 ? undefined : decodeMessage(activeSchema, text, 'STATE active').purpose;
  }

  async #activate(id: number, before: ExportedState, purpose: LeasePurpose | undefined): Promise<void> {
    const { session } = this.#opened;
    this.#state = { name: 'activating' };
    try {
      const { epoch, instance, device, handOver } = await session.activate(purpose);
      if (this.#state.name !== 'activating') {
        await device.close();
        session.close();
        return;
      }
      const { depth } = this.#opened;
      const profile = () => this.#opened.profile;
      const options = { link: this, device, profile, depth, creditBytes: this.#bytes, allocate: this.#allocate };
      let port: RequestPort;
      try {
        port = new RequestPort(options);
      } catch (thrown) {
        // No memory for its requests.
        await device.close();
        throw thrown;
      }
      this.#state = { name: 'active', port, epoch };
      this.#connection.source = port;
      const told = this.#handsOver && handOver !== undefined ? { handOver } : {};
      this.#connection.send(FrameType.stated, { id }, { epoch, instance, ...told });
      this.#connection.flush();
      this.#connection.endpoint.log.info({ peer: this.peer, attachment: this.attachment, epoch }, 'lease granted');
    } catch (thrown) {
      this.#failed(id, 'granted', thrown);
      if (this.#state.name === 'activating') this.#state = before;
    }
  }

  /** What the VM's side says of its guest's requests. One without the feature has none left, and says no more. */
  #left(text: Uint8Array): HandOver | 'unchanged' {
    return this.#handsOver ? decodeMessage(quiescedSchema, text, 'STATE quiesced').left : { queues: [] };
  }

  async #release(id: number, port: RequestPort, epoch: number, left: HandOver | 'unchanged'): Promise<void> {
    this.#state = { name: 'releasing', port, epoch };
    this.#connection.source = undefined;
    try {
      await port.close();
      await this.#opened.session.quiesced(left);
      if (this.#state.name !== 'releasing') return;
      this.#state = { name: 'quiesced' };
      this.#connection.send(FrameType.stated, { id }, { epoch });
      this.#connection.flush();
      this.#connection.endpoint.log.info({ peer: this.peer, attachment: this.attachment, epoch }, 'lease given back');
    } catch (thrown) {
      // The device is closed and the lease is not free: there is no state to go on in.
      void this.displaced(NetbusError.from(thrown));
    }
  }

  /** An earlier session of its host is over. Nothing of this one has ended where that is refused, so it goes on as it was. */
  async #releaseEarlier(id: number, before: ExportedState, left: HandOver | 'unchanged'): Promise<void> {
    const { epoch } = this.#hello;
    this.#state = { name: 'releasing', port: undefined, epoch };
    try {
      await this.#opened.session.quiesced(left);
      if (this.#state.name !== 'releasing') return;
      this.#state = { name: 'quiesced' };
      this.#connection.send(FrameType.stated, { id }, { epoch });
      this.#connection.flush();
      this.#connection.endpoint.log.info(
        { peer: this.peer, attachment: this.attachment },
        'lease of an earlier session given back',
      );
    } catch (thrown) {
      this.#failed(id, 'given back', thrown);
      if (this.#state.name === 'releasing') this.#state = before;
    }
  }

  #failed(id: number, what: 'granted' | 'given back', thrown: unknown): void {
    const error = NetbusError.from(thrown);
    const { log } = this.#connection.endpoint;
    const fields = { peer: this.peer, attachment: this.attachment, code: error.code };
    if (error.code === 'internal') log.error({ ...fields, err: thrown }, `the lease could not be ${what}`);
    else log.warn(fields, `the lease was not ${what}: ${error.message}`);
    this.#connection.send(FrameType.stated, { id }, { error: encodeError(error) });
  }

  #over(cause: NetbusError): Promise<void> {
    this.#cleanedUp ??= this.#cleanUp(cause);
    return this.#cleanedUp;
  }

  async #cleanUp(cause: NetbusError): Promise<void> {
    const state = this.#state;
    this.#state = { name: 'over' };
    if (state.name === 'active') this.onLost(cause);
    const { log } = this.#connection.endpoint;
    log.info({ peer: this.peer, attachment: this.attachment, code: cause.code }, `session ended: ${cause.message}`);
    try {
      if (state.name === 'active' || state.name === 'releasing') await state.port?.close();
    } catch (thrown) {
      log.error({ peer: this.peer, attachment: this.attachment, err: thrown }, 'the device could not be closed');
    } finally {
      this.#opened.session.close();
      this.onOver(this);
    }
  }
}
