/** What a daemon must not have more of after a fault than before: descriptors, sessions, memory. */
import { readdirSync, readFileSync } from 'node:fs';
import type { Cluster } from '../../test/support/cluster.ts';
import { waitFor } from '../../test/support/wait.ts';

/** What was ended is closed within this time, in milliseconds. */
const SETTLE_MS_MAX = 8_000;
/** A daemon's memory moves by this much with its garbage and its buffers; counted from its first look, in KiB. */
const MEMORY_SLACK_KIB = 128 * 1024;

interface Holdings {
  readonly descriptors: number;
  readonly sessions: number;
}

export class LeakWatch {
  readonly #cluster: Cluster;
  readonly #hosts: readonly string[];
  readonly #before = new Map<string, Holdings>();
  /** By process: a daemon that was started anew starts anew here. */
  readonly #memoryKib = new Map<number, number>();

  constructor(cluster: Cluster, hosts: readonly string[]) {
    this.#cluster = cluster;
    this.#hosts = hosts;
  }

  /** How it is while nothing has happened yet and everything is in use. */
  async begin(): Promise<void> {
    for (const host of this.#hosts) this.#before.set(host, await this.#look(host));
  }

  /** What is left over, in words; each is told once. */
  async leaks(): Promise<string[]> {
    const leaks: string[] = [];
    for (const host of this.#hosts) {
      const before = this.#before.get(host)!;
      let now = before;
      const settled = waitFor(
        host,
        async () => {
          now = await this.#look(host);
          return now.descriptors <= before.descriptors && now.sessions <= before.sessions;
        },
        SETTLE_MS_MAX,
      );
      if (!(await settled.catch(() => false))) {
        if (now.descriptors > before.descriptors)
          leaks.push(`${host}: ${now.descriptors} descriptors, ${before.descriptors} before`);
        if (now.sessions > before.sessions) leaks.push(`${host}: ${now.sessions} sessions, ${before.sessions} before`);
        this.#before.set(host, now);
      }
      leaks.push(...this.#memory(host));
    }
    return leaks;
  }

  async #look(host: string): Promise<Holdings> {
    const { sessions } = await this.#cluster.client(host).status();
    return { descriptors: readdirSync(`/proc/${this.#cluster.daemon(host).pid}/fd`).length, sessions: sessions.length };
  }

  #memory(host: string): string[] {
    const { pid } = this.#cluster.daemon(host);
    const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    const nowKib = Number(match?.[1]);
    const beforeKib = this.#memoryKib.get(pid);
    if (beforeKib === undefined) this.#memoryKib.set(pid, nowKib);
    else if (nowKib > beforeKib + MEMORY_SLACK_KIB) {
      this.#memoryKib.set(pid, nowKib);
      return [`${host}: ${nowKib} KiB of memory, ${beforeKib} before`];
    }
    return [];
  }
}
