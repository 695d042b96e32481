/**
 * One VMM on the socket: the vhost-user protocol in the back-end's role, for any class of device. The class is a DeviceModel; what a message
 * says about memory and rings is handled here.
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
  featureBits,
  hasFeature,
  ProtocolFeature,
  type RawMessage,
  type Reply,
  Request,
  type RequestName,
  requestTitle,
  VirtioFeature,
} from '../../protocols/vhost-user/index.ts';
import { Channel } from './channel.ts';
import { Descriptors } from './descriptors.ts';
import type { DeviceModel } from './device-model.ts';
import { GuestMemory, MEMORY_SLOTS_MAX } from './memory.ts';
import { Ring } from './ring.ts';
import { refused, ringOf, setRing } from './ring-messages.ts';

/** What every class offers beside its own. */
const TRANSPORT_FEATURES = featureBits(
  VirtioFeature.indirectDescriptors,
  VirtioFeature.eventIndex,
  VirtioFeature.vhostUserProtocolFeatures,
  VirtioFeature.version1,
);

const PROTOCOL_FEATURES = featureBits(
  ProtocolFeature.mq,
  ProtocolFeature.replyAck,
  ProtocolFeature.backendReq,
  ProtocolFeature.config,
  ProtocolFeature.configureMemSlots,
);

/** Messages that only a negotiated protocol feature allows. Those with an answer of their own are answered all the same. */
const featureOfMessage: Partial<Record<RequestName, number>> = {
  addMemReg: ProtocolFeature.configureMemSlots,
  remMemReg: ProtocolFeature.configureMemSlots,
  setConfig: ProtocolFeature.config,
  setBackendReqFd: ProtocolFeature.backendReq,
};

export interface SessionOptions<Model extends DeviceModel> {
  /** The connection; the session owns it. */
  readonly fd: number;
  readonly queues: number;
  readonly log: Log;
  readonly makeModel: (rings: readonly Ring[]) => Model;
  /** The VMM has gone, or was sent away; what it leaves behind is being put in order. */
  readonly onEnding: () => void;
  /** Nothing reaches its guest any more; a new session may begin. */
  readonly onEnded: () => void;
}

/** What a handler says: a reply, that it is done, or that it leaves the message alone. */
type Outcome = Reply | 'done' | 'ignored';

export class Session<Model extends DeviceModel = DeviceModel> {
  readonly rings: readonly Ring[];
  readonly model: Model;
  readonly #options: SessionOptions<Model>;
  readonly #log: Log;
  readonly #channel: Channel;
  readonly #memory = new GuestMemory();
  readonly #offered: bigint;
  #features = 0n;
  #protocolFeatures = 0n;
  #backendFd = -1;
  #ending: Promise<void> | undefined;

  constructor(options: SessionOptions<Model>) {
    this.#options = options;
    this.#log = options.log;
    this.rings = Array.from({ length: options.queues }, (_, index) => new Ring(index, (ring) => this.#kicked(ring)));
    this.model = options.makeModel(this.rings);
    this.#offered = this.model.features | TRANSPORT_FEATURES;
    this.#channel = new Channel(options.fd, {
      message: (message) => this.#message(message),
      ended: (cause) => void this.end(cause),
    });
  }

  get ending(): boolean {
    return this.#ending !== undefined;
  }

  get features(): bigint {
    return this.#features;
  }

  get protocolFeatures(): bigint {
    return this.#protocolFeatures;
  }

  get memoryRegions(): number {
    return this.#memory.current.slots.length;
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
    // The socket goes last: a VMM that sees it close takes the used rings as they are then.
    await this.model.end();
    this.#channel.close();
    for (const ring of this.rings) ring.close();
    this.#memory.close();
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
    const canAck = () => header.needReply && hasFeature(this.#protocolFeatures, ProtocolFeature.replyAck);
    const ack = (value: bigint) => this.#channel.send(encodeReply({ name: 'u64', request: header.request, value }));
    const answer = (outcome: Outcome) => {
      if (outcome === 'ignored') this.#log.warn({ message: title }, `${title} was not negotiated and is ignored`);
      if (typeof outcome === 'object') this.#channel.send(encodeReply(outcome));
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
      if (message.name === 'getVringBase') return this.#stopRing(message.index).then(answer, refuse);
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
    const needed = message.name === 'unsupported' ? undefined : featureOfMessage[message.name];
    if (needed !== undefined && !hasFeature(this.#protocolFeatures, needed)) return 'ignored';
    switch (message.name) {
      case 'getFeatures':
        return u64(Request.getFeatures, this.#offered);
      case 'getProtocolFeatures':
        return u64(Request.getProtocolFeatures, PROTOCOL_FEATURES);
      case 'getQueueNum':
        return u64(Request.getQueueNum, BigInt(this.rings.length));
      case 'getMaxMemSlots':
        return u64(Request.getMaxMemSlots, BigInt(MEMORY_SLOTS_MAX));
      case 'setFeatures':
        return this.#setFeatures(message.features);
      case 'setProtocolFeatures':
        this.#protocolFeatures = subset(message.features, PROTOCOL_FEATURES, 'SET_PROTOCOL_FEATURES');
        return 'done';
      case 'setOwner':
      case 'resetOwner': // Deprecated: says nothing that GET_VRING_BASE does not say.
        return 'done';
      case 'setMemTable':
        this.#memory.replace(message.regions, descriptors.all);
        return this.#memoryChanged();
      case 'addMemReg':
        this.#memory.add(message.region, descriptors.all[0]);
        return this.#memoryChanged();
      case 'remMemReg':
        this.#memory.remove(message.region);
        return this.#memoryChanged();
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
      case 'setVringNum':
      case 'setVringBase':
      case 'setVringAddr':
      case 'setVringEnable':
      case 'setVringKick':
      case 'setVringCall':
      case 'setVringErr':
        setRing(this.#ring(ringOf(message)), message, descriptors);
        // A ring that was disabled may have something to take.
        if (message.name === 'setVringEnable' && message.enabled) this.model.wake();
        return 'done';
      default:
        return unsupportedAnswer(message);
    }
  }

  #setFeatures(features: bigint): Outcome {
    this.#features = subset(features, this.#offered, 'SET_FEATURES');
    // Without bit 30 there is no SET_VRING_ENABLE; a ring that is enabled is never disabled here.
    if (!hasFeature(features, VirtioFeature.vhostUserProtocolFeatures)) for (const ring of this.rings) ring.enabled = true;
    this.model.featuresAccepted(features);
    this.model.wake();
    return 'done';
  }

  #memoryChanged(): Outcome {
    for (const ring of this.rings) {
      ring.remap(this.#memory.current);
      if (ring.state.name === 'waiting') this.#startRing(ring);
    }
    this.model.wake();
    return 'done';
  }

  // --- rings ----------------------------------------------------------------------------------------------------------

  #ring(index: number): Ring {
    const ring = this.rings[index];
    if (ring === undefined) throw refused(`there is no ring ${index}: this device has ${this.rings.length}`);
    return ring;
  }

  /** The first kick starts a ring. */
  #kicked(ring: Ring): void {
    if (this.ending) return;
    if (ring.state.name === 'stopped' || ring.state.name === 'waiting') this.#startRing(ring);
    else this.model.wake();
  }

  #startRing(ring: Ring): void {
    const { index, base, enabled } = ring;
    try {
      const queue = ring.start(this.#memory.current, {
        indirect: hasFeature(this.#features, VirtioFeature.indirectDescriptors),
        eventIndex: hasFeature(this.#features, VirtioFeature.eventIndex),
      });
      if (queue === undefined) {
        this.#log.warn({ ring: index }, `ring ${index} is not inside one region of guest memory and waits for one`);
        return;
      }
      this.#log.info({ ring: index, size: queue.size, base, enabled }, `ring ${index} has started`);
      this.model.ringStarted(ring);
    } catch (thrown) {
      const { message } = NetbusError.from(thrown);
      this.#log.warn({ ring: index }, `ring ${index} cannot start: ${message}`);
      ring.break(message);
    }
  }

  async #stopRing(index: number): Promise<Reply> {
    const ring = this.#ring(index);
    const wasStarted = ring.queue !== undefined;
    ring.beginStop();
    if (wasStarted) {
      await this.model.stopRing(ring);
      ring.endStop();
      this.#log.info({ ring: index, base: ring.base }, `ring ${index} has stopped`);
    }
    return { name: 'getVringBase', index, base: ring.base };
  }
}

function u64(request: number, value: bigint): Reply {
  return { name: 'u64', request, value };
}

/** Messages of features that are not offered. The front-end waits for some of them, whatever was negotiated: these are answered. */
function unsupportedAnswer(message: FrontendMessage): Outcome {
  switch (message.name) {
    case 'setLogBase':
      return u64(Request.setLogBase, Ack.done);
    case 'getInflightFd': // A size of 0 says that there is no such region.
      return { name: 'getInflightFd', inflight: { ...message.inflight, mmapSize: 0, mmapOffset: 0 } };
    case 'getStatus':
      return u64(Request.getStatus, 0n);
    case 'checkDeviceState':
      return u64(Request.checkDeviceState, Ack.failed);
    default:
      return 'ignored';
  }
}

function subset(features: bigint, offered: bigint, title: string): bigint {
  const extra = features & ~offered;
  if (extra !== 0n) throw refused(`${title} has bits that were not offered: 0x${extra.toString(16)}`);
  return features;
}
