/** Daemons of several hosts in this process, on loopback addresses, each with folders of its own. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ControlClient } from '../../../src/api/client.ts';
import { loadConfig } from '../../../src/daemon/config.ts';
import { type Daemon, type DaemonOptions, startDaemon } from '../../../src/daemon/daemon.ts';
import { writeAuthority, writeIdentity } from '../../../src/directory/identity-files.ts';
import { issueAuthority, issueHost } from '../../../src/directory/identity-issue.ts';
import { type Clock, systemClock } from '../../../src/lib/clock.ts';
import type { Log } from '../../../src/lib/log.ts';
import { freePort } from '../port.ts';
import { TcpProxy } from '../tcp-proxy.ts';

/** A line of a daemon's log. */
export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

export class ClusterHost {
  readonly name: string;
  readonly folder: string;
  readonly client: ControlClient;
  readonly lines: LogLine[] = [];
  /** Of another release: set before `start`. */
  release: Pick<DaemonOptions, 'release' | 'protocol'> = { release: '0.0.0' };
  #daemon: Daemon | undefined;

  constructor(name: string, folder: string) {
    this.name = name;
    this.folder = folder;
    this.client = new ControlClient({ socketPath: join(folder, 'run', 'netbus.sock') });
  }

  get config(): string {
    return join(this.folder, 'netbus.yaml');
  }

  /** `bootId`: another one stands for a reboot of the host. `frontendClock`: see DaemonOptions. */
  async start(bootId?: string, frontendClock: Clock = systemClock): Promise<void> {
    const log = recordLog(this.lines);
    const boot = bootId === undefined ? {} : { bootId };
    const fixed = { config: loadConfig(this.config), log, clock: systemClock, frontendClock, ...this.release };
    this.#daemon = await startDaemon({ ...fixed, ...boot });
  }

  async stop(): Promise<void> {
    await this.#daemon?.close();
    this.#daemon = undefined;
  }

  /** An image file of `bytes`, all holes. */
  image(name: string, bytes: number): string {
    const path = join(this.folder, name);
    writeFileSync(path, '');
    truncateSync(path, bytes);
    return path;
  }
}

export class Cluster {
  readonly folder: string;
  readonly hosts = new Map<string, ClusterHost>();

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Makes certificates and configs; nothing runs yet. */
  static async make(...names: string[]): Promise<Cluster> {
    const cluster = new Cluster(mkdtempSync(join(tmpdir(), 'netbus-')));
    const authority = await issueAuthority({ cluster: 'lab', clock: systemClock });
    const ports = await Promise.all(names.map(() => freePort('127.0.0.1')));
    const members = names.map((name, i) => `  ${name}: { address: "127.0.0.1:${ports[i]}" }\n`).join('');
    for (const [i, name] of names.entries()) {
      const folder = join(cluster.folder, name);
      mkdirSync(folder);
      const identity = await issueHost({ authority, cluster: 'lab', host: name, clock: systemClock });
      await writeIdentity({ certificate: join(folder, 'host.crt'), key: join(folder, 'host.key') }, identity);
      await writeAuthority(join(folder, 'ca.crt'), authority.certificate);
      const own = `cluster: lab\nhost: ${name}\nlisten: "127.0.0.1:${ports[i]}"\nhosts:\n${members}`;
      const pki = 'pki: { ca: ca.crt, certificate: host.crt, key: host.key }\nrunDir: run\nstateDir: state\n';
      writeFileSync(join(folder, 'netbus.yaml'), own + pki);
      cluster.hosts.set(name, new ClusterHost(name, folder));
    }
    return cluster;
  }

  host(name: string): ClusterHost {
    return this.hosts.get(name)!;
  }

  /** Stops all daemons and removes everything. */
  async close(): Promise<void> {
    for (const host of this.hosts.values()) await host.stop();
    rmSync(this.folder, { recursive: true });
  }
}

function recordLog(lines: LogLine[]): Log {
  const to = (level: LogLine['level']) => (fields: object, message: string) => {
    lines.push({ level, message, fields: fields as Record<string, unknown> });
    if (process.env.NETBUS_TEST_LOG) console.error(level, message, fields);
  };
  return { debug: to('debug'), info: to('info'), warn: to('warn'), error: to('error') };
}

/** What `host` says to `peer` goes through the result, which the caller closes; before `host` is started. */
export async function proxyBetween(host: ClusterHost, peer: string): Promise<TcpProxy> {
  const config = readFileSync(host.config, 'utf8');
  const port = Number(new RegExp(`${peer}: \\{ address: "127\\.0\\.0\\.1:(\\d+)"`).exec(config)![1]);
  const proxy = await TcpProxy.listen({ host: '127.0.0.1', port: 0 }, { host: '127.0.0.1', port }, systemClock);
  writeFileSync(host.config, config.replace(`127.0.0.1:${port}`, `127.0.0.1:${proxy.port}`));
  return proxy;
}
