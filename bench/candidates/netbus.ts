/**
 * Netbus itself, as a user runs it: two daemons on 127.0.0.1 that know each other by certificates, an export on m1, an attachment on
 * m2, all through the command line.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { writeAuthority, writeIdentity } from '../../src/directory/identity-files.ts';
import { issueAuthority, issueHost } from '../../src/directory/identity-issue.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import { freePort } from '../../test/support/port.ts';
import { type RunningProcess, runOk, startProcess } from '../../test/support/process.ts';
import { waitForListener } from '../../test/support/wait.ts';
import type { Candidate, CandidateContext, RunningCandidate } from './candidate.ts';

const ADDRESS = '127.0.0.1';
const CLUSTER = 'bench';
const HOSTS = ['m1', 'm2'] as const;
const EXPORT = 'disk';
const VM = 'vm';

const PROGRAM = fileURLToPath(new URL('../../dist/netbus.js', import.meta.url));

interface Host {
  readonly name: string;
  readonly runDir: string;
  readonly configPath: string;
}

export const netbus: Candidate = { kind: 'netbus', name: 'netbus', start };

async function start({ cleanup, directory, imagePath, transport }: CandidateContext): Promise<RunningCandidate> {
  if (transport !== 'tls') throw new Error('netbus runs over TLS only: leave it out with --only local,peer');
  if (!existsSync(PROGRAM))
    throw new Error(`${PROGRAM} is missing: run "npm run build", or leave netbus out with --only local,peer`);
  const [device, machine] = await configure(directory);
  const daemons: RunningProcess[] = [];
  for (const host of [device, machine]) daemons.push(await startDaemon(host, cleanup));
  await command(device, ['export', EXPORT, '--disk', imagePath, '--allow', machine.name]);
  const attachment = JSON.parse(await command(machine, ['attach', `${device.name}/${EXPORT}`, '--vm', VM, '--json'])) as {
    socket: string;
  };
  return {
    socketPath: attachment.socket,
    commandLines: [
      ...daemons.map(({ argv }) => argv.join(' ')),
      commandLine(device, ['export', EXPORT, '--disk', imagePath, '--allow', machine.name]).join(' '),
      commandLine(machine, ['attach', `${device.name}/${EXPORT}`, '--vm', VM]).join(' '),
    ],
    pids: daemons.map(({ pid }) => pid),
    stop: async () => {
      for (const daemon of daemons.toReversed()) await daemon.stop();
    },
  };
}

/** Each host's folder: run, state, certificate, key and config. */
async function configure(directory: string): Promise<Host[]> {
  const clock = systemClock;
  const authority = await issueAuthority({ cluster: CLUSTER, clock });
  const members: Record<string, { address: string }> = {};
  for (const name of HOSTS) members[name] = { address: `${ADDRESS}:${await freePort(ADDRESS)}` };
  const hosts: Host[] = [];
  for (const name of HOSTS) {
    const folder = join(directory, name);
    const runDir = join(folder, 'run');
    const stateDir = join(folder, 'state');
    for (const path of [runDir, stateDir]) mkdirSync(path, { recursive: true });
    const pki = { ca: join(folder, 'ca.crt'), certificate: join(folder, 'host.crt'), key: join(folder, 'host.key') };
    await writeAuthority(pki.ca, authority.certificate);
    await writeIdentity(pki, await issueHost({ authority, cluster: CLUSTER, host: name, clock }));
    const configPath = join(folder, 'netbus.yaml');
    const config = { cluster: CLUSTER, host: name, listen: members[name].address, hosts: members, pki, runDir, stateDir };
    writeFileSync(configPath, stringify(config));
    hosts.push({ name, runDir, configPath });
  }
  return hosts;
}

async function startDaemon(host: Host, cleanup: Cleanup): Promise<RunningProcess> {
  const daemon = startProcess([process.execPath, PROGRAM, 'daemon', '--config', host.configPath], cleanup, {
    logPath: join(host.runDir, '..', 'daemon.log'),
  });
  const ended = daemon.exited.then(() => {
    throw new Error(`the daemon of ${host.name} ended: ${daemon.stderr.trim()}`);
  });
  ended.catch(() => {});
  await Promise.race([waitForListener(join(host.runDir, 'netbus.sock'), process.pid), ended]);
  return daemon;
}

function command(host: Host, verb: readonly string[]): Promise<string> {
  return runOk(commandLine(host, verb));
}

function commandLine(host: Host, verb: readonly string[]): string[] {
  return [process.execPath, PROGRAM, '--run-dir', host.runDir, ...verb];
}
