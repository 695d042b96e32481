/** `netbus init`: makes a cluster of this one host. All of its files are made, or none. */
import { access } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { NetbusError } from '../device/errors.ts';
import { newAdmission } from '../directory/admission.ts';
import { CERTIFICATE_MODE, KEY_MODE } from '../directory/identity-files.ts';
import { issueHost, issueIssuing, issueRoot } from '../directory/identity-issue.ts';
import { createMemberList } from '../directory/member-list.ts';
import { signMemberList } from '../directory/member-list-signature.ts';
import { checkedAddress, checkName } from '../directory/names.ts';
import { type NewFile, type NewFolder, placeFiles } from '../directory/placement.ts';
import { COPY_FILE, LIST_FILE, LIST_MODE } from '../directory/signed-directory.ts';
import { caFingerprint } from '../directory/token.ts';
import { parseAddress } from '../lib/address.ts';
import type { Clock } from '../lib/clock.ts';
import { CONFIG_FILE_DEFAULT, configText, pkiFolder, RUN_DIR_DEFAULT, STATE_DIR_DEFAULT } from './config-text.ts';
import { directoryFolder } from './directory.ts';
import { lockFolder } from './folder-lock.ts';
import { chooseOwnAddress } from './own-address.ts';

export const CONFIG_MODE = 0o644;
const CONFIG_FOLDER_MODE = 0o755;
const PRIVATE_FOLDER_MODE = 0o700;

export interface InitOptions {
  readonly cluster: string;
  readonly host: string;
  /** HOST or HOST:PORT; this host's one address where it is missing. */
  readonly address?: string;
  readonly config?: string;
  readonly runDir?: string;
  readonly stateDir?: string;
  readonly clock: Clock;
  /** Everything is taken back when it is aborted in the middle. */
  readonly signal?: AbortSignal;
  /** For tests: see `placeFiles`. */
  readonly step?: (name: string) => void;
  /** For tests: instead of this host's own. */
  readonly interfaces?: ReturnType<typeof networkInterfaces>;
}

export interface InitAnswer {
  readonly cluster: string;
  readonly host: string;
  /** HOST:PORT. */
  readonly address: string;
  readonly config: string;
  /** SHA-256 of the root's certificate, hexadecimal. */
  readonly caFingerprint: string;
  /** The root's private key: what may be taken off this host. */
  readonly rootKey: string;
  /** Paths, in the order in which people should hear of them. */
  readonly files: readonly string[];
}

/** Throws `usage` for names and addresses, `in_use` where something is there already, `denied` where this user may not write, `device`; nothing is left then. */
export async function initCluster(options: InitOptions): Promise<InitAnswer> {
  const { cluster, host, clock } = options;
  checkName('cluster', cluster);
  checkName('host', host);
  const address = checkedAddress(options.address ?? chooseOwnAddress(options.interfaces ?? networkInterfaces()));
  const config = resolve(options.config ?? CONFIG_FILE_DEFAULT);
  const runDir = resolve(options.runDir ?? RUN_DIR_DEFAULT);
  const stateDir = resolve(options.stateDir ?? STATE_DIR_DEFAULT);
  const pki = pkiFolder(config);
  const place = (name: string) => join(pki, name);
  const state = directoryFolder(stateDir);

  const root = await issueRoot({ cluster, clock });
  const issuing = await issueIssuing({ root, cluster, clock });
  const admission = newAdmission();
  const own = await issueHost({ authority: issuing, cluster, host, admission, clock });
  const { bytes } = signMemberList(createMemberList(cluster, { host, address, admission, now: clock.wallTime() }), issuing);
  const text = configText({ file: config, cluster, host, address: parseAddress(address)!, runDir, stateDir });

  const files: NewFile[] = [
    { path: place('ca.crt'), content: root.certificate, mode: CERTIFICATE_MODE },
    { path: place('ca.key'), content: root.key, mode: KEY_MODE },
    { path: place('issuing.crt'), content: issuing.certificate, mode: CERTIFICATE_MODE },
    { path: place('issuing.key'), content: issuing.key, mode: KEY_MODE },
    { path: place('host.crt'), content: own.certificate, mode: CERTIFICATE_MODE },
    { path: place('host.key'), content: own.key, mode: KEY_MODE },
    { path: config, content: text, mode: CONFIG_MODE },
    { path: join(state, LIST_FILE), content: bytes, mode: LIST_MODE },
    { path: join(state, COPY_FILE), content: bytes, mode: LIST_MODE },
  ];
  const folders = newFolders(config, stateDir);
  const release = await lockState(stateDir);
  try {
    const journal = join(dirname(config), '.netbus-init');
    const { signal, step } = options;
    await placeFiles({ journal, folders, files, ...(signal && { signal }), ...(step && { step }) }).catch((thrown) => {
      throw withAdvice(thrown, [dirname(config), stateDir]);
    });
  } finally {
    await release?.();
  }
  return {
    cluster,
    host,
    address,
    config,
    caFingerprint: Buffer.from(caFingerprint(root.certificate)).toString('hex'),
    rootKey: place('ca.key'),
    files: files.map(({ path }) => path),
  };
}

/** A daemon that runs on it must not find another cluster beneath its feet. */
export async function lockState(stateDir: string): Promise<(() => Promise<void>) | undefined> {
  const used = await access(join(stateDir, 'lock')).then(
    () => true,
    () => false,
  );
  return used ? lockFolder(stateDir, 'state folder', PRIVATE_FOLDER_MODE) : undefined;
}

/** The folders of a host: with the state, the member list, the config and the keys. */
export function newFolders(config: string, stateDir: string): NewFolder[] {
  return [
    ...parents(stateDir, PRIVATE_FOLDER_MODE),
    { path: directoryFolder(stateDir), mode: PRIVATE_FOLDER_MODE },
    ...parents(dirname(config), CONFIG_FOLDER_MODE),
    { path: pkiFolder(config), mode: PRIVATE_FOLDER_MODE },
  ];
}

/** The folder and those above it, the topmost first; only the last has `mode`. */
function parents(folder: string, mode: number): NewFolder[] {
  const above = dirname(folder);
  if (above === folder) return [];
  return [...parents(above, CONFIG_FOLDER_MODE), { path: folder, mode }];
}

function withAdvice(thrown: unknown, folders: readonly string[]): unknown {
  if (!(thrown instanceof NetbusError) || thrown.code !== 'in_use') return thrown;
  const advice = `this host was set up before; to begin anew, stop its daemon and move ${folders.join(' and ')} away`;
  return new NetbusError('in_use', `${thrown.message}; ${advice}`, { cause: thrown });
}
