/** netbus.yaml(5): the keys of the config file, from the schema that checks it. */

import type { z } from 'zod';
import { configSchema } from '../../src/daemon/config.ts';
import { argument, definitions, literal, paragraphs, prose, sentence } from './mdoc.ts';
import { header, type PageOptions, seeAlso } from './page.ts';

const DESCRIPTION = `
The configuration of a host's daemon, netbusd(8), in YAML.
It is checked as a whole before anything is opened; each mistake is one line with file and line number, and a key that is not known is a mistake.
Relative paths begin at the folder of the file.

Exports and attachments are not part of it: netbus(1) makes them, and the daemon keeps them in its state folder.
`;

/** A whole file, which the tests read as the daemon does. */
export const EXAMPLE = `
cluster: lab
host: m2
listen: 0.0.0.0:7443
hosts:
  m1: { address: 10.0.0.1 }
  m2: { address: 10.0.0.2 }
  m3: { address: "[2001:db8::3]:7443" }
pki:
  ca: /etc/netbus/pki/ca.crt
  certificate: /etc/netbus/pki/host.crt
  key: /etc/netbus/pki/host.key
log: { level: info }
`;

/** One key of the file. */
export interface ConfigKey {
  /** `pki.ca`; where the names are the user's, `hosts.NAME.address`. */
  readonly path: string;
  readonly required: boolean;
  /** What the schema says of it; empty where it says nothing, which a test takes for a mistake. */
  readonly description: string;
}

export function configPage(options: PageOptions): string {
  const keys = configKeys();
  return [
    header('netbus.yaml', '5', 'configuration of the Netbus daemon', options),
    '.Sh SYNOPSIS',
    '.Pa /etc/netbus/netbus.yaml',
    '.Sh DESCRIPTION',
    paragraphs(DESCRIPTION),
    '.Pp',
    prose('The keys, where a dot stands for a map in a map and `NAME` for a name of your own:'),
    definitions(keys.map(({ path, required, description }) => [term(path, required), sentence(description)])),
    '.Sh EXAMPLES',
    literal(EXAMPLE),
    seeAlso(['netbus 1', 'netbusd 8']),
  ].join('\n');
}

function term(path: string, required: boolean): string {
  return `Ic ${argument(path)}${required ? ' Pq required' : ''}`;
}

/** All keys that hold a value, and the maps that have something to say of themselves, in the order of the schema. */
export function configKeys(): ConfigKey[] {
  return keysBelow(configSchema, '');
}

/** The parts of a zod schema that matter here. */
interface Definition {
  readonly type: string;
  readonly shape?: Record<string, z.ZodType>;
  readonly innerType?: z.ZodType;
  readonly valueType?: z.ZodType;
  readonly in?: z.ZodType;
}

function keysBelow(schema: z.ZodType, path: string): ConfigKey[] {
  const definition = definitionOf(schema);
  if (definition.innerType !== undefined) return keysBelow(definition.innerType, path);
  if (definition.valueType !== undefined) return keysBelow(definition.valueType, `${path}.NAME`);
  return Object.entries(definition.shape ?? {}).flatMap(([name, child]) => {
    const childPath = path === '' ? name : `${path}.${name}`;
    const below = keysBelow(child, childPath);
    const description = descriptionOf(child);
    const own = { path: childPath, required: !child.safeParse(undefined).success, description };
    return below.length === 0 || description !== '' ? [own, ...below] : below;
  });
}

/** A wrapper (a default, for example) may stand around the schema that was described. */
function descriptionOf(schema: z.ZodType): string {
  const { innerType } = definitionOf(schema);
  return schema.description ?? (innerType === undefined ? '' : descriptionOf(innerType));
}

function definitionOf(schema: z.ZodType): Definition {
  return schema.def as unknown as Definition;
}
