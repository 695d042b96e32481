/** docs/protocol.md, 2.2: says something when nothing was said for a while, and notices when nothing is heard. */
import type { Clock } from '../lib/clock.ts';
import { HEARTBEAT_CUT_MS, HEARTBEAT_IDLE_MS } from '../protocols/netbus/limits.ts';

export interface HeartbeatOwner {
  /** Nothing was sent for HEARTBEAT_IDLE_MS: send PING. */
  idle(): void;
  /** Nothing was received for HEARTBEAT_CUT_MS. */
  silent(): void;
}

export class Heartbeat {
  readonly #clock: Clock;
  readonly #owner: HeartbeatOwner;
  #sentAt: number;
  #receivedAt: number;
  #cancel: (() => void) | undefined;
  #state: 'new' | 'running' | 'stopped' = 'new';

  constructor(clock: Clock, owner: HeartbeatOwner) {
    this.#clock = clock;
    this.#owner = owner;
    this.#sentAt = clock.now();
    this.#receivedAt = this.#sentAt;
  }

  start(): void {
    if (this.#state !== 'new') return;
    this.#state = 'running';
    this.#arm();
  }

  sent(): void {
    this.#sentAt = this.#clock.now();
  }

  received(): void {
    this.#receivedAt = this.#clock.now();
  }

  stop(): void {
    this.#state = 'stopped';
    this.#cancel?.();
  }

  #arm(): void {
    const due = Math.min(this.#sentAt + HEARTBEAT_IDLE_MS, this.#receivedAt + HEARTBEAT_CUT_MS);
    this.#cancel = this.#clock.after(Math.max(1, due - this.#clock.now()), () => {
      if (this.#clock.now() - this.#receivedAt < HEARTBEAT_CUT_MS) this.#check();
      // This process may have been stopped itself: what has arrived meanwhile is read before the peer is called silent.
      else setImmediate(() => setImmediate(() => this.#check()));
    });
  }

  #check(): void {
    if (this.#state !== 'running') return;
    const now = this.#clock.now();
    if (now - this.#receivedAt >= HEARTBEAT_CUT_MS) {
      this.stop();
      this.#owner.silent();
      return;
    }
    if (now - this.#sentAt >= HEARTBEAT_IDLE_MS) {
      this.#sentAt = now;
      this.#owner.idle();
    }
    this.#arm();
  }
}
