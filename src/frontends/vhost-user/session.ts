/**
 * One VMM on the socket: the vhost-user protocol in the back-end's role, for any class of device. The class is a DeviceModel; what a message
 * says about memory and rings is for the RingSet.
 */
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import type { Log } from '../../lib/log.ts';
import {
  Ack,
  CONFIG_BYTES_MAX,
  decodeFrontendMessage,
  encodeBackendMessage,
  encodeReply,
  type FrontendMessage,
  ProtocolFeature,
  type RawMessage,
  type Reply,
  Request,
  requestTitle,
  VirtioFeature,
} from '../../protocols/vhost-user/index.ts';
import { Channel } from './channel.ts';
import { Descriptors } from './descriptors.ts';
import type { DeviceModel } from './device-model.ts';
import type { DirtyLog } from './dirty-log.ts';
import { MEMORY_SLOTS_MAX } from './memory.ts';
import { Negotiation } from './negotiation.ts';
import type { Ring } from './ring.ts';
import { refused } from './ring-messages.ts';
import { RingSet } from './ring-set.ts';
import type { RingTimes } from './ring-times.ts';

export interface SessionOptions<Model extends DeviceModel> {
  /** The connection; the session owns it. */
  readonly fd: number;
  readonly queues: number;
  readonly log: Log;
  /** Where the file of an in-flight region is made. */
  readonly inflightPath: string;
  /** Whether a live migration is offered: the VMM refuses one otherwise. */
  readonly migratable: boolean;
  readonly times: RingTimes;
  readonly makeModel: (rings: readonly Ring[], dirtyLog: DirtyLog) => Model;
  /** The VMM has gone, or was sent away; what it leaves behind is being put in order. */
  readonly onEnding: () => void;
  /** Nothing reaches its guest any more; a new session may begin. */
  readonly onEnded: () => void;
}

/** What a handler says: a reply (with a descriptor that is given away), that it is done, or that it leaves the message alone. */
type Outcome = Reply | (Reply & { readonly fd: number }) | 'done' | 'ignored';

export class Session<Model extends DeviceModel = DeviceModel> {
  readonly model: Model;
  readonly #options: SessionOptions<Model>;
  readonly #log: Log;
  readonly #channel: Channel;
  readonly #negotiation: Negotiation;
  readonly #rings: RingSet;
  #backendFd = -1;
  #ending: Promise<void> | undefined;

  constructor(options: SessionOptions<Model>) {
    this.#options = options;
    this.#log = options.log;
    this.#rings = new RingSet(options);
    this.model = options.makeModel(this.#rings.all, this.#rings.dirtyLog);
    this.#negotiation = new Negotiation(this.model.features, options.migratable);
    this.#rings.use(this.model, this.#negotiation);
    this.#channel = new Channel(options.fd, {
      message: (message) => this.#message(message),
      ended: (cause) => void this.end(cause),
    });
  }

  get rings(): readonly Ring[] {
    return this.#rings.all;
  }

  get ending(): boolean {
    return this.#ending !== undefined;
  }

  get features(): bigint {
    return this.#negotiation.features;
  }

  get protocolFeatures(): bigint {
    return this.#negotiation.protocolFeatures;
  }

  /** The VMM keeps a region of what is in flight. */
  get tracked(): boolean {
    return this.#rings.tracked;
  }

  get memoryRegions(): number {
    return this.#rings.memory.current.slots.length;
  }

  /** Looks whether the VMM is still there. */
  poll(): void {
    this.#channel.poll();
  }

  /** The configuration space is another: tells the front-end where it asked to be told. */
  configChanged(): void {
    if (this.#backendFd < 0) return;
    const bytes = encodeBackendMessage({ name: 'configChangeMsg' });
    const sent = native.sendMessage(this.#backendFd, bytes, 0, bytes.length, []);
    if (sent !== bytes.length) this.#log.warn({ result: sent }, 'the VMM did not take the news of a new configuration');
  }

  /** Ends it, for the VMM has gone or for `cause`. Resolves when nothing reaches its guest any more; twice is once. */
  end(cause?: NetbusError): Promise<void> {
    this.#ending ??= this.#end(cause);
    return this.#ending;
  }

  async #end(cause: NetbusError | undefined): Promise<void> {
    if (cause === undefined) this.#log.info({}, 'the VMM has disconnected');
    else this.#log.warn({ code: cause.code }, `the connection of the VMM ends: ${cause.message}`);
    this.#options.onEnding();
    this.#rings.ignoreKicks();
    // The socket goes last: a VMM that sees it close takes the used rings as they are then.
    await this.model.end();
    this.#channel.close();
    this.#rings.close();
    if (this.#backendFd >= 0) native.close(this.#backendFd);
    this.#backendFd = -1;
    this.#options.onEnded();
  }

  // --- messages -------------------------------------------------------------------------------------------------------

  #message({ header, payload, fds }: RawMessage): Promise<void> | undefined {
    const descriptors = new Descriptors(fds);
    const title = requestTitle(header.request);
    if (this.ending) {
      descriptors.close();
      return undefined;
    }
    // Only what can be told need not end the connection: otherwise the VMM would go on as if it had been heard.
    const canAck = () => header.needReply && this.#negotiation.hasProtocol(ProtocolFeature.replyAck);
    const ack = (value: bigint) => this.#channel.send(encodeReply({ name: 'u64', request: header.request, value }));
    const answer = (outcome: Outcome) => {
      if (outcome === 'ignored') this.#log.warn({ message: title }, `${title} was not negotiated and is ignored`);
      if (typeof outcome === 'object') this.#channel.send(encodeReply(outcome), 'fd' in outcome ? outcome.fd : undefined);
      else if (canAck()) ack(outcome === 'done' ? Ack.done : Ack.failed);
    };
    const refuse = (thrown: unknown) => {
      const error = NetbusError.from(thrown);
      if (canAck()) {
        this.#log.warn({ message: title, code: error.code }, `${title} is refused: ${error.message}`);
        ack(Ack.failed);
      } else void this.end(error);
    };
    try {
      const message = this.#decode({ header, payload, fds });
      if (message === undefined) return undefined;
      this.#log.debug({ message: title, needReply: header.needReply }, title);
      if (message.name === 'getVringBase') return this.#rings.stop(message.index).then(answer, refuse);
      answer(this.#handle(message, descriptors));
    } catch (error) {
      refuse(error);
    } finally {
      descriptors.close();
    }
    return undefined;
  }

  /** Undefined, and the end of the connection, for bytes that are no message: nothing after them can be trusted. */
  #decode({ header, payload, fds }: RawMessage): FrontendMessage | undefined {
    try {
      return decodeFrontendMessage(header, payload, fds.length);
    } catch (error) {
      void this.end(NetbusError.from(error));
      return undefined;
    }
  }

  #handle(message: FrontendMessage, descriptors: Descriptors): Outcome {
    if (message.name !== 'unsupported' && !this.#negotiation.allows(message.name)) return 'ignored';
    switch (message.name) {
      case 'getFeatures':
        return u64(Request.getFeatures, this.#negotiation.offeredFeatures);
      case 'getProtocolFeatures':
        return u64(Request.getProtocolFeatures, this.#negotiation.offeredProtocolFeatures);
      case 'getQueueNum':
        return u64(Request.getQueueNum, BigInt(this.rings.length));
      case 'getMaxMemSlots':
        return u64(Request.getMaxMemSlots, BigInt(MEMORY_SLOTS_MAX));
      case 'setFeatures':
        return this.#setFeatures(message.features);
      case 'setProtocolFeatures':
        this.#negotiation.acceptProtocol(message.features);
        return 'done';
      case 'setOwner':
      case 'resetOwner': // Deprecated: says nothing that GET_VRING_BASE does not say.
        return 'done';
      case 'setMemTable':
        this.#rings.memory.replace(message.regions, descriptors.all);
        this.#rings.memoryChanged();
        return 'done';
      case 'addMemReg':
        this.#rings.memory.add(message.region, descriptors.all[0]);
        this.#rings.memoryChanged();
        return 'done';
      case 'remMemReg':
        this.#rings.memory.remove(message.region);
        this.#rings.memoryChanged();
        return 'done';
      case 'getConfig': {
        const { offset, flags, data } = message.window;
        const space = new Uint8Array(CONFIG_BYTES_MAX);
        space.set(this.model.readConfig());
        return { name: 'getConfig', window: { offset, flags, data: space.subarray(offset, offset + data.length) } };
      }
      case 'setConfig': {
        const reason = this.model.writeConfig(message.window.offset, message.window.data);
        if (reason !== undefined) throw refused(`SET_CONFIG at byte ${message.window.offset}: ${reason}`);
        return 'done';
      }
      case 'setBackendReqFd':
        if (this.#backendFd >= 0) native.close(this.#backendFd);
        this.#backendFd = descriptors.take();
        native.setNonBlocking(this.#backendFd);
        return 'done';
      case 'getInflightFd': {
        const { fd, description } = this.#rings.makeInflight(message.inflight);
        const reply = { name: message.name, inflight: description };
        return fd === undefined ? reply : { ...reply, fd };
      }
      case 'setInflightFd':
        this.#rings.useInflight(descriptors.all[0], message.inflight);
        return 'done';
      case 'setLogBase':
        // The VMM waits for this answer, whatever it asked for.
        if (descriptors.all.length > 0 && this.#negotiation.hasProtocol(ProtocolFeature.logShmfd))
          this.#rings.dirtyLog.use(descriptors.all[0], Number(message.logSize), Number(message.logOffset));
        return u64(Request.setLogBase, Ack.done);
      case 'setVringNum':
      case 'setVringBase':
      case 'setVringAddr':
      case 'setVringEnable':
      case 'setVringKick':
      case 'setVringCall':
      case 'setVringErr':
        this.#rings.set(message, descriptors);
        return 'done';
      default:
        return unsupportedAnswer(message);
    }
  }

  #setFeatures(features: bigint): Outcome {
    this.#negotiation.accept(features);
    this.#rings.dirtyLog.logsAll = this.#negotiation.has(VirtioFeature.logAll);
    // Without bit 30 there is no SET_VRING_ENABLE; a ring that is enabled is never disabled here.
    if (!this.#negotiation.has(VirtioFeature.vhostUserProtocolFeatures)) for (const ring of this.rings) ring.enabled = true;
    this.model.featuresAccepted(features);
    this.model.wake();
    return 'done';
  }
}

function u64(request: number, value: bigint): Reply {
  return { name: 'u64', request, value };
}

/** Messages of features that are not offered. The front-end waits for some of them, whatever was negotiated: these are answered. */
function unsupportedAnswer(message: FrontendMessage): Outcome {
  switch (message.name) {
    case 'getStatus':
      return u64(Request.getStatus, 0n);
    case 'checkDeviceState':
      return u64(Request.checkDeviceState, Ack.failed);
    default:
      return 'ignored';
  }
}
