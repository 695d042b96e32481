/** What is offered to a VMM and what it accepted: virtio features and protocol features. */
import { featureBits, hasFeature, ProtocolFeature, type RequestName, VirtioFeature } from '../../protocols/vhost-user/index.ts';
import { refused } from './ring-messages.ts';

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
  ProtocolFeature.inflightShmfd,
  ProtocolFeature.configureMemSlots,
);

/** Cloud Hypervisor stops rings with GET_VRING_BASE only where it may ask for the device's state. */
const MIGRATION_PROTOCOL_FEATURES = featureBits(ProtocolFeature.logShmfd, ProtocolFeature.deviceState);

/** Messages that only a negotiated protocol feature allows. Those with an answer of their own are answered all the same. */
const featureOfMessage: Partial<Record<RequestName, number>> = {
  addMemReg: ProtocolFeature.configureMemSlots,
  remMemReg: ProtocolFeature.configureMemSlots,
  setConfig: ProtocolFeature.config,
  setBackendReqFd: ProtocolFeature.backendReq,
  setInflightFd: ProtocolFeature.inflightShmfd,
};

export class Negotiation {
  readonly offeredFeatures: bigint;
  readonly offeredProtocolFeatures: bigint;
  #features = 0n;
  #protocolFeatures = 0n;

  /** `ofClass` are the bits of the class of device; `migratable`: what a live migration needs is offered, too. */
  constructor(ofClass: bigint, migratable: boolean) {
    this.offeredFeatures = ofClass | TRANSPORT_FEATURES | (migratable ? featureBits(VirtioFeature.logAll) : 0n);
    this.offeredProtocolFeatures = PROTOCOL_FEATURES | (migratable ? MIGRATION_PROTOCOL_FEATURES : 0n);
  }

  get features(): bigint {
    return this.#features;
  }

  get protocolFeatures(): bigint {
    return this.#protocolFeatures;
  }

  /** Throws `protocol` for bits that were not offered, as the next one. */
  accept(features: bigint): void {
    this.#features = subset(features, this.offeredFeatures, 'SET_FEATURES');
  }

  acceptProtocol(features: bigint): void {
    this.#protocolFeatures = subset(features, this.offeredProtocolFeatures, 'SET_PROTOCOL_FEATURES');
  }

  /** By their bits. */
  has(feature: number): boolean {
    return hasFeature(this.#features, feature);
  }

  hasProtocol(feature: number): boolean {
    return hasFeature(this.#protocolFeatures, feature);
  }

  allows(message: RequestName): boolean {
    const needed = featureOfMessage[message];
    return needed === undefined || this.hasProtocol(needed);
  }
}

function subset(features: bigint, offered: bigint, title: string): bigint {
  const extra = features & ~offered;
  if (extra !== 0n) throw refused(`${title} has bits that were not offered: 0x${extra.toString(16)}`);
  return features;
}
