/** The config file that `netbus init` and `netbus join` write: what has to be said, and every other key explained, with its default. */

import { isIPv6 } from 'node:net';
import { dirname, join } from 'node:path';
import { type Address, DEFAULT_PORT, formatAddress } from '../lib/address.ts';
import { BUSY_POLL_US_DEFAULT } from '../lib/busy-poll.ts';

export const CONFIG_FILE_DEFAULT = '/etc/netbus/netbus.yaml';
export const RUN_DIR_DEFAULT = '/run/netbus';
export const STATE_DIR_DEFAULT = '/var/lib/netbus';
export const PKI_DIR_DEFAULT = '/etc/netbus/pki';

export interface ConfigText {
  /** Where the text will be: its certificates are in `pki` beside it. */
  readonly file: string;
  readonly cluster: string;
  readonly host: string;
  /** Where other hosts reach this one: its port and family are those to listen at. */
  readonly address: Address;
  readonly runDir: string;
  readonly stateDir: string;
}

/** The folder of a host's certificates and keys. */
export function pkiFolder(configFile: string): string {
  return join(dirname(configFile), 'pki');
}

export function configText({ file, cluster, host, address, runDir, stateDir }: ConfigText): string {
  const listen = listenFor(address);
  const pki = pkiFolder(file);
  return `# The config of this host's Netbus daemon; "man netbus.yaml" has more. A change takes a restart of the daemon.
# What stands behind a # is the default.

# The cluster and this host, as in this host's certificate.
cluster: ${cluster}
host: ${host}

# Where this host listens for the others: ADDRESS:PORT. They reach it at ${formatAddress(address)}, as the member list says.
${setting('listen', quoted(listen), listen === `0.0.0.0:${DEFAULT_PORT}`)}

# The hosts of the cluster. Without it they are those of the signed member list, which "netbus invite", "join" and "evict" change and which spreads
# by itself. Only for certificates of a CA of your own: name all hosts here, this one too, on every host.
# hosts:
#   ${host}: { address: ${quoted(formatAddress(address))} }
#   other: { address: 10.0.0.2 }

# Certificates and keys, PEM. Relative paths begin at this file's folder. The issuing CA is on one host of the cluster only.
${setting('pki', '', pki === PKI_DIR_DEFAULT)}
${indented('ca', `${pki}/ca.crt`, pki)}
${indented('certificate', `${pki}/host.crt`, pki)}
${indented('key', `${pki}/host.key`, pki)}
${indented('issuingCertificate', `${pki}/issuing.crt`, pki)}
${indented('issuingKey', `${pki}/issuing.key`, pki)}

# Sockets: the daemon's own, and one for each virtual device. It must outlive the daemon and end with the host.
${setting('runDir', quoted(runDir), runDir === RUN_DIR_DEFAULT)}

# What must be there after a restart: exports, attachments, the member list.
${setting('stateDir', quoted(stateDir), stateDir === STATE_DIR_DEFAULT)}

# Group whose members may use the virtual devices' sockets, so that QEMU need not be root's; kvm where there is one and the daemon is root's.
# deviceGroup: kvm

# How much is logged: trace, debug, info, warn, error, fatal.
# log: { level: info }

# Longest time in microseconds that the daemon stays awake for one reply or one request, because being woken takes longer; 0: never.
# busyPollUs: ${BUSY_POLL_US_DEFAULT}
`;
}

function indented(key: string, path: string, pki: string): string {
  return setting(`  ${key}`, quoted(path), pki === PKI_DIR_DEFAULT);
}

function setting(key: string, value: string, isDefault: boolean): string {
  return `${isDefault ? '# ' : ''}${key}:${value === '' ? '' : ` ${value}`}`;
}

/** YAML's double quotes are JSON's. */
function quoted(text: string): string {
  return /^[\w./-]+(:\d+)?$/.test(text) ? text : JSON.stringify(text);
}

/**
 * All addresses of the family that others use, so that one more of them needs no new config; of this machine's own (127.0.0.1, ::1) that one alone,
 * because others on this machine may have the next.
 */
function listenFor({ host, port }: Address): string {
  if (host.startsWith('127.') || host === '::1') return formatAddress({ host, port });
  return formatAddress({ host: isIPv6(host) ? '::' : '0.0.0.0', port });
}
