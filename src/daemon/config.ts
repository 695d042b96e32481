/**
 * The config file of a host's daemon: YAML, checked once, here, and trusted afterwards. A mistake becomes one line for people: file and line,
 * what is wrong, what is allowed; all mistakes of a file are told at once.
 */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { NetbusError } from '../device/errors.ts';
import { type Address, DEFAULT_PORT, parseAddress } from '../lib/address.ts';
import { isNetbusName, NAME_CHARACTERS_MAX } from '../protocols/netbus/names.ts';
import { CONFIG_BYTES_MAX, YamlText } from './yaml-text.ts';

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
  readonly log: { readonly level: LogLevel };
}

/** Clusters and hosts: their names are part of certificates. */
const memberNameSchema = z.string().refine(isNetbusName, {
  message: `a name of a cluster or host has 1 to ${NAME_CHARACTERS_MAX} of a-z, 0-9 and "-", and begins and ends with a letter or digit`,
});

const addressSchema = z.string().transform((text, context): Address => {
  const address = parseAddress(text);
  if (address !== undefined) return address;
  const allowed = `an address is HOST or HOST:PORT, with a name, an IPv4 address or an IPv6 address in brackets (port 1 to 65535, ${DEFAULT_PORT} by default)`;
  context.addIssue({ code: 'custom', message: `"${text}" is not an address; ${allowed}` });
  return z.NEVER;
});

const pathSchema = z.string().min(1, 'a path has at least one character').max(4096);

const configSchema = z.strictObject({
  cluster: memberNameSchema,
  host: memberNameSchema,
  listen: addressSchema.default({ host: '0.0.0.0', port: DEFAULT_PORT }),
  hosts: z.record(memberNameSchema, z.strictObject({ address: addressSchema })).optional(),
  pki: z
    .strictObject({
      ca: pathSchema.optional(),
      certificate: pathSchema.optional(),
      key: pathSchema.optional(),
      issuingCertificate: pathSchema.optional(),
      issuingKey: pathSchema.optional(),
    })
    .default({}),
  runDir: pathSchema.default('/run/netbus'),
  stateDir: pathSchema.default('/var/lib/netbus'),
  log: z.strictObject({ level: z.enum(logLevels).default('info') }).default({ level: 'info' }),
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
  const { cluster, host, listen, hosts, pki, runDir, stateDir, log } = parsed;
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
    log,
  };
}

function readText(file: string): string {
  try {
    const bytes = readFileSync(file);
    if (bytes.length <= CONFIG_BYTES_MAX) return bytes.toString('utf8');
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT')
      throw new NetbusError('not_found', `there is no config file ${file}: create it, or name another one`);
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
