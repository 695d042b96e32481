/** The folder and the socket of a virtual device: who may use them. They are in /run, which is memory: nothing to wait for. */
import { chmodSync, chownSync, mkdirSync, rmdirSync } from 'node:fs';
import { vmFolder } from './paths.ts';

/** The VMM's user gets at the socket through its group; nobody else does. */
export const SOCKET_MODE = 0o660;
const FOLDER_MODE = 0o750;
/** -1 of chown(2): the owner stays. */
const SAME_OWNER = -1;

export interface DeviceFilesOptions {
  readonly runDir: string;
  readonly vm: string;
  readonly group: number | undefined;
  /** A file that stays the daemon's own group's lets in fewer and never more. */
  readonly onNotGiven: (reason: string) => void;
}

export class DeviceFiles {
  readonly #options: DeviceFilesOptions;

  constructor(options: DeviceFilesOptions) {
    this.#options = options;
  }

  makeFolder(): void {
    const { runDir, vm } = this.#options;
    const folder = vmFolder(runDir, vm);
    mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
    this.giveToGroup(folder);
    chmodSync(folder, FOLDER_MODE);
  }

  giveToGroup(path: string): void {
    const { group, onNotGiven } = this.#options;
    if (group === undefined) return;
    try {
      chownSync(path, SAME_OWNER, group);
    } catch (thrown) {
      onNotGiven((thrown as Error).message);
    }
  }

  /** Other devices of the VM may be there, and what is kept for this one. */
  removeFolder(): void {
    const { runDir, vm } = this.#options;
    try {
      rmdirSync(vmFolder(runDir, vm));
    } catch {
      // Not empty, or gone.
    }
  }
}
