/**
 * The rings of one connection, in the guest's memory as its VMM describes it, with the in-flight region that it keeps of them: what
 * starts them, moves them and stops them.
 */
import { NetbusError } from '../../device/errors.ts';
import type { Log } from '../../lib/log.ts';
import {
  type InflightRegion as InflightDescription,
  ProtocolFeature,
  type Reply,
  VirtioFeature,
} from '../../protocols/vhost-user/index.ts';
import type { Descriptors } from './descriptors.ts';
import type { DeviceModel } from './device-model.ts';
import { DirtyLog } from './dirty-log.ts';
import { createInflightFile, InflightRegion } from './inflight-region.ts';
import { GuestMemory } from './memory.ts';
import type { Negotiation } from './negotiation.ts';
import { Ring, type RingState } from './ring.ts';
import { type RingMessage, refused, ringOf, setRing } from './ring-messages.ts';
import type { RingTimes } from './ring-times.ts';

export class RingSet {
  readonly all: readonly Ring[];
  readonly memory = new GuestMemory();
  readonly dirtyLog = new DirtyLog();
  readonly #log: Log;
  readonly #inflightPath: string;
  readonly #times: RingTimes;
  #model!: DeviceModel;
  #negotiation!: Negotiation;
  #inflight: InflightRegion | undefined;
  #ending = false;

  constructor(options: {
    readonly queues: number;
    readonly log: Log;
    readonly inflightPath: string;
    readonly times: RingTimes;
  }) {
    this.#log = options.log;
    this.#times = options.times;
    this.#inflightPath = options.inflightPath;
    this.all = Array.from({ length: options.queues }, (_, index) => new Ring(index, (ring) => this.#kicked(ring)));
  }

  /** Who takes from them, and what was agreed; before the first message. */
  use(model: DeviceModel, negotiation: Negotiation): void {
    this.#model = model;
    this.#negotiation = negotiation;
  }

  /** The VMM keeps a region of what is in flight. */
  get tracked(): boolean {
    return this.#inflight !== undefined;
  }

  /** The connection is ending: nothing starts any more. */
  ignoreKicks(): void {
    this.#ending = true;
  }

  close(): void {
    for (const ring of this.all) ring.close();
    this.memory.close();
    this.dirtyLog.close();
    this.#replaceInflight(undefined);
  }

  /** What a message says about one ring. Throws `protocol` as `setRing`, and for a ring that there is not. */
  set(message: RingMessage, descriptors: Descriptors): void {
    const ring = this.#ring(ringOf(message));
    setRing(ring, message, descriptors);
    // A ring that was disabled may have something to take.
    if (message.name === 'setVringEnable' && message.enabled) this.#model.wake();
    // The kick for what is in it already may have gone to a process that is no more, or to another host.
    if (message.name === 'setVringKick' && (this.#inflight?.queue(ring.index)?.inUse || this.#model.needsKick(ring)))
      ring.kick();
  }

  /** `memory` is another one now. */
  memoryChanged(): void {
    for (const ring of this.all) {
      ring.remap(this.memory.current);
      if (ring.state.name === 'waiting') this.#start(ring);
    }
    this.#model.wake();
  }

  /** GET_VRING_BASE. */
  async stop(index: number): Promise<Reply> {
    const ring = this.#ring(index);
    const wasUsed = ring.state.name !== 'stopped';
    const wasStarted = ring.queue !== undefined;
    if (wasStarted) this.#times.stopAsked();
    ring.beginStop();
    if (wasUsed) {
      const drainedMs = await this.#model.stopRing(ring);
      if (wasStarted) this.#log.info({ ring: index, base: ring.base }, `ring ${index} has stopped`);
      if (!this.#ending && this.all.every(({ queue, state }) => queue === undefined && state.name !== 'waiting'))
        this.#times.stopAnswered(drainedMs, this.all.some(({ left }) => left?.heads.length) ? 'cut' : 'clean');
    }
    return { name: 'getVringBase', index, base: ring.base };
  }

  /**
   * GET_INFLIGHT_FD: a new life of the driver, to which nothing that was in flight before belongs. The descriptor is the caller's; without
   * one, and with a size of 0, there is no region: the front-end waits for an answer, whatever was negotiated.
   */
  makeInflight(asked: InflightDescription): { fd?: number; description: InflightDescription } {
    const none = { description: { ...asked, mmapSize: 0, mmapOffset: 0 } };
    if (!this.#negotiation.hasProtocol(ProtocolFeature.inflightShmfd)) return none;
    this.checkAllStopped('GET_INFLIGHT_FD');
    this.#replaceInflight(undefined);
    try {
      return createInflightFile(this.#inflightPath, asked);
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      if (code !== 'device') throw thrown;
      this.#log.warn(
        { code },
        `${message}: if this daemon is killed while the guest works, the guest waits until its VM is reset`,
      );
      return none;
    }
  }

  /** SET_INFLIGHT_FD: the region of this life of the driver, empty or with what was in flight when the last connection ended. */
  useInflight(fd: number, description: InflightDescription): void {
    this.checkAllStopped('SET_INFLIGHT_FD');
    this.#replaceInflight(new InflightRegion(fd, description));
  }

  #replaceInflight(region: InflightRegion | undefined): void {
    this.#inflight?.close();
    this.#inflight = region;
  }

  /** Throws `protocol` for a message that has its place between two lives of the rings. */
  checkAllStopped(title: string): void {
    const running = this.all.find(({ queue }) => queue !== undefined);
    if (running !== undefined) throw refused(`${title} while ring ${running.index} is running`);
  }

  #ring(index: number): Ring {
    const ring = this.all[index];
    if (ring === undefined) throw refused(`there is no ring ${index}: this device has ${this.all.length}`);
    return ring;
  }

  /** The first kick starts a ring. */
  #kicked(ring: Ring): void {
    if (this.#ending) return;
    if (ring.state.name === 'stopped') this.#times.started(this.all.every(({ state }) => state.name === 'stopped'));
    if (ring.state.name === 'stopped' || ring.state.name === 'waiting') this.#start(ring);
    else this.#model.wake();
  }

  #start(ring: Ring): void {
    const { index, base, enabled } = ring;
    try {
      const before = ring.state;
      const options = {
        indirect: this.#negotiation.has(VirtioFeature.indirectDescriptors),
        eventIndex: this.#negotiation.has(VirtioFeature.eventIndex),
        inflight: this.#inflight?.queue(index),
      };
      const queue = ring.start(this.memory.current, options, this.#model.handOverOf(ring));
      if (queue === undefined) {
        this.#logWaiting(ring, before);
        return;
      }
      const { size, tracked, waitingAgain } = queue;
      this.#log.info({ ring: index, size, base, enabled, tracked, waitingAgain }, `ring ${index} has started`);
      this.#model.ringStarted(ring);
      // Answers of an earlier process may be there whose call never went out.
      if (queue.recovered) ring.call();
    } catch (thrown) {
      const { message } = NetbusError.from(thrown);
      this.#log.warn({ ring: index }, `ring ${index} cannot start: ${message}`);
      ring.break(message);
      this.#model.ringHeld(ring);
    }
  }

  #logWaiting({ index, state }: Ring, before: RingState): void {
    if (state.name !== 'waiting' || (before.name === 'waiting' && before.for === state.for)) return;
    if (state.for === 'hand-over')
      this.#log.info({ ring: index }, `ring ${index} waits for the device and for what the guest's last host hands over`);
    else this.#log.warn({ ring: index }, `ring ${index} is not inside one region of guest memory and waits for one`);
  }
}
