/** A cluster for tests and the demo: hosts, a CA with a certificate for each of them, a config file and a daemon each. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ControlClient, controlSocket } from '../../src/api/client.ts';
import type { AttachmentEntry } from '../../src/api/types.ts';
import { writeAuthority, writeIdentity } from '../../src/directory/identity-files.ts';
import { type IssuedIdentity, issueAuthority, issueHost } from '../../src/directory/identity-issue.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { Cleanup } from './cleanup.ts';
import { createHosts, type Host, type HostKind, type Hosts } from './hosts.ts';
import { type RunningProcess, type RunResult, run } from './process.ts';
import { netbusProgram } from './program.ts';
import { waitFor, waitForListener } from './wait.ts';

export { netbusProgram };

const PORT = 7443;

/** Generous: they end a test that hangs and say nothing about speed. */
const DAEMON_START_MS_MAX = 60_000;
const VERB_MS_MAX = 120_000;

export interface ClusterOptions {
  cleanup: Cleanup;
  kind?: HostKind;
  /** The cluster's name; `lab` by default. */
  name?: string;
  /** Whether every host's daemon is started; true by default. */
  start?: boolean;
  /** Whether hosts get certificates and configs; true by default. The demo makes them by the commands of a user. */
  configure?: boolean;
}

/** Makes hosts of these names with all that a daemon needs, and starts the daemons. */
export async function startCluster(names: readonly string[], options: ClusterOptions): Promise<Cluster> {
  const hosts = await createHosts(names, options.cleanup, options.kind);
  const name = options.name ?? 'lab';
  const authority = await issueAuthority({ cluster: name, clock: systemClock });
  const cluster = new Cluster(name, hosts, authority);
  if (options.configure !== false) for (const host of hosts.all) await cluster.configure(host);
  if (options.start !== false) await Promise.all(hosts.all.map((host) => cluster.startDaemon(host)));
  return cluster;
}

export class Cluster {
  readonly name: string;
  readonly hosts: Hosts;
  readonly #authority: IssuedIdentity;
  readonly #daemons = new Map<string, RunningProcess>();

  constructor(name: string, hosts: Hosts, authority: IssuedIdentity) {
    this.name = name;
    this.hosts = hosts;
    this.#authority = authority;
  }

  host(name: string): Host {
    return this.hosts.get(name);
  }

  /** The running daemon of a host. */
  daemon(name: string): RunningProcess {
    const daemon = this.#daemons.get(name);
    if (daemon === undefined) throw new Error(`no daemon was started on ${name}`);
    return daemon;
  }

  configPath(host: Host): string {
    return join(host.folder, 'netbus.yaml');
  }

  logPath(host: Host): string {
    return join(host.folder, 'daemon.log');
  }

  /** Writes a host's certificate (of `authority`, the cluster's own by default) and its config file. */
  async configure(host: Host, authority: IssuedIdentity = this.#authority): Promise<void> {
    const pki = (file: string) => join(host.folder, 'pki', file);
    const identity = await issueHost({ authority, cluster: this.name, host: host.name, clock: systemClock });
    await writeAuthority(pki('ca.crt'), authority.certificate);
    await writeIdentity({ certificate: pki('host.crt'), key: pki('host.key') }, identity);
    writeFileSync(this.configPath(host), this.config(host));
  }

  /** The text of a host's config file. */
  config(host: Host): string {
    return [
      `cluster: ${this.name}`,
      `host: ${host.name}`,
      `listen: ${host.address}:${PORT}`,
      'hosts:',
      ...this.hosts.all.map(({ name, address }) => `  ${name}: { address: "${address}:${PORT}" }`),
      'pki: { ca: pki/ca.crt, certificate: pki/host.crt, key: pki/host.key }',
      '',
    ].join('\n');
  }

  /** The command line of a host's daemon, as a user would type it there (without the program's own path). */
  daemonArguments(host: Host): string[] {
    return ['daemon', '--config', this.configPath(host), ...this.folderArguments(host)];
  }

  /** The folders of a host that has not the usual ones. */
  folderArguments(host: Host): string[] {
    return host.kind === 'namespace' ? [] : ['--run-dir', host.runDir, '--state-dir', host.stateDir];
  }

  /** Starts a host's daemon and waits until its control socket answers. */
  async startDaemon(host: Host, program: readonly string[] = netbusProgram()): Promise<RunningProcess> {
    const daemon = host.spawn([...program, ...this.daemonArguments(host)], { logPath: this.logPath(host) });
    this.#daemons.set(host.name, daemon);
    const listening = waitForListener(controlSocket(host.runDir), daemon.pid, DAEMON_START_MS_MAX);
    const ended = daemon.exited.then(() => {
      throw new Error(`the daemon of ${host.name} ended at its start: ${daemon.stderr.trim()}`);
    });
    await Promise.race([listening, ended]);
    return daemon;
  }

  /** Ends a host's daemon as an operator does. */
  async stopDaemon(host: Host): Promise<void> {
    await this.daemon(host.name).stop();
    this.#daemons.delete(host.name);
  }

  /** Runs `netbus ARGV` on a host; any exit is a result. */
  netbus(hostName: string, ...argv: readonly string[]): Promise<RunResult> {
    const host = this.host(hostName);
    const env: Record<string, string> = host.kind === 'namespace' ? {} : { NETBUS_RUN_DIR: host.runDir };
    return run(host.command([...netbusProgram(), ...argv]), { env, timeoutMs: VERB_MS_MAX });
  }

  /** As `netbus`, with --json: its answer. Throws unless it ends with 0. */
  async ask<Answer>(hostName: string, ...argv: readonly string[]): Promise<Answer> {
    const { status, stdout, stderr } = await this.netbus(hostName, ...argv, '--json');
    if (status !== 0) throw new Error(`netbus ${argv.join(' ')} on ${hostName} ended with ${status}: ${stderr.trim()}`);
    return JSON.parse(stdout) as Answer;
  }

  /** A client of a host's daemon in this process, for what is asked again and again. */
  client(hostName: string): ControlClient {
    const host = this.host(hostName);
    return new ControlClient({ socketPath: host.path(controlSocket(host.runDir)) });
  }

  /** Waits until an attachment of a host is as `wanted` says. Returns it. */
  waitForAttachment(
    hostName: string,
    attachment: string,
    wanted: (entry: AttachmentEntry) => boolean,
    timeoutMs?: number,
  ): Promise<AttachmentEntry> {
    return waitFor(
      `${attachment} on ${hostName}`,
      async () => {
        const { attachments } = await this.client(hostName).status();
        const entry = attachments.find(({ vm, name }) => `${vm}/${name}` === attachment);
        return entry !== undefined && wanted(entry) ? entry : undefined;
      },
      timeoutMs,
    );
  }
}
