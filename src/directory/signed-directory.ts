/** The embedded directory: the signed member list, kept in the state folder. */
import type { CertificateFacts, Directory, DirectoryChange, Member } from './directory.ts';
import type { SignedList } from './member-list.ts';

/** A file of the folder that could not be used; it was set aside under `keptAs`. */
export interface DamagedList {
  readonly file: string;
  readonly keptAs: string;
  readonly reason: string;
}

export interface SignedDirectoryOptions {
  /** `directory` in the state folder; made where it is missing. */
  readonly folder: string;
  readonly cluster: string;
  /** The root's certificate, PEM. */
  readonly ca: string;
  readonly clock: { wallTime(): number };
}

export class SignedDirectory implements Directory {
  /** What was set aside by `open`, for the log. With both copies damaged there is no list until `accept` gets one. */
  readonly damaged: readonly DamagedList[];

  private constructor(damaged: readonly DamagedList[]) {
    this.damaged = damaged;
  }

  /** Reads the list that is stored. Throws `device` or `denied` where the folder cannot be used. */
  static async open(options: SignedDirectoryOptions): Promise<SignedDirectory> {
    throw new Error(`not yet ${options}`);
  }

  members(): ReadonlyMap<string, Member> {
    throw new Error('not yet');
  }

  list(): SignedList | undefined {
    throw new Error('not yet');
  }

  async accept(bytes: Uint8Array): Promise<'newer' | 'known'> {
    throw new Error(`not yet ${bytes}`);
  }

  onChange(listener: (change: DirectoryChange) => void): () => void {
    throw new Error(`not yet ${listener}`);
  }

  admits(host: string, certificate: CertificateFacts): string | undefined {
    throw new Error(`not yet ${host} ${certificate}`);
  }
}
