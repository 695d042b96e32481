/** The VM's side of a session: standby, the lease asked for and given back, and the device that travels by it (docs/protocol.md, 4). */
import type { LeasePurpose } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import type { HandOver } from '../device/hand-over.ts';
import type { Profile } from '../device/profile.ts';
import type { Grant, Session } from '../device/source.ts';
import { type FrameHeader, FrameType, SessionStateKind } from '../protocols/netbus/frame.ts';
import { HAND_OVER_FEATURE, SWAP_FEATURE } from '../protocols/netbus/limits.ts';
import { decodeError, decodeMessage, statedSchema, type Welcome } from '../protocols/netbus/messages.ts';
import { type Connection, type ConnectionOwner, unexpected } from './connection.ts';
import { dial, type Target } from './dial.ts';
import type { Endpoint } from './endpoint.ts';
import { RemoteDevice, type RemoteDeviceLink } from './remote-device.ts';
import type { AllocateStaging } from './staging.ts';

export interface RemoteSessionOptions {
  readonly endpoint: Endpoint;
  readonly target: Target;
  /** Its id at the device's host. */
  readonly attachment: string;
  /** The highest epoch that this host was granted for it; 0 for none. */
  readonly epoch?: number;
  /** For EVENTs with payload. */
  readonly allocate: AllocateStaging;
  /** Gives up while it is being opened. */
  readonly signal?: AbortSignal;
  /** Told once when it is over, also by `close`. */
  readonly onOver?: (session: RemoteSession) => void;
}

/**
 * Opens a session in standby. `onEnded` is told once when it ends other than by `close`, never before this has resolved. Rejects with what the
 * device's host answered (`not_found`, `denied`, `in_use`, `limit`) or what is wrong on the way there.
 */
export function openRemoteSession(
  options: RemoteSessionOptions,
  onEnded: (cause: NetbusError) => void,
): Promise<RemoteSession> {
  const { endpoint, target, attachment, allocate, onOver = () => {} } = options;
  return dial(
    endpoint,
    target,
    { purpose: 'session', attachment, state: 'standby', epoch: options.epoch ?? 0 },
    (connection, welcome) => new RemoteSession({ connection, welcome, allocate, onEnded, onOver }),
    options.signal,
  );
}

type State =
  | { readonly name: 'standby' | 'quiesced' }
  | { readonly name: 'asking'; readonly kind: number; readonly before: State; readonly answered: (answer: Answer) => void }
  | { readonly name: 'active'; readonly device: RemoteDevice | undefined }
  | { readonly name: 'ended' };

type Answer = (Pick<Grant, 'epoch' | 'instance' | 'handOver'> & { readonly device: RemoteDevice | undefined }) | NetbusError;

export class RemoteSession implements Session, ConnectionOwner, RemoteDeviceLink {
  /** The frozen one, as the device's host has it. */
  readonly profile: Profile;
  /** The device host's boot id. */
  readonly bootId: string;
  readonly #connection: Connection;
  readonly #depth: number;
  readonly #creditBytes: number;
  readonly #instance: string;
  /** What a guest leaves can be told. */
  readonly #handsOver: boolean;
  /** What the lease is for can be told. */
  readonly #swaps: boolean;
  /** The other side's, for people. */
  readonly #release: string;
  readonly #allocate: AllocateStaging;
  readonly #onEnded: (cause: NetbusError) => void;
  readonly #onOver: (session: RemoteSession) => void;
  #state: State = { name: 'standby' };
  #stateId = 0;

  constructor(options: {
    connection: Connection;
    welcome: Welcome;
    allocate: AllocateStaging;
    onEnded: (cause: NetbusError) => void;
    onOver: (session: RemoteSession) => void;
  }) {
    const session = options.welcome.session!;
    this.#connection = options.connection;
    this.profile = session.profile;
    this.bootId = options.welcome.bootId;
    this.#depth = session.depth;
    this.#creditBytes = session.bytes;
    this.#instance = session.instance;
    this.#handsOver = options.welcome.features.includes(HAND_OVER_FEATURE);
    this.#swaps = options.welcome.features.includes(SWAP_FEATURE);
    this.#release = options.welcome.release;
    this.#allocate = options.allocate;
    this.#onEnded = options.onEnded;
    this.#onOver = options.onOver;
  }

  /** Of the last heartbeat; undefined until there was one. */
  get rttMs(): number | undefined {
    return this.#connection.rttMs;
  }

  get ids(): Pick<Grant, 'bootId' | 'instance'> {
    return { bootId: this.bootId, instance: this.#instance };
  }

  get peer(): string {
    return this.#connection.peer;
  }

  get over(): boolean {
    return this.#state.name === 'ended';
  }

  /** This side ends it, for whoever opened it as if it had been cut: the device's host was evicted. */
  drop(cause: NetbusError): void {
    this.#connection.close(cause);
    this.ended(cause);
  }

  // --- Session -----------------------------------------------------------------------------------------------------------

  async activate(purpose?: LeasePurpose): Promise<Grant> {
    if (purpose !== undefined && !this.#swaps) throw this.#tooOld('cannot swap a device');
    const { device, ...rest } = await this.#ask(SessionStateKind.active, purpose && { purpose });
    return { ...rest, bootId: this.bootId, device: device! };
  }

  async quiesced(left: HandOver | 'unchanged'): Promise<void> {
    if (this.#handsOver) {
      await this.#ask(SessionStateKind.quiesced, { left });
      return;
    }
    // An older host can be told one thing: every request has its answer. Whatever else there is to tell, it keeps the lease for this host.
    const isClean =
      left !== 'unchanged' && left.unflushed === undefined && left.queues.every(({ heads }) => heads.length === 0);
    if (isClean && this.#state.name === 'active') {
      await this.#ask(SessionStateKind.quiesced);
      return;
    }
    throw this.#tooOld('cannot keep what a guest leaves behind when it moves');
  }

  close(): void {
    const state = this.#state;
    if (state.name === 'ended') return;
    const cause = new NetbusError('ended', 'the VM host closed the session');
    this.#connection.close(cause);
    this.#end(state, cause);
  }

  #tooOld(what: string): NetbusError {
    const { peerText, endpoint } = this.#connection;
    const advice = `upgrade it to the one of this host, ${endpoint.release}`;
    return new NetbusError('protocol', `${peerText} runs release ${this.#release}, which ${what}: ${advice}`);
  }

  #ask(kind: number, payload?: object): Promise<Exclude<Answer, NetbusError>> {
    const before = this.#state;
    switch (before.name) {
      case 'ended':
        return Promise.reject(new NetbusError('ended', `the session with ${this.#connection.peerText} is over`));
      case 'asking':
        return Promise.reject(new Error('a session changes its state once at a time'));
      case 'active':
        if (kind === SessionStateKind.active) return Promise.reject(new Error('the session has the lease already'));
    }
    return new Promise((resolve, reject) => {
      const answered = (answer: Answer) => (answer instanceof NetbusError ? reject(answer) : resolve(answer));
      this.#state = { name: 'asking', kind, before, answered };
      this.#connection.send(FrameType.state, { kind, id: ++this.#stateId }, payload);
      this.#connection.flush();
    });
  }

  // --- ConnectionOwner -----------------------------------------------------------------------------------------------------

  begin(frame: FrameHeader): void {
    const state = this.#state;
    switch (frame.type) {
      case FrameType.stated:
        if (state.name !== 'asking' || frame.id !== this.#stateId) throw unexpected(frame, 'that was not asked for');
        return;
      case FrameType.reply:
        if (this.#device === undefined) throw unexpected(frame, 'outside the state active');
        this.#device.begin(frame);
        return;
      case FrameType.event:
      case FrameType.credit:
        // They may have been on their way while the device was closed here.
        this.#device?.begin(frame);
        return;
      default:
        throw unexpected(frame, 'is not for the VM side of a session');
    }
  }

  payload(frame: FrameHeader, bytes: Uint8Array, offset: number, length: number, position: number): void {
    this.#device?.payload(frame, bytes, offset, length, position);
  }

  end(frame: FrameHeader, text: Uint8Array | undefined): void {
    if (frame.type === FrameType.stated) this.#stated(text!);
    else this.#device?.end(frame);
  }

  arrived(): void {
    this.#device?.arrived();
  }

  ended(cause: NetbusError): void {
    const state = this.#state;
    if (state.name === 'ended') return;
    const device = this.#device;
    this.#end(state, cause);
    device?.lost(cause);
    // Whoever opened the session has it before it hears of its end.
    queueMicrotask(() => this.#onEnded(cause));
  }

  // --- RemoteDeviceLink ----------------------------------------------------------------------------------------------------

  schedule(): void {
    this.#connection.schedule();
  }

  credit(messages: number, bytes: number): void {
    this.#connection.send(FrameType.credit, { id: messages, argument: bytes });
  }

  detach(device: RemoteDevice): void {
    if (this.#state.name !== 'active' || this.#state.device !== device) return;
    this.#state = { name: 'active', device: undefined };
    this.#connection.source = undefined;
  }

  cut(cause: NetbusError): void {
    const state = this.#state;
    if (state.name === 'ended') return;
    this.#connection.destroy();
    this.#end(state, cause);
    // Not from inside the call that cut it.
    setImmediate(() => this.#onEnded(cause));
  }

  get #device(): RemoteDevice | undefined {
    const state = this.#state;
    // While the lease is being given back its device still stands, quiet.
    if (state.name === 'asking') return state.before.name === 'active' ? state.before.device : undefined;
    return state.name === 'active' ? state.device : undefined;
  }

  #stated(text: Uint8Array): void {
    const state = this.#state;
    if (state.name !== 'asking') return;
    const answer = decodeMessage(statedSchema, text, 'STATED');
    if ('error' in answer) {
      this.#state = state.before;
      const { code, message } = decodeError(answer.error as { code: string; message: string });
      state.answered(new NetbusError(code, `${this.#connection.peerText}: ${message}`));
      return;
    }
    const { epoch, instance = this.#instance, handOver } = answer as { epoch: number; instance?: string; handOver?: HandOver };
    if (state.kind === SessionStateKind.quiesced) {
      this.#connection.source = undefined;
      this.#state = { name: 'quiesced' };
      state.answered({ epoch, instance, device: undefined });
      return;
    }
    const { endpoint } = this.#connection;
    const device = new RemoteDevice({
      link: this,
      profile: this.profile,
      depth: this.#depth,
      creditBytes: this.#creditBytes,
      allocate: this.#allocate,
      replyPoll: endpoint.newBusyPoll(),
    });
    this.#state = { name: 'active', device };
    this.#connection.source = device;
    state.answered({ epoch, instance, device, ...(handOver !== undefined && { handOver }) });
  }

  #end(state: State, cause: NetbusError): void {
    this.#state = { name: 'ended' };
    this.#onOver(this);
    if (state.name === 'asking') state.answered(cause);
  }
}
