/**
 * The open invitations of an issuer, in the state folder: who is invited until when, and only a hash of the secret. An invitation is used once: that
 * it was is on stable storage before the caller hears of it.
 */
import type { Clock } from '../lib/clock.ts';

export const INVITATION_VALID_MS = 15 * 60 * 1000;
export const INVITATIONS_OPEN_MAX = 256;

export interface Invitation {
  readonly host: string;
  /** Milliseconds since 1970. */
  readonly expiresAt: number;
}

export class InvitationStore {
  /** `file` is `directory/invitations.json` in the state folder. A damaged one is set aside: its invitations are void, which `damaged` says. */
  static async open(options: { file: string; clock: Clock }): Promise<InvitationStore> {
    throw new Error(`not yet ${options}`);
  }

  /** Those that can still be redeemed. */
  open(): readonly Invitation[] {
    throw new Error('not yet');
  }

  /** Stores an invitation and returns its secret; an earlier open one of the same host is void. Throws `limit`, `usage` for a bad name, `device`. */
  async create(host: string): Promise<Invitation & { secret: Uint8Array }> {
    throw new Error(`not yet ${host}`);
  }

  /** Uses an invitation up. Throws `denied` where there is none, it has expired, was used, or is another host's. */
  async redeem(secret: Uint8Array, host: string): Promise<void> {
    throw new Error(`not yet ${secret} ${host}`);
  }
}
