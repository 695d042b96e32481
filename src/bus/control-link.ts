/** CALL and RESULT over one control connection, in both directions: docs/protocol.md, 7. */
import { NetbusError } from '../device/errors.ts';
import { type FrameHeader, FrameType } from '../protocols/netbus/frame.ts';
import { CALLS_MAX, CONTROL_PAYLOAD_BYTES_MAX } from '../protocols/netbus/limits.ts';
import {
  callSchema,
  decodeError,
  decodeMessage,
  encodeError,
  encodeMessage,
  resultSchema,
  type WireError,
} from '../protocols/netbus/messages.ts';
import { type Connection, type ConnectionOwner, unexpected } from './connection.ts';
import type { PeerCertificate } from './peer.ts';

export type JsonObject = Record<string, unknown>;

/**
 * Answers a peer's calls, by method. `params` is whatever JSON object the peer sent: check it, and throw `usage` for what is wrong. A
 * NetbusError goes to the peer as it is; anything else is logged and becomes `internal`. `certificate` is the peer's, which is there unless it joins.
 */
export type ControlHandler = (peer: string, params: JsonObject, certificate: PeerCertificate | undefined) => Promise<object>;
export type ControlHandlers = Readonly<Record<string, ControlHandler>>;

/** How long a call waits for its result unless it says otherwise. */
export const CALL_MS_DEFAULT = 10_000;

interface PendingCall {
  readonly method: string;
  readonly settle: (result: JsonObject | NetbusError) => void;
}

export class ControlLink implements ConnectionOwner {
  readonly #connection: Connection;
  readonly #handlers: ControlHandlers;
  readonly #onEnded: (link: ControlLink, cause: NetbusError) => void;
  /** By id: calls of ours that have no result. */
  readonly #calls = new Map<number, PendingCall>();
  #callId = 0;
  /** Ids of the peer's calls that have no result. */
  readonly #serving = new Set<number>();
  #state: 'open' | 'ended' = 'open';

  /** `onEnded` is told once, when it ends other than by `close`. */
  constructor(connection: Connection, handlers: ControlHandlers, onEnded: (link: ControlLink, cause: NetbusError) => void) {
    this.#connection = connection;
    this.#handlers = handlers;
    this.#onEnded = onEnded;
  }

  get peer(): string {
    return this.#connection.peer;
  }

  get rttMs(): number | undefined {
    return this.#connection.rttMs;
  }

  /** Measures the round trip; heartbeats do it later. */
  ping(): void {
    this.#connection.ping();
  }

  /** Asks the peer. Rejects with the peer's error, `timeout`, `limit`, or `unreachable` where the link ends before the result. */
  call(method: string, params: object, options: { timeoutMs?: number } = {}): Promise<JsonObject> {
    const { peerText, endpoint } = this.#connection;
    const { timeoutMs = CALL_MS_DEFAULT } = options;
    if (this.#state === 'ended') return Promise.reject(new NetbusError('unreachable', `the link with ${peerText} is down`));
    if (this.#calls.size >= CALLS_MAX) {
      return Promise.reject(new NetbusError('limit', `${CALLS_MAX} calls to ${peerText} have no result yet`));
    }
    const payload = { method, params };
    if (encodeMessage(payload).length > CONTROL_PAYLOAD_BYTES_MAX) {
      return Promise.reject(new NetbusError('limit', `${method}: more than ${CONTROL_PAYLOAD_BYTES_MAX} bytes of parameters`));
    }
    return new Promise((resolve, reject) => {
      const id = this.#nextId();
      const cancel = endpoint.clock.after(timeoutMs, () => {
        // The id stays in use until the late result, so that it cannot be taken for another call's.
        reject(new NetbusError('timeout', `${peerText} did not answer ${method} within ${timeoutMs / 1000} s`));
      });
      const settle = (result: JsonObject | NetbusError) => {
        cancel();
        if (result instanceof NetbusError) reject(result);
        else resolve(result);
      };
      this.#calls.set(id, { method, settle });
      this.#connection.send(FrameType.call, { id }, payload);
    });
  }

  /** Ends the link; calls without result are rejected. Twice is once. */
  close(cause: NetbusError): void {
    if (this.#state === 'ended') return;
    this.#connection.close(cause);
    this.#end(cause);
  }

  // --- ConnectionOwner -----------------------------------------------------------------------------------------------------

  begin(frame: FrameHeader): void {
    switch (frame.type) {
      case FrameType.call:
        if (this.#serving.has(frame.id)) throw unexpected(frame, `with the id ${frame.id}, which is in use`);
        return;
      case FrameType.result:
        if (!this.#calls.has(frame.id)) throw unexpected(frame, `to ${frame.id}, which no call waits for`);
        return;
      default:
        throw unexpected(frame, 'is not for a control link');
    }
  }

  payload(): void {}

  end(frame: FrameHeader, text: Uint8Array | undefined): void {
    if (frame.type === FrameType.call) this.#called(frame.id, text!);
    else this.#answered(frame.id, text!);
  }

  arrived(): void {}

  ended(cause: NetbusError): void {
    if (this.#state === 'ended') return;
    this.#end(cause);
    this.#onEnded(this, cause);
  }

  #answered(id: number, text: Uint8Array): void {
    const result = decodeMessage(resultSchema, text, 'RESULT');
    const call = this.#calls.get(id)!;
    this.#calls.delete(id);
    if ('error' in result) call.settle(decodeError(result.error as WireError));
    else call.settle(result.value as JsonObject);
  }

  #called(id: number, text: Uint8Array): void {
    const { method, params } = decodeMessage(callSchema, text, 'CALL');
    if (this.#serving.size >= CALLS_MAX) {
      this.#result(id, { error: encodeError(new NetbusError('limit', `more than ${CALLS_MAX} calls without result`)) });
      return;
    }
    this.#serving.add(id);
    void this.#serve(id, method, params);
  }

  async #serve(id: number, method: string, params: JsonObject): Promise<void> {
    let payload: object;
    try {
      if (!Object.hasOwn(this.#handlers, method)) throw new NetbusError('not_found', `there is no method ${method}`);
      payload = { value: await this.#handlers[method](this.peer, params, this.#connection.certificate) };
    } catch (thrown) {
      const error = NetbusError.from(thrown);
      const fields = { peer: this.peer, method };
      if (error.code === 'internal') this.#connection.endpoint.log.error({ ...fields, err: thrown }, 'a call met a bug');
      payload = { error: encodeError(error) };
    }
    this.#serving.delete(id);
    if (this.#state === 'open') this.#result(id, payload);
  }

  #result(id: number, payload: object): void {
    const fits = encodeMessage(payload).length <= CONTROL_PAYLOAD_BYTES_MAX;
    const tooLong = { error: { code: 'limit', message: `the result has more than ${CONTROL_PAYLOAD_BYTES_MAX} bytes` } };
    this.#connection.send(FrameType.result, { id }, fits ? payload : tooLong);
  }

  #nextId(): number {
    do this.#callId = (this.#callId + 1) >>> 0;
    while (this.#calls.has(this.#callId));
    return this.#callId;
  }

  #end(cause: NetbusError): void {
    this.#state = 'ended';
    for (const call of this.#calls.values()) call.settle(new NetbusError(cause.code, `${call.method}: ${cause.message}`));
    this.#calls.clear();
  }
}
