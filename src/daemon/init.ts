/** `netbus init`: makes a cluster of this one host. All of its files are made, or none. */
import { networkInterfaces } from 'node:os';
import { dirname, join } from 'node:path';
import { newAdmission } from '../directory/admission.ts';
import { issueHost, issueIssuing, issueRoot } from '../directory/identity-issue.ts';
import { createMemberList } from '../directory/member-list.ts';
import { signMemberList } from '../directory/member-list-signature.ts';
import { checkedAddress, checkName } from '../directory/names.ts';
import { caFingerprint } from '../directory/token.ts';
import { parseAddress } from '../lib/address.ts';
import type { Clock } from '../lib/clock.ts';
import { configText } from './config-text.ts';
import { hostPlaces, type PlaceOptions, placeHostFiles, withState } from './host-files.ts';
import { chooseOwnAddress } from './own-address.ts';

export interface InitOptions extends PlaceOptions {
  readonly cluster: string;
  readonly host: string;
  /** HOST or HOST:PORT; this host's one address where it is missing. */
  readonly address?: string;
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
  const places = hostPlaces(options);
  const { config, runDir, stateDir, pki } = places;

  const root = await issueRoot({ cluster, clock });
  const issuing = await issueIssuing({ root, cluster, clock });
  const admission = newAdmission();
  const own = await issueHost({ authority: issuing, cluster, host, admission, clock });
  const { bytes } = signMemberList(createMemberList(cluster, { host, address, admission, now: clock.wallTime() }), issuing);
  const contents = {
    pki: {
      'ca.crt': root.certificate,
      'ca.key': root.key,
      'issuing.crt': issuing.certificate,
      'issuing.key': issuing.key,
      'host.crt': own.certificate,
      'host.key': own.key,
    },
    config: configText({ file: config, cluster, host, address: parseAddress(address)!, runDir, stateDir }),
    list: bytes,
  };
  const { signal, step } = options;
  const ifTaken = `this host was set up before; to begin anew, stop its daemon and move ${dirname(config)} and ${stateDir} away`;
  const files = await withState(places, () =>
    placeHostFiles(places, contents, { ifTaken, ...(signal && { signal }), ...(step && { step }) }),
  );
  return {
    cluster,
    host,
    address,
    config,
    caFingerprint: Buffer.from(caFingerprint(root.certificate)).toString('hex'),
    rootKey: join(pki, 'ca.key'),
    files,
  };
}
