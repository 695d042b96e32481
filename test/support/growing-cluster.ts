/** A cluster that is made as people make it: `netbus init` on the first host, `invite` and `join` for the others. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ControlClient, controlSocket } from '../../src/api/client.ts';
import type { Invitation } from '../../src/api/types.ts';
import type { Cleanup } from './cleanup.ts';
import { netbusProgram } from './cluster.ts';
import { createHosts, type Host, type Hosts } from './hosts.ts';
import { freePort } from './port.ts';
import { type RunningProcess, type RunResult, run } from './process.ts';
import { waitForListener } from './wait.ts';

/** Generous: they end a test that hangs and say nothing about speed. */
const DAEMON_START_MS_MAX = 60_000;
const VERB_MS_MAX = 120_000;

export class GrowingCluster {
  /** Of the latest invitation. */
  token = '';
  readonly #hosts: Hosts;
  readonly #daemons = new Map<string, RunningProcess>();

  /** All of them listen at all addresses of this machine, as their configs say, so each has a port of its own. */
  readonly #ports: ReadonlyMap<string, number>;

  private constructor(hosts: Hosts, ports: ReadonlyMap<string, number>) {
    this.#hosts = hosts;
    this.#ports = ports;
  }

  static async make(names: readonly string[], cleanup: Cleanup): Promise<GrowingCluster> {
    const hosts = await createHosts(names, cleanup, 'loopback');
    const ports = new Map<string, number>();
    for (const name of names) ports.set(name, await freePort('0.0.0.0'));
    return new GrowingCluster(hosts, ports);
  }

  host(name: string): Host {
    return this.#hosts.get(name);
  }

  /** Where its daemon is reached. */
  address(name: string): string {
    return `${this.host(name).address}:${this.#ports.get(name)}`;
  }

  daemon(name: string): RunningProcess {
    return this.#daemons.get(name)!;
  }

  /** What its daemons have logged so far. */
  log(name: string): string {
    const path = this.#logPath(name);
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  async init(name: string, cluster: string): Promise<void> {
    const argv = ['init', '--cluster', cluster, '--host', name, '--address', this.address(name), ...this.#places(name)];
    const { status, stderr } = await this.#run(name, argv);
    if (status !== 0) throw new Error(`netbus init ended with ${status}: ${stderr}`);
  }

  /** Asks the host `by` for a token for `name`. */
  async invite(by: string, name: string): Promise<Invitation> {
    const invitation = await this.ask<Invitation>(by, 'invite', name);
    this.token = invitation.token;
    return invitation;
  }

  join(name: string, token: string): Promise<RunResult> {
    return this.#run(name, ['join', token, '--address', this.address(name), ...this.#places(name)]);
  }

  /** Starts a host's daemon and waits until its control socket answers. */
  async start(name: string): Promise<void> {
    const host = this.host(name);
    const daemon = host.spawn([...netbusProgram(), ...this.#daemonArguments(name)], { logPath: this.#logPath(name) });
    this.#daemons.set(name, daemon);
    const ended = daemon.exited.then(() => {
      throw new Error(`the daemon of ${name} ended at its start: ${daemon.stderr.trim()}`);
    });
    await Promise.race([waitForListener(controlSocket(host.runDir), daemon.pid, DAEMON_START_MS_MAX), ended]);
  }

  /** A daemon that is expected to end at once. */
  tryDaemon(name: string): Promise<RunResult> {
    const other = `${this.host(name).runDir}-2`;
    return this.#run(name, [...this.#daemonArguments(name), '--run-dir', other]);
  }

  async stop(name: string): Promise<void> {
    await this.#daemons.get(name)?.stop();
    this.#daemons.delete(name);
  }

  /** Runs `netbus ARGV` on a host; any exit is a result. */
  netbus(name: string, ...argv: readonly string[]): Promise<RunResult> {
    return this.#run(name, argv);
  }

  /** As `netbus`, with --json: its answer. Throws unless it ends with 0. */
  async ask<Answer>(name: string, ...argv: readonly string[]): Promise<Answer> {
    const { status, stdout, stderr } = await this.#run(name, [...argv, '--json']);
    if (status !== 0) throw new Error(`netbus ${argv.join(' ')} on ${name} ended with ${status}: ${stderr.trim()}`);
    return JSON.parse(stdout) as Answer;
  }

  client(name: string): ControlClient {
    const host = this.host(name);
    return new ControlClient({ socketPath: host.path(controlSocket(host.runDir)) });
  }

  #run(name: string, argv: readonly string[]): Promise<RunResult> {
    const host = this.host(name);
    return run(host.command([...netbusProgram(), ...argv]), { env: { NETBUS_RUN_DIR: host.runDir }, timeoutMs: VERB_MS_MAX });
  }

  #places(name: string): string[] {
    const { folder, stateDir, runDir } = this.host(name);
    return ['--config', join(folder, 'netbus.yaml'), '--state-dir', stateDir, '--run-dir', runDir];
  }

  #daemonArguments(name: string): string[] {
    return ['daemon', '--config', join(this.host(name).folder, 'netbus.yaml')];
  }

  #logPath(name: string): string {
    return join(this.host(name).folder, 'daemon.log');
  }
}
