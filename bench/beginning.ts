/** How a benchmark with hosts of its own begins. */
import { randomInt } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { hostKind } from '../test/support/hosts.ts';

/** The build. */
export const PROGRAM = fileURLToPath(new URL('../dist/netbus.js', import.meta.url));

/** `say` prints to stdout, or to stderr where only JSON is wanted there. Throws where hosts cannot be namespaces here. */
export async function beginWithHosts(wanted: {
  seed: number | undefined;
  json: boolean;
}): Promise<{ seed: number; say: (text: string) => void }> {
  const { kind, reason } = await hostKind();
  if (kind !== 'namespace') throw new Error(`the hosts of this benchmark are namespaces: ${reason}`);
  // From the source a daemon takes five times as long to start.
  process.env.NETBUS_PROGRAM ??= PROGRAM;
  const { seed = randomInt(2 ** 32), json } = wanted;
  const say = (text: string) => void (json ? process.stderr : process.stdout).write(`${text}\n`);
  say(`seed ${seed}`);
  return { seed, say };
}
