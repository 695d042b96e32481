/** Events about the virtual devices of this host's VMs, in words. */
import type { NetbusError } from '../device/errors.ts';
import type { VirtualDeviceState } from '../device/virtual-device.ts';
import type { Clock } from '../lib/clock.ts';
import { formatBytes, formatDuration } from '../lib/format.ts';
import type { EventDetails, EventRecorder, NewEvent } from './events.ts';
import type { VirtualDeviceRecord } from './records.ts';

type Place = Pick<VirtualDeviceRecord, 'vm' | 'name' | 'host' | 'export'>;

export class AttachmentEvents {
  readonly #subject: string;
  #device: string;
  readonly #events: EventRecorder;
  readonly #clock: Clock;
  #before: VirtualDeviceState = { name: 'idle' };
  /** Since when the guest waits for the device, on the monotonic clock; undefined = it does not. */
  #waitingSince: number | undefined;
  /** It had the device before: what comes next is the same session again. */
  #isLost = false;

  constructor({ vm, name, host, export: exported }: Place, events: EventRecorder, clock: Clock) {
    this.#subject = `${vm}/${name}`;
    this.#device = `${host}/${exported}`;
    this.#events = events;
    this.#clock = clock;
  }

  /** What comes is about another device. */
  replaced({ host, export: exported }: Place): void {
    this.#device = `${host}/${exported}`;
  }

  added(): void {
    this.#record('attachment.added', `${this.#device} is attached`);
  }

  expected(from: string): void {
    this.#record('attachment.expected', `${this.#device} stands ready for its guest, which comes from ${from}`, { from });
  }

  handOverSent(host: string): void {
    const message = `${this.#device} does not answer: what its guest left went to host ${host}, where it is expected`;
    this.#record('attachment.hand-over-sent', message, { to: host });
  }

  moved(): void {
    this.#record('attachment.moved', `its guest uses ${this.#device} from another host now`);
  }

  removed(warnings: readonly string[]): void {
    const [warning] = warnings;
    const message = `${this.#device} is detached${warning === undefined ? '' : `, by force: ${warning}`}`;
    this.#record('attachment.removed', message, { forced: warning !== undefined });
  }

  grown(capacityBytes: number): void {
    this.#record('attachment.grown', `its guest sees ${formatBytes(capacityBytes)} now`, { capacityBytes });
  }

  noSocket(cause: NetbusError): void {
    this.#record('attachment.failed', `it has no socket: ${cause.message}`, { code: cause.code, reason: cause.message });
  }

  logSent(size: string, bytes: number): void {
    this.#record('write-log.sent', `the device's host had forgotten writes: ${size} were sent again and flushed`, { bytes });
  }

  logTrouble(reason: string): void {
    this.#record('write-log.trouble', reason, { reason });
  }

  connection(pid: number | undefined): void {
    if (pid === undefined) this.#record('vmm.disconnected', 'the VMM has gone');
    else this.#record('vmm.connected', `the VMM has connected (process ${pid})`, { pid });
  }

  /** The virtual device's state, each time that it is told. */
  became(state: VirtualDeviceState): void {
    const before = this.#before;
    this.#before = state;
    switch (state.name) {
      case 'connecting':
        this.#connecting(before, state.cause, state.errorsAt);
        break;
      case 'active':
        this.#active(state.epoch);
        break;
      case 'failed': {
        const { code, message } = state.cause;
        const until = state.returns ? 'until the device is back' : 'until the VM is started again';
        this.#record('attachment.failed', `its guest gets errors ${until}: ${message}`, { code, reason: message });
        // The hold time is over, and it is still waited for: what is told at the end is the whole time.
        if (!state.returns) this.#ended();
        break;
      }
      case 'idle':
      case 'closed':
        if (before.name === 'active') this.#record('session.closed', 'its guest uses it no more');
        this.#ended();
        break;
    }
  }

  #connecting(before: VirtualDeviceState, cause: NetbusError | undefined, errorsAt: number | undefined): void {
    this.#waitingSince ??= this.#clock.now();
    if (cause === undefined) return;
    const { code, message } = cause;
    const at = errorsAt === undefined ? undefined : new Date(errorsAt).toISOString();
    const details = { code, reason: message, ...(at !== undefined && { errorsAt: at }) };
    const waits = `its guest waits for the device${at === undefined ? '' : `, until ${at}`}: ${message}`;
    if (before.name === 'active') {
      this.#isLost = true;
      this.#record('session.lost', waits, details);
    } else if (before.name !== 'connecting' || before.cause?.message !== message) {
      this.#record('attachment.waiting', waits, details);
    }
  }

  #active(epoch: number): void {
    const waitedMs = Math.round(this.#clock.now() - (this.#waitingSince ?? this.#clock.now()));
    const message = `has the device (epoch ${epoch}), after ${formatDuration(waitedMs)}`;
    if (this.#isLost) this.#record('session.reopened', `its guest ${message} without it`, { epoch, waitedMs });
    else this.#record('session.opened', `its guest ${message}`, { epoch, waitedMs });
    this.#ended();
  }

  #ended(): void {
    this.#waitingSince = undefined;
    this.#isLost = false;
  }

  #record(type: NewEvent['type'], message: string, details: EventDetails = {}): void {
    this.#events.record({ type, subject: this.#subject, message, details: { device: this.#device, ...details } });
  }
}
