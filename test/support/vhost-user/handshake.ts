/**
 * The set-up of a vhost-user disk, step by step in the order of QEMU 7.2 (seen on its socket). A test can stop, or disconnect, after
 * any of them.
 */
import {
  type FrontendMessage,
  featureBits,
  hasFeature,
  type InflightRegion,
  ProtocolFeature,
} from '../../../src/protocols/vhost-user/index.ts';
import type { BackendChannel } from './backend-channel.ts';
import { BlockFeature, CONFIG_BYTES, RingFeature } from './block-request.ts';
import type { ControlChannel } from './control-channel.ts';
import type { GuestMemory } from './guest-memory.ts';

/** Features that the driver accepts where they are offered: Linux's virtio-blk, on a modern virtio-pci device. */
export const DRIVER_FEATURES =
  BlockFeature.sizeMax |
  BlockFeature.segmentsMax |
  BlockFeature.readOnly |
  BlockFeature.blockSize |
  BlockFeature.flush |
  BlockFeature.topology |
  BlockFeature.configWriteCache |
  BlockFeature.multiQueue |
  BlockFeature.discard |
  BlockFeature.writeZeroes |
  RingFeature.indirect |
  RingFeature.eventIndex |
  RingFeature.protocolFeatures |
  RingFeature.version1;

/** Protocol features that this front-end knows what to do with. */
export const FRONTEND_PROTOCOL_FEATURES = featureBits(
  ProtocolFeature.mq,
  ProtocolFeature.replyAck,
  ProtocolFeature.backendReq,
  ProtocolFeature.config,
  ProtocolFeature.inflightShmfd,
  ProtocolFeature.configureMemSlots,
);

/** How guest memory is told: SET_MEM_TABLE, or ADD_MEM_REG for each region (CONFIGURE_MEM_SLOTS). */
export type MemoryStyle = 'table' | 'slots';

export interface HandshakeOptions {
  /** Virtio features to accept of those that are offered. */
  features: bigint;
  /** Protocol features to accept of those that are offered. */
  protocolFeatures: bigint;
  /** Rings to set up. */
  queues: number;
  queueSize: number;
  /** Queues that the in-flight region is asked for. */
  inflightQueues: number;
}

/** What the two sides agreed on, filled in by the steps. */
export interface Negotiated {
  /** What the back-end offers; what the driver accepted. */
  offeredFeatures: bigint;
  features: bigint;
  offeredProtocolFeatures: bigint;
  protocolFeatures: bigint;
  /** GET_QUEUE_NUM; 1 where MQ was not negotiated. */
  queuesMax: number;
  /** GET_MAX_MEM_SLOTS; 0 where it was not asked for. */
  memorySlots: number;
  /** The configuration space as it was at the set-up. */
  config: Uint8Array;
  inflight: { region: InflightRegion; fd: number } | undefined;
}

/** One step; `run` does it and waits for its answer. */
export interface Step {
  readonly name: FrontendMessage['name'];
  run(): Promise<void>;
}

/** What happens when QEMU creates the device: before the guest's driver looks at it. */
export function creationSteps(
  control: ControlChannel,
  backend: BackendChannel,
  callFds: readonly number[],
  options: HandshakeOptions,
  result: Negotiated,
): Step[] {
  const agreed = (bit: number) => hasFeature(result.protocolFeatures, bit);
  const step = (name: Step['name'], run: () => Promise<void>): Step => ({ name, run });
  return [
    step('getFeatures', async () => {
      result.offeredFeatures = await control.askNumber({ name: 'getFeatures' });
    }),
    step('getProtocolFeatures', async () => {
      if ((result.offeredFeatures & RingFeature.protocolFeatures) === 0n) return;
      result.offeredProtocolFeatures = await control.askNumber({ name: 'getProtocolFeatures' });
    }),
    step('setProtocolFeatures', async () => {
      if ((result.offeredFeatures & RingFeature.protocolFeatures) === 0n) return;
      result.protocolFeatures = result.offeredProtocolFeatures & options.protocolFeatures;
      await control.tell({ name: 'setProtocolFeatures', features: result.protocolFeatures });
      control.acknowledged = agreed(ProtocolFeature.replyAck);
    }),
    step('getQueueNum', async () => {
      if (agreed(ProtocolFeature.mq)) result.queuesMax = Number(await control.askNumber({ name: 'getQueueNum' }));
      if (options.queues > result.queuesMax)
        throw new Error(`the back-end has ${result.queuesMax} queues, not ${options.queues}`);
    }),
    step('getMaxMemSlots', async () => {
      if (!agreed(ProtocolFeature.configureMemSlots)) return;
      result.memorySlots = Number(await control.askNumber({ name: 'getMaxMemSlots' }));
    }),
    step('setBackendReqFd', async () => {
      if (!agreed(ProtocolFeature.backendReq)) return;
      await control.tell({ name: 'setBackendReqFd' }, [backend.remoteFd], true);
      backend.handedOver();
    }),
    step('setOwner', () => control.tell({ name: 'setOwner' })),
    step('setVringCall', async () => {
      for (const [index, fd] of callFds.entries()) await control.tell({ name: 'setVringCall', index, hasFd: true }, [fd]);
    }),
    step('getConfig', async () => {
      if (agreed(ProtocolFeature.config)) result.config = await readConfig(control);
    }),
  ];
}

/** What happens when the guest's driver starts, up to the rings. `inflight` is sent again where one was given before. */
export function driverSteps(
  control: ControlChannel,
  memory: GuestMemory,
  memoryStyle: MemoryStyle | undefined,
  options: HandshakeOptions,
  result: Negotiated,
): Step[] {
  const agreed = (bit: number) => hasFeature(result.protocolFeatures, bit);
  const slots = memoryStyle === undefined ? agreed(ProtocolFeature.configureMemSlots) : memoryStyle === 'slots';
  return [
    {
      name: 'setFeatures',
      async run() {
        result.features = result.offeredFeatures & options.features;
        await control.tell({ name: 'setFeatures', features: result.features });
      },
    },
    {
      name: 'setInflightFd',
      async run() {
        if (agreed(ProtocolFeature.inflightShmfd)) await shareInflight(control, options, result);
      },
    },
    slots
      ? { name: 'addMemReg', run: () => addMemoryRegions(control, memory) }
      : { name: 'setMemTable', run: () => setMemoryTable(control, memory) },
  ];
}

/** GET_CONFIG, as much as QEMU 7.2 asks for. */
export async function readConfig(control: ControlChannel, bytes = CONFIG_BYTES): Promise<Uint8Array> {
  const { reply } = await control.ask({ name: 'getConfig', window: { offset: 0, flags: 0, data: new Uint8Array(bytes) } });
  if (reply.name !== 'getConfig') throw new Error('the back-end refused GET_CONFIG');
  return reply.window.data;
}

/** SET_MEM_TABLE with all regions of `memory`. */
export async function setMemoryTable(control: ControlChannel, memory: GuestMemory): Promise<void> {
  const regions = memory.regions.map(asMemoryRegion);
  await control.tell(
    { name: 'setMemTable', regions },
    memory.regions.map(({ fd }) => fd),
    true,
  );
}

/** ADD_MEM_REG for each region of `memory`. */
async function addMemoryRegions(control: ControlChannel, memory: GuestMemory): Promise<void> {
  for (const region of memory.regions) {
    await control.tell({ name: 'addMemReg', region: asMemoryRegion(region) }, [region.fd], true);
  }
}

/** The first time the back-end makes the region; from then on, also on a new connection, it gets the same one back. */
async function shareInflight(control: ControlChannel, options: HandshakeOptions, result: Negotiated): Promise<void> {
  const { inflightQueues: queues, queueSize } = options;
  if (result.inflight === undefined) {
    const { reply, fds } = await control.ask({
      name: 'getInflightFd',
      inflight: { mmapSize: 0, mmapOffset: 0, queues, queueSize },
    });
    if (reply.name !== 'getInflightFd') throw new Error('the back-end refused GET_INFLIGHT_FD');
    if (reply.inflight.mmapSize === 0) return; // It has none: so the disk works without.
    if (fds.length !== 1) throw new Error(`GET_INFLIGHT_FD was answered with ${fds.length} descriptors`);
    result.inflight = { region: { ...reply.inflight, queues, queueSize }, fd: fds[0] };
  }
  await control.tell({ name: 'setInflightFd', inflight: result.inflight.region }, [result.inflight.fd]);
}

function asMemoryRegion(region: GuestMemory['regions'][number]) {
  const { guestAddress, userAddress, sizeBytes, fileOffset } = region;
  return { guestAddress, userAddress, size: sizeBytes, mmapOffset: fileOffset };
}
