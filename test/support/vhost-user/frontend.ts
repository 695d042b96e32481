/**
 * A virtual machine without a machine: the VMM's role of vhost-user and the guest's virtio-blk driver, for tests and the benchmark.
 *
 *     const vm = await VhostUserFrontend.connect('/run/netbus/vm1/disk0', { queues: 2 });
 *     await vm.write(8, data);
 *     assert.deepEqual(await vm.read(8, data.length), data);
 *     vm.close();
 */
import { EventEmitter } from 'node:events';
import { native } from '../../../native/index.ts';
import { BackendChannel } from './backend-channel.ts';
import { BlockDriver, type BlockReply, type BlockRequest } from './block-driver.ts';
import {
  type BlockConfig,
  type BlockRange,
  BlockRequestType,
  BlockStatus,
  CONFIG_WRITE_CACHE_OFFSET,
  encodeRanges,
  ID_BYTES,
  parseBlockConfig,
  RingFeature,
} from './block-request.ts';
import { ControlChannel } from './control-channel.ts';
import { DriverQueue } from './driver-queue.ts';
import { GuestMemory } from './guest-memory.ts';
import {
  creationSteps,
  DRIVER_FEATURES,
  driverSteps,
  FRONTEND_PROTOCOL_FEATURES,
  type MemoryStyle,
  type Negotiated,
  readConfig,
  type Step,
} from './handshake.ts';

export interface FrontendOptions {
  /** Virtqueues to use; 1 by default. */
  queues?: number;
  /** Entries of each, a power of two; 128 by default, as in QEMU. */
  queueSize?: number;
  /** Virtio features to accept where offered; DRIVER_FEATURES by default. */
  features?: bigint;
  /** Protocol features to accept where offered; FRONTEND_PROTOCOL_FEATURES by default. */
  protocolFeatures?: bigint;
  /** By default slots where the back-end offers them, as QEMU. */
  memoryStyle?: MemoryStyle;
  /** Guest memory; 64 MiB by default, half of it for data. */
  memoryBytes?: number;
  /** Whether requests use indirect descriptors where negotiated; true by default. */
  indirect?: boolean;
  /** Size of the descriptors that data is cut into; 64 KiB by default. */
  segmentBytes?: number;
  /**
   * What becomes of requests in flight when the back-end goes away: by default they are rejected; with `true` they wait for
   * `reconnect`, as a guest's do.
   */
  reconnects?: boolean;
  /** Queues that the in-flight region is asked for; all by default. */
  inflightQueues?: number;
}

const QUEUE_SIZE = 128;
const MEMORY_BYTES = 64 * 1024 * 1024;
const SEGMENT_BYTES = 64 * 1024;

/** A request that the device answered with something other than OK. */
export class BlockError extends Error {
  readonly status: number;

  constructor(what: string, status: number) {
    super(`${what} failed with status ${status}`);
    this.name = 'BlockError';
    this.status = status;
  }
}

/** On which queue, and with what chain. */
export type RequestOptions = Partial<Pick<BlockRequest, 'indirect' | 'segmentBytes'>> & { queue?: number };

export class VhostUserFrontend {
  readonly memory: GuestMemory;
  readonly queues: readonly DriverQueue[];
  /** The driver of each queue: requests of any form. */
  readonly drivers: readonly BlockDriver[];
  /** `configChange`: the back-end says that the configuration changed. `closed`: the back-end went away. */
  readonly events = new EventEmitter<{ configChange: []; closed: [Error] }>();
  /** What the handshake found out. */
  readonly negotiated: Negotiated = {
    offeredFeatures: 0n,
    features: 0n,
    offeredProtocolFeatures: 0n,
    protocolFeatures: 0n,
    queuesMax: 1,
    memorySlots: 0,
    config: new Uint8Array(),
    inflight: undefined,
  };
  /** The socket, for messages of any kind and for bytes that are none. */
  control: ControlChannel;
  readonly #path: string;
  readonly #options: FrontendOptions;
  #backend: BackendChannel;
  /** Where each stopped ring goes on (GET_VRING_BASE). */
  readonly #bases: number[];
  #closed = false;

  /** Connects and makes the memory; nothing is said yet. Throws where nobody listens. */
  static open(path: string, options: FrontendOptions = {}): VhostUserFrontend {
    return new VhostUserFrontend(path, options);
  }

  /** Connects, sets the device up as QEMU does, and starts all rings. */
  static async connect(path: string, options: FrontendOptions = {}): Promise<VhostUserFrontend> {
    const vm = VhostUserFrontend.open(path, options);
    try {
      for (const step of vm.handshake()) await step.run();
    } catch (error) {
      vm.close();
      throw error;
    }
    return vm;
  }

  private constructor(path: string, options: FrontendOptions) {
    this.#path = path;
    this.#options = { ...options };
    this.control = this.#connect();
    this.#backend = this.#listen();
    this.memory = new GuestMemory(options.memoryBytes ?? MEMORY_BYTES);
    const count = options.queues ?? 1;
    this.queues = Array.from({ length: count }, () => new DriverQueue(this.memory, options.queueSize ?? QUEUE_SIZE));
    const style = { indirect: options.indirect ?? true, segmentBytes: options.segmentBytes ?? SEGMENT_BYTES };
    this.drivers = this.queues.map((queue) => new BlockDriver(this.memory, queue, style));
    this.#bases = new Array(count).fill(0);
  }

  /** All steps of the set-up, the start of each ring included, to be run one by one. */
  handshake(): Step[] {
    return [...this.#creation(), ...this.#driverStart()];
  }

  // --- requests ------------------------------------------------------------------------------------------------------

  /** Sends any request and waits for its answer, whatever the status. */
  submit(request: BlockRequest, queue = 0): Promise<BlockReply> {
    const usable = (this.negotiated.features & RingFeature.indirect) !== 0n;
    return this.drivers[queue].submit(usable ? request : { ...request, indirect: false });
  }

  /** Reads `bytes` from `sector`. Throws a BlockError where the device answers anything but OK, as all of these do. */
  async read(sector: number, bytes: number, options: RequestOptions = {}): Promise<Uint8Array> {
    return (await this.#ok('read', { ...options, type: BlockRequestType.read, sector, inBytes: bytes }, options.queue)).data;
  }

  async write(sector: number, data: Uint8Array, options: RequestOptions = {}): Promise<void> {
    await this.#ok('write', { ...options, type: BlockRequestType.write, sector, out: data }, options.queue);
  }

  async flush(options: RequestOptions = {}): Promise<void> {
    await this.#ok('flush', { ...options, type: BlockRequestType.flush }, options.queue);
  }

  async discard(ranges: BlockRange | readonly BlockRange[], options: RequestOptions = {}): Promise<void> {
    const out = encodeRanges([ranges].flat());
    await this.#ok('discard', { ...options, type: BlockRequestType.discard, out }, options.queue);
  }

  async writeZeroes(ranges: BlockRange | readonly BlockRange[], options: RequestOptions = {}): Promise<void> {
    const out = encodeRanges([ranges].flat());
    await this.#ok('write zeroes', { ...options, type: BlockRequestType.writeZeroes, out }, options.queue);
  }

  /** The disk's serial number, up to its first zero byte. */
  async getId(options: RequestOptions = {}): Promise<string> {
    const { data } = await this.#ok('get id', { ...options, type: BlockRequestType.getId, inBytes: ID_BYTES }, options.queue);
    const end = data.indexOf(0);
    return Buffer.from(data.subarray(0, end === -1 ? ID_BYTES : end)).toString('latin1');
  }

  // --- device ----------------------------------------------------------------------------------------------------------

  /** The configuration space as it is now. */
  async config(): Promise<BlockConfig> {
    return parseBlockConfig(await readConfig(this.control));
  }

  /** SET_CONFIG of the write cache: write-back or write-through. */
  async setWriteCache(writeBack: boolean): Promise<void> {
    const window = { offset: CONFIG_WRITE_CACHE_OFFSET, flags: 0, data: Uint8Array.of(writeBack ? 1 : 0) };
    await this.control.tell({ name: 'setConfig', window }, [], true);
  }

  // --- rings -----------------------------------------------------------------------------------------------------------

  /** Tells the device all of one ring, from `base` (by default where it stopped), and kicks it. `enableRing` comes after. */
  async startRing(index: number, base = this.#bases[index]): Promise<void> {
    const queue = this.queues[index];
    queue.eventIndex = (this.negotiated.features & RingFeature.eventIndex) !== 0n;
    await this.control.tell({ name: 'setVringNum', index, size: queue.size });
    await this.control.tell({ name: 'setVringBase', index, base });
    const addresses = {
      index,
      flags: 0,
      descriptors: this.memory.userAddress(queue.descriptorAddress),
      used: this.memory.userAddress(queue.usedAddress),
      available: this.memory.userAddress(queue.availableAddress),
      logAddress: queue.usedAddress,
    };
    await this.control.tell({ name: 'setVringAddr', addresses });
    // The ring may start at once, so its call goes before its kick, as QEMU does it.
    await this.control.tell({ name: 'setVringCall', index, hasFd: true }, [queue.callFd]);
    await this.control.tell({ name: 'setVringKick', index, hasFd: true }, [queue.kickFd]);
    this.drivers[index].start();
    if ((this.negotiated.features & RingFeature.protocolFeatures) !== 0n) await this.enableRing(index, true);
    // A ring starts at its first kick, also where there is nothing in it.
    queue.kick();
  }

  async enableRing(index: number, enabled: boolean): Promise<void> {
    await this.control.tell({ name: 'setVringEnable', index, enabled });
  }

  /** Stops a ring; where it would go on. Completions of the time before are taken. */
  async stopRing(index: number): Promise<number> {
    const { reply } = await this.control.ask({ name: 'getVringBase', index });
    if (reply.name !== 'getVringBase') throw new Error(`GET_VRING_BASE was answered with ${reply.name}`);
    this.#bases[index] = reply.base;
    this.drivers[index].takeCompletions();
    this.drivers[index].stop();
    return reply.base;
  }

  /**
   * The guest resets the device and its driver starts anew, with other features if given. What was in flight is rejected, and the in-flight
   * region let go, as QEMU does.
   */
  async restart(features?: bigint): Promise<void> {
    for (const index of this.queues.keys()) {
      await this.enableRing(index, false);
      await this.stopRing(index);
      this.drivers[index].reset();
      this.#bases[index] = 0;
    }
    this.forgetInflight();
    if (features !== undefined) this.#options.features = features;
    for (const step of this.#driverStart().filter(({ name }) => name !== 'addMemReg')) await step.run();
  }

  /** As QEMU's `reconnect=1`: a new connection for the same guest, rings as they stand, the same in-flight region. */
  async reconnect(path = this.#path): Promise<void> {
    this.control.close();
    this.#backend.close();
    this.control = this.#connect(path);
    this.#backend = this.#listen();
    for (const driver of this.drivers) driver.stop();
    // QEMU knows no better: what the device has used is all that it was given.
    for (const [index, queue] of this.queues.entries()) this.#bases[index] = queue.deviceUsedIndex;
    for (const step of this.handshake()) await step.run();
  }

  /**
   * The guest's VMM moves to another host: the same guest at another back-end. Rings go on where they were stopped, or, where `known` is false, from what
   * the device has used. The in-flight region stays behind, as with QEMU 7.2.
   */
  async moveTo(path: string, known = true): Promise<void> {
    for (const step of this.stepsTo(path, known)) await step.run();
  }

  /** The same, connected, with the steps to be run one by one. */
  stepsTo(path: string, known = true): Step[] {
    const bases = [...this.#bases];
    this.forgetInflight();
    this.control.close();
    this.#backend.close();
    this.control = this.#connect(path);
    this.#backend = this.#listen();
    for (const [index, queue] of this.queues.entries()) this.#bases[index] = known ? bases[index] : queue.deviceUsedIndex;
    return this.handshake();
  }

  // --- the end ---------------------------------------------------------------------------------------------------------

  /** Other protocol features from the next connection on. */
  agreeTo(protocolFeatures: bigint): void {
    this.#options.protocolFeatures = protocolFeatures;
  }

  /** Closes the socket, as a VMM that dies. Memory and queues stay, requests stay pending: `reconnect` goes on, `close` ends. */
  disconnect(): void {
    this.control.close();
    this.#backend.close();
  }

  /** Closes everything; requests in flight are rejected. Twice is once. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.disconnect();
    for (const driver of this.drivers) driver.end(new Error('the front-end was closed'));
    for (const queue of this.queues) queue.close();
    this.forgetInflight();
    this.memory.close();
  }

  /** Lets the in-flight region go, as QEMU does when the guest resets the device: it asks for a new one when the driver starts. */
  forgetInflight(): void {
    if (this.negotiated.inflight !== undefined) native.close(this.negotiated.inflight.fd);
    this.negotiated.inflight = undefined;
  }

  #creation(): Step[] {
    const callFds = this.queues.map(({ callFd }) => callFd);
    return creationSteps(this.control, this.#backend, callFds, this.#handshakeOptions(), this.negotiated);
  }

  #driverStart(): Step[] {
    const steps = driverSteps(this.control, this.memory, this.#options.memoryStyle, this.#handshakeOptions(), this.negotiated);
    const rings = this.queues.map((_, index): Step => ({ name: 'setVringEnable', run: () => this.startRing(index) }));
    return [...steps, ...rings];
  }

  #handshakeOptions() {
    return {
      features: this.#options.features ?? DRIVER_FEATURES,
      protocolFeatures: this.#options.protocolFeatures ?? FRONTEND_PROTOCOL_FEATURES,
      queues: this.queues.length,
      queueSize: this.#options.queueSize ?? QUEUE_SIZE,
      inflightQueues: this.#options.inflightQueues ?? this.queues.length,
    };
  }

  #connect(path = this.#path): ControlChannel {
    const control = new ControlChannel(path);
    void control.closed.then((cause) => {
      if (this.#options.reconnects !== true) for (const driver of this.drivers) driver.end(cause);
      this.events.emit('closed', cause);
    });
    return control;
  }

  #listen(): BackendChannel {
    return new BackendChannel((message) => {
      if (message.name === 'configChangeMsg') this.events.emit('configChange');
    });
  }

  async #ok(what: string, request: BlockRequest, queue = 0): Promise<BlockReply> {
    const reply = await this.submit(request, queue);
    if (reply.status !== BlockStatus.ok) throw new BlockError(what, reply.status);
    return reply;
  }
}
