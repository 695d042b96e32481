/** The files that make a machine a host of a cluster, for `netbus init` and `netbus join`: all of them are made, or none. */
import { access } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { CERTIFICATE_MODE, KEY_MODE } from '../directory/identity-files.ts';
import { type NewFile, type NewFolder, type PlacementOptions, placeFiles } from '../directory/placement.ts';
import { COPY_FILE, LIST_FILE, LIST_MODE } from '../directory/signed-directory.ts';
import { CONFIG_FILE_DEFAULT, pkiFolder, RUN_DIR_DEFAULT, STATE_DIR_DEFAULT } from './config-text.ts';
import { directoryFolder } from './directory.ts';
import { LOCK_FILE, lockFolder } from './folder-lock.ts';

const CONFIG_MODE = 0o644;
const CONFIG_FOLDER_MODE = 0o755;
const PRIVATE_FOLDER_MODE = 0o700;
/** One for both verbs: what either of them left in the middle is taken back by whichever comes next. */
const JOURNAL_FILE = '.netbus-setup';

/** As people name them; the usual places where they do not. */
export interface PlaceOptions {
  readonly config?: string;
  readonly runDir?: string;
  readonly stateDir?: string;
}

/** Absolute paths. */
export interface HostPlaces {
  readonly config: string;
  readonly runDir: string;
  readonly stateDir: string;
  readonly pki: string;
  /** Of the member list. */
  readonly directory: string;
}

export interface HostContents {
  /** By name in the folder of keys and certificates, in the order in which people should hear of them. */
  readonly pki: Readonly<Record<string, string | Uint8Array>>;
  readonly config: string | Uint8Array;
  /** The signed member list. */
  readonly list: string | Uint8Array;
}

export function hostPlaces(options: PlaceOptions): HostPlaces {
  const config = resolve(options.config ?? CONFIG_FILE_DEFAULT);
  const stateDir = resolve(options.stateDir ?? STATE_DIR_DEFAULT);
  const runDir = resolve(options.runDir ?? RUN_DIR_DEFAULT);
  return { config, runDir, stateDir, pki: pkiFolder(config), directory: directoryFolder(stateDir) };
}

/** Returns the paths. Throws as `placeFiles`. */
export async function placeHostFiles(
  { config, stateDir, pki, directory }: HostPlaces,
  contents: HostContents,
  options: Omit<PlacementOptions, 'journal' | 'folders' | 'files'> = {},
): Promise<string[]> {
  const files: NewFile[] = [
    ...Object.entries(contents.pki).map(([name, content]) => ({ path: join(pki, name), content, mode: modeOf(name) })),
    { path: config, content: contents.config, mode: CONFIG_MODE },
    { path: join(directory, LIST_FILE), content: contents.list, mode: LIST_MODE },
    { path: join(directory, COPY_FILE), content: contents.list, mode: LIST_MODE },
  ];
  const folders: NewFolder[] = [
    ...parents(stateDir, PRIVATE_FOLDER_MODE),
    { path: directory, mode: PRIVATE_FOLDER_MODE },
    ...parents(dirname(config), CONFIG_FOLDER_MODE),
    { path: pki, mode: PRIVATE_FOLDER_MODE },
  ];
  await placeFiles({ ...options, journal: join(dirname(config), JOURNAL_FILE), folders, files });
  return files.map(({ path }) => path);
}

/** Keeps a daemon that runs on the state from finding another cluster beneath its feet. Throws `in_use` where one runs. */
export async function withState<Result>({ stateDir }: HostPlaces, work: () => Promise<Result>): Promise<Result> {
  // Where no daemon ever ran none is to be kept away, and nothing must be left of a failure.
  const used = await access(join(stateDir, LOCK_FILE)).then(
    () => true,
    () => false,
  );
  const lock = used ? await lockFolder(stateDir, 'state folder', PRIVATE_FOLDER_MODE) : undefined;
  return await work().finally(() => lock?.release());
}

function modeOf(name: string): number {
  return name.endsWith('.key') ? KEY_MODE : CERTIFICATE_MODE;
}

/** The folder and those above it, the topmost first; only the last has `mode`. */
function parents(folder: string, mode: number): NewFolder[] {
  const above = dirname(folder);
  if (above === folder) return [];
  return [...parents(above, CONFIG_FOLDER_MODE), { path: folder, mode }];
}
