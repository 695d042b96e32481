/** A virtual device before a device's host whose sessions are opened, activated and ended as the test says. */
import { openNullSource } from '../../src/backends/null/null.ts';
import { DiskKind } from '../../src/device/disk.ts';
import { NetbusError } from '../../src/device/errors.ts';
import type { HandOver } from '../../src/device/hand-over.ts';
import type { DiskProfile } from '../../src/device/profile.ts';
import type { Grant, Session } from '../../src/device/source.ts';
import { VirtualDevice, type VirtualDeviceOptions, type VirtualDeviceState } from '../../src/device/virtual-device.ts';
import { ManualClock } from '../../src/lib/clock.ts';
import { TestGuest } from '../compliance/test-guest.ts';
import { HeldDevice } from './held-device.ts';
import { MemoryRegion } from './memory-region.ts';

export const MIB = 1024 * 1024;
export const GONE = new NetbusError('unreachable', 'the host of the device is away');
export const profile = openNullSource({ capacityBytes: MIB }).profile as DiskProfile;

export class Host {
  reachable = true;
  refusal: NetbusError | undefined;
  instance = 'first';
  epoch = 0;
  readonly sessions: HostSession[] = [];
  /** Steps that wait for the test, instead of going on by themselves. */
  holdOpening = false;
  holdActivating = false;
  /** Comes with each grant. */
  handOver: HandOver | undefined;
  /** What it was told that a guest left, last first. */
  readonly left: (HandOver | 'unchanged')[] = [];

  openSession = async (onEnded: (cause: NetbusError) => void): Promise<Session> => {
    if (!this.reachable) throw GONE;
    if (this.refusal !== undefined) throw this.refusal;
    const session = new HostSession(this, onEnded);
    this.sessions.push(session);
    if (this.holdOpening) await session.step();
    return session;
  };

  get last(): HostSession {
    return this.sessions[this.sessions.length - 1];
  }
}

class HostSession implements Session {
  readonly device = new HeldDevice(profile, 16);
  readonly end: (cause: NetbusError) => void;
  readonly calls: string[] = [];
  readonly #host: Host;
  #goOn: () => void = () => {};
  #fail: (cause: NetbusError) => void = () => {};

  constructor(host: Host, onEnded: (cause: NetbusError) => void) {
    this.#host = host;
    this.end = onEnded;
  }

  step(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#goOn = resolve;
      this.#fail = reject;
    });
  }

  goOn(): void {
    this.#goOn();
  }

  async activate(): Promise<Grant> {
    this.calls.push('activate');
    if (this.#host.holdActivating) await this.step();
    const { instance, handOver } = this.#host;
    return { epoch: ++this.#host.epoch, bootId: 'boot', instance, device: this.device, ...(handOver && { handOver }) };
  }

  async quiesced(left: HandOver | 'unchanged'): Promise<void> {
    this.calls.push(`quiesced, device ${this.device.closed ? 'closed' : 'open'}`);
    this.#host.left.unshift(left);
  }

  close(): void {
    this.calls.push('close');
    this.#fail(new NetbusError('ended', 'closed'));
  }
}

export function setUp(options: Partial<VirtualDeviceOptions> = {}) {
  const host = new Host();
  const clock = new ManualClock();
  const states: VirtualDeviceState[] = [];
  const virtual = new VirtualDevice({
    profile,
    depth: 16,
    openSession: host.openSession,
    clock,
    onState: (state) => states.push(state),
    ...options,
  });
  return { host, clock, states, virtual };
}

export function use(virtual: VirtualDevice): TestGuest {
  return new TestGuest(virtual.open(), new MemoryRegion(MIB), 32);
}

export async function ask(guest: TestGuest, kind: number): Promise<number> {
  guest.add({ kind, ...(kind === DiskKind.write && { outBytes: 4096 }) });
  guest.pushAll();
  await guest.answered();
  return guest.answers[guest.answers.length - 1].status;
}
