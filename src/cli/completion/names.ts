/**
 * `netbus __complete [--run-dir DIR] [--socket PATH] KIND [--] [PREFIX]`, hidden: what the completion scripts ask. One candidate a line, a tab and
 * a description behind it. It never fails, never starts anything and never takes long: where the daemon is away there are no names.
 */
import { parseArgs } from 'node:util';
import { ControlClient, controlSocket, RUN_DIR_DEFAULT } from '../../api/client.ts';
import type { JobEntry } from '../../api/jobs.ts';
import type { DeviceEntry, Status } from '../../api/types.ts';
import { formatBytes } from '../../lib/format.ts';
import type { NameKind } from './kinds.ts';

/** Somebody waits for the Tab key: a daemon that needs longer is as good as away. */
const ANSWER_MS_MAX = 1_000;
/** Hosts that do not answer the daemon in this time are left out, so that its answer comes in ours. */
const HOSTS_MS_MAX = 500;
/** More than anybody reads; a shell asks before it shows a hundred. */
const CANDIDATES_MAX = 1_000;

/** What our names are made of. The text goes into a shell: anything else is not shown to it. */
const PLAIN = /^[A-Za-z0-9._/:,=-]+$/;

interface Candidate {
  readonly name: string;
  readonly description: string;
}

/** Resolves to the text for stdout; empty where there is nothing to offer, for whatever reason. */
export async function completeNames(argv: readonly string[]): Promise<string> {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: { 'run-dir': { type: 'string' }, socket: { type: 'string' } },
    });
    const [kind, prefix = ''] = positionals;
    const client = clientOf({ socket: values.socket, runDir: values['run-dir'] });
    return textOf(await candidates(client, kind as NameKind, prefix), prefix);
  } catch {
    return '';
  }
}

/** All names of a kind; none where the daemon does not answer. */
export async function knownNames(kind: NameKind, where: DaemonPlace): Promise<string[]> {
  try {
    return (await candidates(clientOf(where), kind, '')).map(({ name }) => name);
  } catch {
    return [];
  }
}

interface DaemonPlace {
  readonly socket?: string | undefined;
  readonly runDir?: string | undefined;
}

function clientOf({ socket, runDir }: DaemonPlace): ControlClient {
  const folder = runDir || process.env.NETBUS_RUN_DIR || RUN_DIR_DEFAULT;
  return new ControlClient({ socketPath: socket || controlSocket(folder), timeoutMs: ANSWER_MS_MAX });
}

async function candidates(client: ControlClient, kind: NameKind, prefix: string): Promise<Candidate[]> {
  switch (kind) {
    case 'device':
      return (await devices(client)).map(describeDevice);
    case 'host':
      return hosts(await client.status());
    case 'hosts':
      return hostList(hosts(await client.status()), prefix);
    case 'export':
      return (await client.status()).exports.map(({ name, device }) => ({ name, description: device }));
    case 'attachment':
      return (await client.status()).attachments.map(({ vm, name, device }) => ({
        name: `${vm}/${name}`,
        description: device,
      }));
    case 'vm':
      return vms(await client.status());
    case 'job':
      return (await client.jobs()).jobs.map(describeJob).reverse();
    case 'follow':
      return followers(await client.status(), await devices(client));
    default:
      return [];
  }
}

/** A daemon of an older release lists its hosts in its own time, which may be too long. */
async function devices(client: ControlClient): Promise<DeviceEntry[]> {
  return (await client.devices({ withinMs: HOSTS_MS_MAX })).devices;
}

function describeDevice({ host, name, capacityBytes, readOnly, usedBy }: DeviceEntry): Candidate {
  const use = usedBy.length > 0 ? `, used by ${usedBy.join(' ')}` : '';
  return { name: `${host}/${name}`, description: `${formatBytes(capacityBytes)}${readOnly ? ', read-only' : ''}${use}` };
}

function hosts({ host, address, links }: Status): Candidate[] {
  const others = links.map((link) => ({ name: link.host, description: link.address }));
  return [{ name: host, description: `${address}, this host` }, ...others];
}

/** `m1,m2,…`: each candidate is the whole list with one more host, of those that are not in it yet. */
function hostList(all: readonly Candidate[], prefix: string): Candidate[] {
  const before = prefix.split(',').slice(0, -1);
  const left = all.filter(({ name }) => !before.includes(name));
  return left.map(({ name, description }) => ({ name: [...before, name].join(','), description }));
}

function vms({ attachments }: Status): Candidate[] {
  const names = new Map<string, string[]>();
  for (const { vm, name } of attachments) names.set(vm, [...(names.get(vm) ?? []), name]);
  return [...names].map(([name, has]) => ({ name, description: `has ${has.join(', ')}` }));
}

/** The newest are meant most often. */
function describeJob({ id, vm, name, to, state }: JobEntry): Candidate {
  return { name: id, description: `${vm}/${name} to ${to}, ${state}` };
}

/** `DISK=HOST/EXPORT`: each disk of a VM with each device that is free. */
function followers({ attachments }: Status, all: readonly DeviceEntry[]): Candidate[] {
  const disks = [...new Set(attachments.map(({ name }) => name))];
  const free = all.filter(({ readOnly, usedBy }) => !readOnly && usedBy.length === 0).map(describeDevice);
  return disks.flatMap((disk) => free.map(({ name, description }) => ({ name: `${disk}=${name}`, description })));
}

function textOf(all: readonly Candidate[], prefix: string): string {
  const shown = all.filter(({ name }) => name.startsWith(prefix) && PLAIN.test(name)).slice(0, CANDIDATES_MAX);
  return shown.map(({ name, description }) => `${name}\t${plainText(description)}\n`).join('');
}

/** One line without control characters. */
function plainText(text: string): string {
  return text.replace(/[\p{Cc}\s]+/gu, ' ').slice(0, 100);
}
