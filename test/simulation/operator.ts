/** What people, and the programs that manage VMs, do at a host: they ask its daemon, and it may die or be away while they wait. */
import { NetbusError } from '../../src/device/errors.ts';
import type { SimDaemon } from './daemon.ts';
import type { SimHost } from './host.ts';
import type { World } from './world.ts';

/** Longer than any call of the product. */
const ANSWER_MS_MAX = 45_000;

export type Answer<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly code: string; readonly message: string };

/** One call of a daemon. `away`: there is none; `killed`: it died meanwhile, and perhaps has done it. */
export function ask<Value>(
  world: World,
  host: SimHost,
  what: string,
  work: (daemon: SimDaemon) => Promise<Value>,
): Promise<Answer<Value>> {
  const { daemon } = host;
  return new Promise((resolve) => {
    let isOver = false;
    const end = (answer: Answer<Value>) => {
      if (isOver) return;
      isOver = true;
      world.trace(`${what} at ${host.name}: ${answer.ok ? 'done' : `${answer.code}: ${answer.message}`}`);
      world.at(0, () => resolve(answer));
    };
    if (daemon === undefined || !daemon.isReady) {
      end({ ok: false, code: 'away', message: 'there is no daemon' });
      return;
    }
    const { process } = daemon;
    process.onKill(() => end({ ok: false, code: 'killed', message: 'the daemon died' }));
    world.at(ANSWER_MS_MAX, () => end({ ok: false, code: 'timeout', message: 'no answer' }));
    process.tell(() => {
      work(daemon).then(
        (value) => {
          if (process.alive) end({ ok: true, value });
        },
        (thrown: unknown) => {
          if (!process.alive) return;
          const { code, message } = NetbusError.from(thrown);
          if (code === 'internal') world.violated('bug', `${what} at ${host.name}: ${(thrown as Error).stack}`);
          end({ ok: false, code, message });
        },
      );
    });
  });
}
