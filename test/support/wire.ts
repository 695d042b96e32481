/** The network between hosts in the harness's hands: proxies in the network of a host that does nothing else. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Cleanup } from './cleanup.ts';
import type { Host } from './hosts.ts';
import type { Endpoint, WireConditions } from './tcp-proxy.ts';
import { withDeadline } from './wait.ts';

export type WireCommand =
  | { readonly what: 'listen'; readonly path: string; readonly listen: Endpoint; readonly target: Endpoint }
  | { readonly what: 'set'; readonly path: string; readonly conditions: WireConditions };

export interface WireReply {
  readonly id: number;
  readonly error?: string;
}

const ANSWER_MS_MAX = 60_000;
/** The first proxy's port; each next one has the next. */
const PORT_FIRST = 7500;

export class Wire {
  readonly #host: Host;
  readonly #child: ChildProcess;
  #ids = 0;
  #ports = PORT_FIRST;

  /** Starts the proxies' process on a host of its own. */
  constructor(host: Host, cleanup: Cleanup) {
    this.#host = host;
    const [execPath, ...execArgv] = host.command([process.execPath, '--import', import.meta.resolve('tsx')]);
    this.#child = fork(fileURLToPath(new URL('./wire-process.ts', import.meta.url)), { execPath, execArgv });
    this.#child.setMaxListeners(0);
    cleanup.add('the wire', async () => {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
      const exited = once(this.#child, 'exit');
      this.#child.kill('SIGKILL');
      await exited;
    });
  }

  /** A way to `target`, part of `path`: conditions of a path hold for all its ways. Where to connect to instead of it. */
  async to(path: string, target: Endpoint): Promise<Endpoint> {
    const listen = { host: this.#host.address, port: this.#ports++ };
    await this.#tell({ what: 'listen', path, listen, target });
    return listen;
  }

  /** From now on the network on this path is like that. */
  set(path: string, conditions: WireConditions): Promise<void> {
    return this.#tell({ what: 'set', path, conditions });
  }

  async #tell(command: WireCommand): Promise<void> {
    const id = ++this.#ids;
    const over = new AbortController();
    const answered = new Promise<WireReply>((resolve) => {
      const take = (reply: WireReply) => {
        if (reply.id !== id) return;
        this.#child.off('message', take);
        resolve(reply);
      };
      this.#child.on('message', take);
    });
    const ended = once(this.#child, 'exit', over).then(([status]): WireReply => ({ id, error: `the wire ended (${status})` }));
    ended.catch(() => {});
    this.#child.send({ id, command });
    try {
      const { error } = await withDeadline(`the wire to ${command.what}`, ANSWER_MS_MAX, Promise.race([answered, ended]));
      if (error !== undefined) throw new Error(`the wire could not ${command.what}: ${error}`);
    } finally {
      over.abort();
    }
  }
}
