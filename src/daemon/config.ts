/**
 * The config file of a host's daemon: YAML, checked once, here, and trusted afterwards. A mistake becomes one line for people: file and line,
 * what is wrong, what is allowed; all mistakes of a file are told at once.
 */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { NetbusError } from '../device/errors.ts';
import { ADDRESS_RULE, type Address, DEFAULT_PORT, parseAddress } from '../lib/address.ts';
import { BUSY_POLL_US_DEFAULT } from '../lib/busy-poll.ts';
import { isNetbusName, NAME_CHARACTERS_MAX } from '../protocols/netbus/names.ts';
import { CONFIG_BYTES_MAX, YamlText } from './yaml-text.ts';

/** Several of the largest requests fit. */
const WRITE_LOG_BYTES_MIN = 16 * 1024 * 1024;
const WRITE_LOG_BYTES_DEFAULT = 256 * 1024 * 1024;
const WRITE_LOG_BYTES_MAX = 4 * 1024 * 1024 * 1024;

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type LogLevel = (typeof logLevels)[number];

/** A daemon's config, complete: defaults are filled in and paths are absolute. */
export interface Config {
  /** The file it came from. */
  readonly file: string;
  readonly cluster: string;
  /** This host. */
  readonly host: string;
  readonly listen: Address;
  /** All members of the cluster, this host among them; undefined: those of the signed member list in the state folder. */
  readonly hosts: ReadonlyMap<string, Address> | undefined;
  readonly pki: {
    readonly ca: string;
    readonly certificate: string;
    readonly key: string;
    /** The issuing CA's certificate and key: only on the host that invites and renews, where both files are. */
    readonly issuing: { readonly certificate: string; readonly key: string };
  };
  readonly runDir: string;
  readonly stateDir: string;
  /** Group of the devices' sockets; undefined: kvm where it is there. */
  readonly deviceGroup: string | undefined;
  readonly log: { readonly level: LogLevel };
  /** Longest time awake for one reply or one request of a guest, in microseconds; 0: never. */
  readonly busyPollUs: number;
  /** Bytes of data of each attachment's write log. */
  readonly writeLogBytes: number;
}

/** Clusters and hosts: their names are part of certificates. */
const memberNameSchema = z.string().refine(isNetbusName, {
  message: `a name of a cluster or host has 1 to ${NAME_CHARACTERS_MAX} of a-z, 0-9 and "-", and begins and ends with a letter or digit`,
});

const addressSchema = z.string().transform((text, context): Address => {
  const address = parseAddress(text);
  if (address !== undefined) return address;
  context.addIssue({ code: 'custom', message: `"${text}" is not an address; ${ADDRESS_RULE}` });
  return z.NEVER;
});

const pathSchema = z.string().min(1, 'a path has at least one character').max(4096);

/** What each key is for stands with it, because netbus.yaml(5) is made of it. */
export const configSchema = z.strictObject({
  cluster: memberNameSchema.describe('name of the cluster, as in the certificates'),
  host: memberNameSchema.describe('name of this host'),
  listen: addressSchema
    .default({ host: '0.0.0.0', port: DEFAULT_PORT })
    .describe('where other hosts connect to, HOST or HOST:PORT; `0.0.0.0:7443` by default'),
  hosts: z
    .record(
      memberNameSchema,
      z.strictObject({ address: addressSchema.describe('where a host is, HOST or HOST:PORT; port 7443 by default') }),
    )
    .optional()
    .describe(
      'all members of the cluster by their names, this host too; the signed member list of the state folder by default',
    ),
  pki: z
    .strictObject({
      ca: pathSchema.optional().describe("certificate of the cluster's CA; `/etc/netbus/pki/ca.crt` by default"),
      certificate: pathSchema.optional().describe('certificate of this host; `/etc/netbus/pki/host.crt` by default'),
      key: pathSchema.optional().describe('its key, in a file that others may not read; `/etc/netbus/pki/host.key` by default'),
      issuingCertificate: pathSchema
        .optional()
        .describe(
          'on the issuing host, the certificate that issues others; `issuing.crt` beside the certificate of this host by default',
        ),
      issuingKey: pathSchema.optional().describe('its key; `issuing.key` beside the certificate of this host by default'),
    })
    .default({}),
  runDir: pathSchema
    .default('/run/netbus')
    .describe('folder of the sockets, which must outlive the daemon and end with the host; `/run/netbus` by default'),
  stateDir: pathSchema
    .default('/var/lib/netbus')
    .describe('folder of what must outlive the host; `/var/lib/netbus` by default'),
  deviceGroup: z
    .string()
    .min(1, 'a group has a name')
    .max(32, "a group's name has at most 32 characters")
    .optional()
    .describe(
      "group whose members may use the sockets of virtual devices: the one of the VMM's user; `kvm` by default, where it is in /etc/group and the daemon is root's",
    ),
  log: z
    .strictObject({
      level: z
        .enum(logLevels)
        .default('info')
        .describe(`how much is said: ${logLevels.map((level) => `\`${level}\``).join(', ')}; \`info\` by default`),
    })
    .default({ level: 'info' }),
  busyPollUs: z
    .int()
    .min(0)
    .max(1000)
    .default(BUSY_POLL_US_DEFAULT)
    .describe(
      `longest time in microseconds that the daemon stays awake for one reply or one request, 0 to 1000; \`${BUSY_POLL_US_DEFAULT}\` by default`,
    ),
  writeLogBytes: z
    .int()
    .min(WRITE_LOG_BYTES_MIN)
    .max(WRITE_LOG_BYTES_MAX)
    .default(WRITE_LOG_BYTES_DEFAULT)
    .describe(
      'most bytes of writes that no flush covers yet, kept in memory (in the run folder) for each device of another host, 16 MiB to 4 GiB; `268435456` by default',
    ),
});

/** Reads and checks the file. Throws `config` with one line per mistake, `not_found` or `denied` where it cannot be read. */
export function loadConfig(file: string): Config {
  return parseConfig(file, readText(file));
}

/** Relative paths in `text` are relative to the folder of `file`. */
export function parseConfig(file: string, text: string): Config {
  const yaml = new YamlText(file, text);
  const parsed = yaml.parse(configSchema);
  checkMembers(yaml, parsed);
  const folder = dirname(resolve(file));
  const path = (value: string) => resolve(folder, value);
  const { cluster, host, listen, hosts, pki, runDir, stateDir, deviceGroup, log, busyPollUs, writeLogBytes } = parsed;
  const certificate = path(pki.certificate ?? '/etc/netbus/pki/host.crt');
  return {
    file,
    cluster,
    host,
    listen,
    hosts: hosts && new Map(Object.entries(hosts).map(([name, entry]) => [name, entry.address])),
    pki: {
      ca: path(pki.ca ?? '/etc/netbus/pki/ca.crt'),
      certificate,
      key: path(pki.key ?? '/etc/netbus/pki/host.key'),
      // Beside the host's own, so that a config that moves those moves all.
      issuing: {
        certificate: path(pki.issuingCertificate ?? join(dirname(certificate), 'issuing.crt')),
        key: path(pki.issuingKey ?? join(dirname(certificate), 'issuing.key')),
      },
    },
    runDir: path(runDir),
    stateDir: path(stateDir),
    deviceGroup,
    log,
    busyPollUs,
    writeLogBytes,
  };
}

function readText(file: string): string {
  try {
    const bytes = readFileSync(file);
    if (bytes.length <= CONFIG_BYTES_MAX) return bytes.toString('utf8');
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT')
      throw new NetbusError(
        'not_found',
        `there is no config file ${file}: "netbus init" or "netbus join TOKEN" makes it; or name another one with --config`,
      );
    if (code === 'EACCES') throw new NetbusError('denied', `the config file ${file} may not be read by this user`);
    throw new NetbusError('config', `the config file ${file} cannot be read: ${message}`, { cause: thrown });
  }
  throw new NetbusError('config', `${file}: the file is too long; a config file has at most ${CONFIG_BYTES_MAX} bytes`);
}

/** What no single field can know. */
function checkMembers(yaml: YamlText, { host, hosts }: z.infer<typeof configSchema>): void {
  if (hosts === undefined) return;
  const names = Object.keys(hosts);
  const problems: string[] = [];
  if (!Object.hasOwn(hosts, host)) {
    const allowed = names.length === 0 ? 'hosts is empty' : `hosts has ${names.join(', ')}`;
    problems.push(yaml.problem(['host'], `host: "${host}" is not among the hosts; ${allowed}`));
  }
  const seen = new Map<string, string>();
  for (const name of names) {
    const { address } = hosts[name];
    const key = `${address.host.toLowerCase()} ${address.port}`;
    const other = seen.get(key);
    if (other === undefined) seen.set(key, name);
    else
      problems.push(
        yaml.problem(['hosts', name, 'address'], `hosts.${name}.address: ${other} has the same address; each host has its own`),
      );
  }
  if (problems.length > 0) throw new NetbusError('config', problems.join('\n'));
}
