/**
 * The device's state over a descriptor of the front-end's (vhost-user, "Migrating back-end state"). All that the next host has to know goes there by
 * way of the device's host, so that the state says no more than whose it is. The descriptor is read and written as its other end likes, or never.
 */
import { readlinkSync, readSync, writeSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import {
  Ack,
  DeviceState,
  type FrontendMessage,
  NO_DESCRIPTOR,
  type Reply,
  Request,
} from '../../protocols/vhost-user/index.ts';
import type { Descriptors } from './descriptors.ts';
import { refused } from './ring-messages.ts';

/** Magic and version. */
const STATE = new TextEncoder().encode('netbus disk state 1\n');
/** From SET_DEVICE_STATE_FD until the transfer counts as failed. */
const TRANSFER_MS_MAX = 5_000;

type Parameters = Extract<FrontendMessage, { name: 'setDeviceStateFd' }>;

type State =
  | {
      readonly name: 'moving';
      readonly isSave: boolean;
      readonly fd: number;
      readonly watch: number;
      readonly cancel: () => void;
    }
  /** `failure`: why it failed. */
  | { readonly name: 'over'; readonly failure: string | undefined };

export class DeviceStateTransfer {
  readonly #clock: Clock;
  readonly #log: Log;
  #state: State = { name: 'over', failure: 'there was none' };
  #bytes = new Uint8Array();
  /** What was moved of it. */
  #done = 0;
  /** Whoever waits for the outcome. */
  #tell: (() => void) | undefined;

  constructor({ clock, log }: { readonly clock: Clock; readonly log: Log }) {
    this.#clock = clock;
    this.#log = log;
  }

  /** SET_DEVICE_STATE_FD. Its answer is the VMM's way to hear of an error, also of one that `mayBegin` throws. */
  set({ direction, phase }: Parameters, descriptors: Descriptors, mayBegin: () => void): Reply {
    let outcome: bigint = Ack.done;
    try {
      mayBegin();
      if (phase !== DeviceState.stopped) throw refused(`there is no phase ${phase}`);
      this.cancel();
      this.#begin(direction, descriptors.take());
    } catch (thrown) {
      this.#log.warn({}, `SET_DEVICE_STATE_FD is refused: ${NetbusError.from(thrown).message}`);
      outcome = Ack.failed;
    }
    return { name: 'u64', request: Request.setDeviceStateFd, value: NO_DESCRIPTOR | outcome };
  }

  /** CHECK_DEVICE_STATE: once the outcome of the transfer that was begun last is known. */
  async check(): Promise<Reply> {
    if (this.#state.name === 'moving') {
      await new Promise<void>((resolve) => {
        this.#tell = resolve;
      });
    }
    const failure = this.#state.name === 'over' ? this.#state.failure : 'another one has begun';
    if (failure !== undefined) this.#log.warn({}, `the state of the device was not transferred: ${failure}`);
    return { name: 'u64', request: Request.checkDeviceState, value: failure === undefined ? Ack.done : Ack.failed };
  }

  /** Takes the descriptor over. Throws `protocol` for what is neither pipe nor socket, and for a direction that is none. */
  #begin(direction: number, fd: number): void {
    const isSave = direction === DeviceState.save;
    let watch: number;
    try {
      const kind = readlinkSync(`/proc/self/fd/${fd}`);
      // Others could block the process.
      if (!/^(pipe|socket):/.test(kind)) throw refused(`its descriptor is neither pipe nor socket: ${kind}`);
      if (!isSave && direction !== DeviceState.load) throw refused(`there is no direction ${direction}`);
      native.setNonBlocking(fd);
      watch = native.watch(fd, { readable: !isSave, writable: isSave }, (error) => this.#ready(error));
    } catch (thrown) {
      native.close(fd);
      throw thrown;
    }
    // With room for a byte too many.
    this.#bytes = isSave ? STATE : new Uint8Array(STATE.length + 1);
    this.#done = 0;
    const cancel = this.#clock.after(TRANSFER_MS_MAX, () => this.#end(`it took longer than ${TRANSFER_MS_MAX} ms`));
    this.#state = { name: 'moving', isSave, fd, watch, cancel };
  }

  /** Ends one that is on its way. */
  cancel(): void {
    this.#end('it was given up');
  }

  #ready(error: number): void {
    if (this.#state.name !== 'moving') return;
    const { isSave, fd } = this.#state;
    if (error < 0) this.#end(`its descriptor failed (errno ${-error})`);
    else if (isSave) this.#save(fd);
    else this.#load(fd);
  }

  #save(fd: number): void {
    const written = attempt(() => writeSync(fd, this.#bytes, this.#done));
    if (typeof written === 'string') this.#end(written);
    else this.#done += written;
    // The end of the stream is that it is closed.
    if (this.#done === this.#bytes.length) this.#end(undefined);
  }

  #load(fd: number): void {
    const read = attempt(() => readSync(fd, this.#bytes, this.#done, this.#bytes.length - this.#done, null), -1);
    if (typeof read === 'string') this.#end(read);
    else if (read > 0) this.#done += read;
    if (read === 0 || this.#done > STATE.length) {
      const isOurs = Buffer.from(this.#bytes.buffer, 0, this.#done).equals(STATE);
      this.#end(isOurs ? undefined : 'it is not of a disk of Netbus, or of another version');
    }
  }

  #end(failure: string | undefined): void {
    if (this.#state.name !== 'moving') return;
    const { fd, watch, cancel } = this.#state;
    native.unwatch(watch);
    native.close(fd);
    cancel();
    this.#state = { name: 'over', failure };
    this.#tell?.();
    this.#tell = undefined;
  }
}

/** What a system call did, `nothing` where it would have to wait, or why it failed. */
function attempt(call: () => number, nothing = 0): number | string {
  try {
    return call();
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    return code === 'EAGAIN' || code === 'EINTR' ? nothing : message;
  }
}
