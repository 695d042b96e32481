/**
 * This host's certificate over time: renewed when a third of its life is left, taken anew from its files when somebody says so, and told in time where
 * that does not work. Running connections never end for it.
 */
import { X509Certificate } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { NetbusError } from '../device/errors.ts';
import { type Identity, type IdentityFiles, loadIdentity } from '../directory/identity.ts';
import { writeCertificate } from '../directory/identity-files.ts';
import { createRequest } from '../directory/identity-request.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { EventRecorder } from './events.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
/** Warned of so long before the end. */
export const WARNING_MS = 10 * DAY_MS;
/** The share of a certificate's life that passes before it is renewed. */
const RENEW_AFTER = 2 / 3;
/** Looked at so often at least: a host that slept, or whose clock was set, finds out soon. */
export const LOOK_MS_MAX = 60 * 60 * 1000;
/** Pauses between tries that failed, doubled from the first to the last. */
export const RETRY_FIRST_MS = 60_000;
export const RETRY_MAX_MS = 60 * 60 * 1000;

export interface IdentityKeeperOptions {
  readonly files: IdentityFiles;
  readonly identity: Identity;
  /** Gets a certificate (PEM, with the issuing one) for a request (PEM); `certificate` is the present one. Left out where people renew it themselves. */
  readonly renew?: (request: string, certificate: string) => Promise<string>;
  /** Told of each new identity. */
  readonly use: (identity: Identity) => void;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
}

export class IdentityKeeper {
  readonly #options: IdentityKeeperOptions;
  #identity: Identity;
  #cancel: () => void = () => {};
  #retryMs = RETRY_FIRST_MS;
  /** Why the last try failed. */
  #failure: string | undefined;
  /** Renewals and reloads go one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  #looking: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: IdentityKeeperOptions) {
    this.#options = options;
    this.#identity = options.identity;
  }

  get identity(): Identity {
    return this.#identity;
  }

  /** Begins to look after it. */
  start(): void {
    this.#wait();
  }

  /** Resolves when no renewal is under way. */
  idle(): Promise<void> {
    return this.#looking;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancel();
    await this.#looking;
    await this.#turn;
  }

  /** Takes the files as they are now. Rejects with what is wrong with them; the identity of before then stays. */
  reload(): Promise<void> {
    return this.#inTurn(async () => {
      const { files, clock, log } = this.#options;
      const loaded = await loadIdentity(files, clock);
      this.#check(loaded, 'the files');
      this.#take(loaded);
      log.info({ expiresAt: text(loaded.expiresAt) }, 'certificate and key were taken anew from their files');
    });
  }

  /** From WARNING_MS before the end on, or after the end. */
  get warnings(): string[] {
    const { clock, renew } = this.#options;
    const leftMs = this.#identity.expiresAt - clock.wallTime();
    if (leftMs > WARNING_MS) return [];
    const day = text(this.#identity.expiresAt).slice(0, 10);
    const when = leftMs <= 0 ? `expired on ${day}: other hosts refuse new sessions` : `expires on ${day}`;
    const why =
      renew === undefined
        ? `put a new one into ${this.#options.files.certificate} and send the daemon SIGHUP`
        : this.#failure === undefined
          ? 'it is about to be renewed'
          : `it was not renewed: ${this.#failure}`;
    return [`this host's certificate ${when}; ${why}`];
  }

  #wait(): void {
    this.#cancel();
    if (this.#closed || this.#options.renew === undefined) return;
    const { clock } = this.#options;
    const dueMs = this.#failure === undefined ? Math.max(0, this.#renewAt - clock.wallTime()) : this.#retryMs;
    this.#cancel = clock.after(Math.min(dueMs, LOOK_MS_MAX), () => {
      this.#looking = this.#look();
    });
  }

  get #renewAt(): number {
    const begin = Date.parse(new X509Certificate(this.#identity.certificate).validFrom);
    return begin + (this.#identity.expiresAt - begin) * RENEW_AFTER;
  }

  async #look(): Promise<void> {
    if (this.#options.clock.wallTime() >= this.#renewAt) await this.#inTurn(() => this.#renew());
    this.#wait();
  }

  async #renew(): Promise<void> {
    const { files, renew, clock, log, events } = this.#options;
    if (this.#closed || renew === undefined || clock.wallTime() < this.#renewAt) return;
    try {
      const { certificate, key, expiresAt } = this.#identity;
      // The key stays: certificate and key are two files, and cannot be replaced in one step.
      const { request } = await createRequest(key);
      const renewed = await renew(request, certificate);
      const loaded = await this.#proven(renewed);
      if (loaded.expiresAt <= expiresAt) {
        throw new NetbusError(
          'protocol',
          `the new certificate is valid until ${text(loaded.expiresAt)}, no longer than the old one: check the clock of the host that issued it`,
        );
      }
      await writeCertificate(files.certificate, renewed);
      this.#take(loaded);
      log.info({ expiresAt: text(loaded.expiresAt) }, 'the certificate was renewed');
      const message = `the certificate was renewed, and is valid until ${text(loaded.expiresAt)}`;
      events.record({ type: 'certificate.renewed', subject: loaded.host, message });
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      this.#retryMs = this.#failure === undefined ? RETRY_FIRST_MS : Math.min(this.#retryMs * 2, RETRY_MAX_MS);
      this.#failure = message;
      const fields = { code, expiresAt: text(this.#identity.expiresAt), retrySeconds: this.#retryMs / 1000 };
      log.warn(fields, `the certificate was not renewed: ${message}`);
      const told = `it was not renewed: ${message}`;
      events.record({ type: 'certificate.not-renewed', subject: this.#identity.host, message: told, details: { code } });
    }
  }

  /** What came is looked at as a file, beside the good one, before it takes that one's place. */
  async #proven(certificate: string): Promise<Identity> {
    const { files, clock } = this.#options;
    const beside = `${files.certificate}.renewed`;
    try {
      await writeCertificate(beside, certificate);
      const loaded = await loadIdentity({ ...files, certificate: beside }, clock);
      this.#check(loaded, 'the new certificate');
      return loaded;
    } finally {
      await rm(beside, { force: true });
    }
  }

  #check(loaded: Identity, what: string): void {
    const { cluster, host, ca } = this.#identity;
    if (loaded.cluster !== cluster || loaded.host !== host) {
      throw new NetbusError(
        'config',
        `${what}: they are of host ${loaded.host} of cluster ${loaded.cluster}, and this is ${host} of ${cluster}`,
      );
    }
    // The member list was verified with it, and the other hosts would go on with the old one.
    if (this.#options.renew !== undefined && !new X509Certificate(loaded.ca).raw.equals(new X509Certificate(ca).raw)) {
      throw new NetbusError('config', `${this.#options.files.ca} has another root: a cluster keeps its root`);
    }
  }

  #take(identity: Identity): void {
    this.#identity = identity;
    this.#failure = undefined;
    this.#retryMs = RETRY_FIRST_MS;
    this.#options.use(identity);
    this.#wait();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

function text(time: number): string {
  return new Date(time).toISOString();
}
