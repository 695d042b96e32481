/** A cluster whose hosts meet through a wire: m1 has devices, m2 runs virtual machines, and m3, where wanted, is a machine that can lose its power. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DeviceHost } from '../guest/device-host.ts';
import type { Cleanup } from './cleanup.ts';
import { type Cluster, startCluster } from './cluster.ts';
import type { Host } from './hosts.ts';
import type { Endpoint } from './tcp-proxy.ts';
import { Wire } from './wire.ts';

const PORT = 7443;
const DISK_MIB = 256;

export interface WiredCluster {
  readonly cluster: Cluster;
  readonly wire: Wire;
  /** Hosts that are machines of their own, by name; not switched on yet. */
  readonly machines: ReadonlyMap<string, DeviceHost>;
}

export interface WiredClusterOptions {
  readonly cleanup: Cleanup;
  /** Hosts of `names` that are machines of their own, and the built program for them. */
  readonly machines?: readonly string[];
  readonly program?: string;
}

/** The name of the path between two hosts. */
export const pathBetween = (one: string, other: string): string => [one, other].toSorted().join('-');

/** Makes hosts, certificates, configs and the wire between each two of them. No daemon runs yet. */
export async function wireCluster(names: readonly string[], options: WiredClusterOptions): Promise<WiredCluster> {
  const { cleanup } = options;
  const cluster = await startCluster([...names, 'wire'], { cleanup, kind: 'namespace', start: false });
  const wire = new Wire(cluster.host('wire'), cleanup);
  const hosts = names.map((name) => cluster.host(name));
  const configs = new Map<string, string>();
  for (const host of hosts) configs.set(host.name, await configText(cluster, wire, hosts, host, isMachine(options, host)));
  for (const host of hosts) writeFileSync(cluster.configPath(host), configs.get(host.name)!);
  const machines = new Map<string, DeviceHost>();
  for (const host of hosts.filter((host) => isMachine(options, host))) {
    if (options.program === undefined) throw new Error('a machine of its own needs the built program');
    const pki = ['ca.crt', 'host.crt', 'host.key'].map((file) => `pki/${file}`);
    const files = new Map(pki.map((file) => [file, readFileSync(join(host.folder, file), 'utf8')]));
    files.set('netbus.yaml', configs.get(host.name)!);
    const { program } = options;
    machines.set(host.name, await DeviceHost.create({ host, cleanup, program, files, port: PORT, diskMiB: DISK_MIB }));
  }
  return { cluster, wire, machines };
}

function isMachine({ machines = [] }: WiredClusterOptions, { name }: Host): boolean {
  return machines.includes(name);
}

/** To each other host through the wire. */
async function configText(
  cluster: Cluster,
  wire: Wire,
  hosts: readonly Host[],
  own: Host,
  ownMachine: boolean,
): Promise<string> {
  const lines: string[] = [];
  for (const { name, address } of hosts) {
    const direct: Endpoint = { host: address, port: PORT };
    const { host, port } = name === own.name ? direct : await wire.to(pathBetween(own.name, name), direct);
    lines.push(`  ${name}: { address: "${host}:${port}" }`);
  }
  return [
    `cluster: ${cluster.name}`,
    `host: ${own.name}`,
    `listen: ${ownMachine ? '0.0.0.0' : own.address}:${PORT}`,
    'hosts:',
    ...lines,
    'pki: { ca: pki/ca.crt, certificate: pki/host.crt, key: pki/host.key }',
    // An emulated processor is too slow to wait awake.
    ...(ownMachine ? ['busyPollUs: 0'] : []),
    '',
  ].join('\n');
}
