/**
 * The hosts that expect a guest of this one: what it leaves goes to them, signed, where the device's host does not hear of it in time (docs/protocol.md, 7.2).
 * Any member may say that it expects it; what it is given is of no use except where the device's host expects the guest, too.
 */
import { NetbusError } from '../device/errors.ts';
import type { SignedHandOver, StatedHandOver } from '../directory/signed-hand-over.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';

/** The one that said so first is forgotten beyond it. */
const SUCCESSORS_MAX = 4;
const RETRY_MS = 1_000;

/** What the hosts of a guest tell each other past the device's host. */
export interface HandOverPeers {
  /** Tells `from`, where a guest comes from, whether it is expected here. */
  expect(from: string, attachment: string, expected: boolean): Promise<void>;
  /** Signs it with this host's key. */
  sign(stated: Omit<StatedHandOver, 'host'>): SignedHandOver;
  /** Resolves when `host` has stored it; null takes back what it was given. */
  put(host: string, attachment: string, signed: SignedHandOver | null): Promise<void>;
}

export interface SuccessorsOptions {
  readonly attachment: string;
  readonly peers: Pick<HandOverPeers, 'sign' | 'put'>;
  readonly onSent: (host: string) => void;
  readonly clock: Clock;
  readonly log: Log;
}

export class Successors {
  readonly #options: SuccessorsOptions;
  readonly #hosts = new Set<string>();
  #sending: { readonly signed: SignedHandOver; readonly over: AbortSignal } | undefined;

  constructor(options: SuccessorsOptions) {
    this.#options = options;
  }

  expected(host: string): void {
    if (this.#hosts.has(host)) return;
    if (this.#hosts.size === SUCCESSORS_MAX) this.#hosts.delete(this.#hosts.values().next().value!);
    this.#hosts.add(host);
    if (this.#sending !== undefined) void this.#send(host, this.#sending);
  }

  unexpected(host: string): void {
    this.#hosts.delete(host);
  }

  /** `over`: aborted when the device's host has it, or the guest goes on here. From then on nobody expects the guest. */
  send(stated: Omit<StatedHandOver, 'host' | 'attachment'>, over: AbortSignal): void {
    const { attachment, peers, log } = this.#options;
    try {
      const sending = { signed: peers.sign({ attachment, ...stated }), over };
      this.#sending = sending;
      over.addEventListener('abort', () => this.#takeBack(), { once: true });
      for (const host of this.#hosts) void this.#send(host, sending);
    } catch (thrown) {
      log.warn({ reason: NetbusError.from(thrown).message }, 'what the guest left could not be signed');
    }
  }

  /** Nothing more is sent, and what was sent stays good: this daemon ends, and the guest is elsewhere. */
  close(): void {
    this.#sending = undefined;
    this.#hosts.clear();
  }

  /** It is void without it, too: that host gets nothing by it once this one was granted the lease anew. */
  #takeBack(): void {
    const { attachment, peers } = this.#options;
    for (const host of this.#hosts) peers.put(host, attachment, null).catch(() => undefined);
    this.close();
  }

  async #send(host: string, { signed, over }: { signed: SignedHandOver; over: AbortSignal }): Promise<void> {
    const { attachment, peers, clock, log, onSent } = this.#options;
    if (over.aborted || !this.#hosts.has(host)) return;
    try {
      await peers.put(host, attachment, signed);
      log.info({ host }, "what the guest left went to the host that expects it, because the device's host did not answer");
      onSent(host);
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      if (code === 'unreachable' || code === 'timeout') clock.after(RETRY_MS, () => void this.#send(host, { signed, over }));
      else log.warn({ host, reason: message }, 'what the guest left was not taken by a host that expects it');
    }
  }
}
