/**
 * The invitations of an issuer, in the state folder: who is invited until when, and only a hash of the secret. An invitation is used once: that it was is
 * on stable storage before the caller hears of it. Whose key it was used for is kept, too, so that a host whose answer was lost can ask for it again.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { mkdir, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { isNetbusName } from '../protocols/netbus/names.ts';
import { isAdmission } from './admission.ts';
import { writeDurably } from './durable-file.ts';
import { checkName } from './names.ts';
import { SECRET_BYTES } from './token.ts';

export const INVITATION_VALID_MS = 15 * 60 * 1000;
export const INVITATIONS_OPEN_MAX = 256;
/** One that is over is remembered for this long, so that who comes too late is told why. */
const REMEMBERED_MS = 24 * 60 * 60 * 1000;
/** Those that are over count; the oldest of them are forgotten first. */
const INVITATIONS_MAX = 1024;

const ADVICE = 'ask for a new one: netbus invite HOST';
const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;

export interface Invitation {
  readonly host: string;
  /** Milliseconds since 1970. */
  readonly expiresAt: number;
}

const entrySchema = z.strictObject({
  host: z.string().refine(isNetbusName),
  /** SHA-256, hexadecimal. The secret has 256 random bits: a hash that is slow to compute would add nothing. */
  secretHash: z.string().regex(/^[0-9a-f]{64}$/),
  expiresAt: z.int(),
  state: z.enum(['open', 'used', 'replaced']),
  /** Of one that was used, for as long as the same host may ask again. */
  use: z.strictObject({ key: z.string().regex(/^[0-9a-f]{64}$/), admission: z.string().refine(isAdmission) }).optional(),
});

const fileSchema = z.strictObject({ version: z.literal(1), invitations: z.array(entrySchema).max(INVITATIONS_MAX) });

type Entry = z.infer<typeof entrySchema>;

/** What an invitation was used for. */
export interface InvitationUse {
  /** `keyFingerprint` of the host's request. */
  readonly key: string;
  /** The membership that was made of it. */
  readonly admission: string;
}

interface InvitationStoreOptions {
  /** `directory/invitations.json` in the state folder. */
  readonly file: string;
  readonly clock: Clock;
}

export class InvitationStore {
  /** The reason where the file was damaged: it was set aside, and the invitations in it are void. */
  readonly damaged: string | undefined;
  readonly #options: InvitationStoreOptions;
  #entries: readonly Entry[];
  /** Changes are made one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: InvitationStoreOptions, entries: readonly Entry[], damaged: string | undefined) {
    this.#options = options;
    this.#entries = entries;
    this.damaged = damaged;
  }

  /** Throws `device` where the file can neither be read nor set aside. */
  static async open(options: InvitationStoreOptions): Promise<InvitationStore> {
    const { file } = options;
    try {
      await mkdir(dirname(file), { recursive: true, mode: FOLDER_MODE });
      const text = await readFile(file, 'utf8').catch(ignoreMissing);
      if (text === undefined) return new InvitationStore(options, [], undefined);
      const entries = parse(text);
      if (entries !== undefined) return new InvitationStore(options, entries, undefined);
      const keptAs = `${file}.damaged-${new Date(options.clock.wallTime()).toISOString().replace(/[:.]/g, '-')}`;
      await rename(file, keptAs);
      return new InvitationStore(options, [], `${file} was damaged and is kept as ${keptAs}: its invitations are void`);
    } catch (thrown) {
      throw new NetbusError('device', `the invitations in ${file} cannot be read: ${(thrown as Error).message}`, {
        cause: thrown,
      });
    }
  }

  /** Those that can still be redeemed. */
  open(): readonly Invitation[] {
    return this.#entries.filter((entry) => this.#isOpen(entry)).map(({ host, expiresAt }) => ({ host, expiresAt }));
  }

  /** Whether somebody may come with an invitation of this host: an open one, or one that is over and still remembered, who is told so. */
  get expectsSomebody(): boolean {
    return this.#entries.some(({ expiresAt }) => this.#now < expiresAt + REMEMBERED_MS);
  }

  /** Stores an invitation and returns its secret; an open one of the same host is void from now on. Throws `limit`, `usage` for a bad name, `device`. */
  create(host: string): Promise<Invitation & { secret: Uint8Array }> {
    return this.#inTurn(async () => {
      checkName('host', host);
      const kept = this.#entries.map((entry) => (entry.host === host ? replaced(entry) : entry));
      const open = kept.filter((entry) => this.#isOpen(entry));
      if (open.length >= INVITATIONS_OPEN_MAX) {
        throw new NetbusError('limit', `${INVITATIONS_OPEN_MAX} invitations are open: wait until one is used or over`);
      }
      const secret = randomBytes(SECRET_BYTES);
      const expiresAt = this.#now + INVITATION_VALID_MS;
      await this.#store([...kept, { host, secretHash: hash(secret).toString('hex'), expiresAt, state: 'open' }]);
      return { host, expiresAt, secret };
    });
  }

  /**
   * A look before the work: nothing is used up. Undefined for an invitation that is open; what it was used for, where it has not expired since, so that this
   * very use may be answered once more. Throws as `redeem`.
   */
  check(secret: Uint8Array, host: string): InvitationUse | undefined {
    const { state, use, expiresAt } = this.#find(secret, host);
    if (state === 'open') return undefined;
    if (use === undefined || this.#now >= expiresAt) throw alreadyUsed();
    return use;
  }

  /** Uses an invitation up. Throws `denied` where there is none, it is over, was used, or is another host's; `device` where that cannot be stored (nothing is used then). */
  redeem(secret: Uint8Array, host: string, use: InvitationUse): Promise<void> {
    return this.#inTurn(async () => {
      const found = this.#find(secret, host);
      if (found.state === 'used') throw alreadyUsed();
      await this.#store(this.#entries.map((entry) => (entry === found ? { ...entry, state: 'used' as const, use } : entry)));
    });
  }

  /** The host is evicted: no invitation that it used is answered once more. Throws `device`. */
  settle(host: string): Promise<void> {
    return this.#inTurn(async () => {
      const isAnswered = (entry: Entry) => entry.host === host && entry.use !== undefined;
      if (!this.#entries.some(isAnswered)) return;
      await this.#store(this.#entries.map((entry) => (isAnswered(entry) ? replaced(entry) : entry)));
    });
  }

  get #now(): number {
    return this.#options.clock.wallTime();
  }

  #isOpen({ state, expiresAt }: Entry): boolean {
    return state === 'open' && this.#now < expiresAt;
  }

  #find(secret: Uint8Array, host: string): Entry {
    const wanted = hash(secret);
    // All are compared, each in the same time: how long it takes says nothing about a secret.
    const [found] = this.#entries.filter(({ secretHash }) => timingSafeEqual(Buffer.from(secretHash, 'hex'), wanted));
    if (found === undefined) throw refused(`it is not known here (forged, of another cluster, or long over): ${ADVICE}`);
    if (found.host !== host) throw refused(`it is for another host than ${JSON.stringify(host.slice(0, 64))}: ${ADVICE}`);
    switch (found.state) {
      case 'used':
        return found;
      case 'replaced':
        throw refused('a newer one was made for this host: use that');
      case 'open':
        if (this.#isOpen(found)) return found;
        throw refused(`it expired at ${new Date(found.expiresAt).toISOString()}: ${ADVICE}`);
    }
  }

  async #store(entries: readonly Entry[]): Promise<void> {
    const remembered = entries.filter(({ expiresAt }) => this.#now < expiresAt + REMEMBERED_MS);
    const over = remembered.filter((entry) => !this.#isOpen(entry)).sort((a, b) => a.expiresAt - b.expiresAt);
    const forgotten = new Set(over.slice(0, Math.max(0, remembered.length - INVITATIONS_MAX)));
    const invitations = remembered.filter((entry) => !forgotten.has(entry));
    const { file } = this.#options;
    try {
      await writeDurably(file, `${JSON.stringify({ version: 1, invitations }, null, 2)}\n`, FILE_MODE);
    } catch (thrown) {
      throw new NetbusError('device', `the invitations cannot be stored in ${file}: ${(thrown as Error).message}`, {
        cause: thrown,
      });
    }
    this.#entries = invitations;
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }
}

function hash(secret: Uint8Array): Buffer {
  return createHash('sha256').update(secret).digest();
}

/** Another one counts, or none: an open one is void, and one that was used is not answered again. */
function replaced({ use: _use, ...entry }: Entry): Entry {
  return entry.state === 'open' ? { ...entry, state: 'replaced' } : entry;
}

function parse(text: string): readonly Entry[] | undefined {
  try {
    return fileSchema.parse(JSON.parse(text)).invitations;
  } catch {
    return undefined;
  }
}

/** By somebody else, or too long ago. */
export function alreadyUsed(): NetbusError {
  return refused(`it was used already: ${ADVICE}`);
}

function refused(reason: string): NetbusError {
  return new NetbusError('denied', `the invitation is refused: ${reason}`);
}

function ignoreMissing(thrown: NodeJS.ErrnoException): undefined {
  if (thrown.code !== 'ENOENT') throw thrown;
}
