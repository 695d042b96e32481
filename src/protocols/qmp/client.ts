/**
 * The client's side of QMP as a state machine without I/O: bytes in, what they mean out; commands in, bytes out.
 *
 *   greeting ──greeting──▶ negotiating ──answer to qmp_capabilities──▶ ready          any of them ──violation──▶ broken
 *
 * Answers may come in any order, with events anywhere between them.
 */
import { NetbusError } from '../../device/errors.ts';
import { COMMANDS_MAX, LINE_BYTES_MAX } from './limits.ts';
import { LineSplitter } from './line-splitter.ts';
import {
  decodeMessage,
  encodeCommand,
  type QmpEvent,
  type QmpGreeting,
  type QmpMessage,
  type QmpObject,
  type QmpRefusal,
} from './message.ts';

/** What happened, in the order of the stream. `id` is what `execute` returned. */
export type QmpHappening =
  | { readonly kind: 'ready'; readonly greeting: QmpGreeting }
  | { readonly kind: 'event'; readonly event: QmpEvent }
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'refusal'; readonly id: number; readonly refusal: QmpRefusal };

type State =
  | { readonly name: 'greeting' }
  | { readonly name: 'negotiating'; readonly greeting: QmpGreeting; readonly id: number }
  | { readonly name: 'ready' }
  | { readonly name: 'broken' };

export class QmpClient {
  readonly #lines: LineSplitter;
  /** Commands without an answer. */
  readonly #pending = new Set<number>();
  #state: State = { name: 'greeting' };
  #nextId = 1;
  #output = '';

  constructor({ lineBytesMax = LINE_BYTES_MAX }: { lineBytesMax?: number } = {}) {
    this.#lines = new LineSplitter(lineBytesMax);
  }

  /** Commands without an answer. */
  get pending(): number {
    return this.#pending.size;
  }

  /** QEMU has greeted and listens to commands. */
  get ready(): boolean {
    return this.#state.name === 'ready';
  }

  /**
   * Takes the next bytes of the stream; `take` may have an answer to them. Throws NetbusError `protocol` where QEMU broke the protocol: the
   * connection is of no use then, and further bytes are ignored.
   */
  feed(chunk: Uint8Array): QmpHappening[] {
    if (this.#state.name === 'broken') return [];
    try {
      const happenings: QmpHappening[] = [];
      for (const line of this.#lines.feed(chunk)) {
        const happening = this.#receive(decodeMessage(line));
        if (happening !== undefined) happenings.push(happening);
      }
      return happenings;
    } catch (thrown) {
      this.#state = { name: 'broken' };
      throw thrown;
    }
  }

  /** Puts a command into the output. Allowed once `ready`. Throws NetbusError `limit` where COMMANDS_MAX have no answer. */
  execute(command: string, parameters: QmpObject = {}): number {
    if (this.#state.name !== 'ready') throw new NetbusError('internal', `${command} before QMP was ready`);
    return this.#send(command, parameters);
  }

  /** Bytes for QEMU since the last call; empty where there are none. */
  take(): string {
    const output = this.#output;
    this.#output = '';
    return output;
  }

  #send(command: string, parameters: QmpObject): number {
    if (this.#pending.size >= COMMANDS_MAX) {
      throw new NetbusError('limit', `QEMU has not answered ${COMMANDS_MAX} commands: ${command} is not sent`);
    }
    const id = this.#nextId++;
    this.#pending.add(id);
    this.#output += encodeCommand(id, command, parameters);
    return id;
  }

  #receive(message: QmpMessage): QmpHappening | undefined {
    const state = this.#state;
    switch (state.name) {
      case 'greeting':
        if (message.kind !== 'greeting')
          throw new NetbusError('protocol', `it begins with ${article(message.kind)} instead of the greeting`);
        this.#state = { name: 'negotiating', greeting: message.greeting, id: this.#send('qmp_capabilities', {}) };
        return undefined;
      case 'negotiating': {
        // Events may come before the negotiation is over.
        if (message.kind === 'event' || message.kind === 'greeting') return this.#event(message);
        const id = this.#answered(message);
        if (message.kind === 'refusal') {
          throw new NetbusError('protocol', `it refused qmp_capabilities: ${message.refusal.description}`);
        }
        if (id !== state.id) throw new NetbusError('protocol', 'it answered something else than qmp_capabilities');
        this.#state = { name: 'ready' };
        return { kind: 'ready', greeting: state.greeting };
      }
      case 'ready': {
        if (message.kind === 'event' || message.kind === 'greeting') return this.#event(message);
        const id = this.#answered(message);
        return message.kind === 'answer'
          ? { kind: 'answer', id, value: message.value }
          : { kind: 'refusal', id, refusal: message.refusal };
      }
      case 'broken':
        return undefined;
    }
  }

  #event(message: Extract<QmpMessage, { kind: 'event' | 'greeting' }>): QmpHappening {
    if (message.kind === 'greeting') throw new NetbusError('protocol', 'it greeted twice');
    return { kind: 'event', event: message.event };
  }

  /** The command that a message answers; each is answered once. */
  #answered(message: Extract<QmpMessage, { kind: 'answer' | 'refusal' }>): number {
    const { id } = message;
    if (typeof id === 'number' && this.#pending.delete(id)) return id;
    // QEMU refuses what it cannot parse without an id; ours are whole.
    const detail = message.kind === 'refusal' ? `: ${message.refusal.description}` : '';
    throw new NetbusError('protocol', `it answered a command that was not sent${detail}`);
  }
}

function article(kind: QmpMessage['kind']): string {
  return kind === 'event' || kind === 'answer' ? `an ${kind}` : `a ${kind}`;
}
