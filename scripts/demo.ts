/**
 * The demo: `npm run demo -- [disk|outage|migrate|swap] [--json] [--keep]`.
 *
 *   disk    a disk of one host in a virtual machine on another (the default)
 *   outage  the same while the network is cut, daemons are killed and the disk's host loses its power
 *   migrate a guest that works moves over three hosts, and its disk stays where it is
 *   swap    a guest has moved, its disk follows it while it works, and the host that the disk was on goes away
 *   --json  the story goes to stderr; the last line of stdout is {"demo":"disk","ok":true,"verifiedBytes":N,...}
 *   --keep  leaves everything running to explore, says how, and ends with Ctrl-C
 */

import { parseArgs } from 'node:util';
import { Cleanup } from '../test/support/cleanup.ts';
import { tellDiskStory } from './demo/disk.ts';
import { explore, exploreHosts } from './demo/explore.ts';
import { tellMigrationStory } from './demo/migrate.ts';
import { tellOutageStory } from './demo/outage.ts';
import { Story } from './demo/story.ts';
import { tellSummary } from './demo/summary.ts';
import { tellSwapStory } from './demo/swap.ts';

const USAGE = 'usage: npm run demo -- [disk|outage|migrate|swap] [--json] [--keep]';

const DEMOS = ['disk', 'outage', 'migrate', 'swap'] as const;
type Demo = (typeof DEMOS)[number];

interface Options {
  readonly demo: Demo;
  readonly json: boolean;
  readonly keep: boolean;
}

function readOptions(): Options {
  try {
    const options = { json: { type: 'boolean' }, keep: { type: 'boolean' } } as const;
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    const [name = 'disk', ...more] = positionals;
    const demo = DEMOS.find((one) => one === name);
    if (demo === undefined || more.length > 0) throw new Error(`"${positionals.join(' ')}" is none of ${DEMOS.join(', ')}`);
    return { demo, json: values.json ?? false, keep: values.keep ?? false };
  } catch (error) {
    console.error(`demo: ${(error as Error).message}\n${USAGE}`);
    process.exit(2);
  }
}

async function main(): Promise<void> {
  const { demo, json, keep } = readOptions();
  const story = new Story(json ? process.stderr : process.stdout);
  const cleanup = new Cleanup();
  // Whatever fails after a signal fails because everything is being taken down; the cleanup ends the process.
  let interrupted = false;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => (interrupted = true));

  let result: object | undefined;
  let failure: unknown;
  try {
    result = await tell(demo, story, cleanup, keep);
  } catch (error) {
    failure = error;
  }
  if (interrupted) return await new Promise<never>(() => {});
  try {
    await cleanup.run();
  } catch (error) {
    failure ??= error;
  }
  if (failure !== undefined) {
    story.bad(failure instanceof Error ? failure.message : String(failure));
    process.exitCode = 1;
  } else {
    story.good(`everything is cleaned up; it took ${Math.round(story.elapsedMs / 1000)} s`);
  }
  if (json) console.log(JSON.stringify(describe(demo, result, failure, story.elapsedMs)));
}

/** Returns what the JSON line says; with `keep` it never does. */
async function tell(demo: Demo, story: Story, cleanup: Cleanup, keep: boolean): Promise<object> {
  switch (demo) {
    case 'disk': {
      story.title('Netbus: a disk of host m1, used by a virtual machine on host m2');
      const { cluster, result } = await tellDiskStory(story, cleanup);
      tellSummary(story, result);
      if (keep) await explore(story, cleanup, cluster);
      return result;
    }
    case 'outage': {
      story.title('Netbus: a guest goes on while everything below its disk fails');
      const { cluster, result } = await tellOutageStory(story, cleanup);
      if (keep) await exploreHosts(story, cluster, ['m2']);
      return result;
    }
    case 'migrate': {
      story.title('Netbus: a guest moves over three hosts while it works, and its disk stays where it is');
      const { cluster, result } = await tellMigrationStory(story, cleanup);
      if (keep) await exploreHosts(story, cluster, ['m1', 'm2', 'm3']);
      return result;
    }
    case 'swap': {
      story.title('Netbus: the disk follows a guest that has moved, while it works, and its old host goes away');
      const { cluster, result } = await tellSwapStory(story, cleanup);
      if (keep) await exploreHosts(story, cluster, ['m2']);
      return result;
    }
  }
}

function describe(demo: Demo, result: object | undefined, failure: unknown, elapsedMs: number): object {
  const seconds = Math.round(elapsedMs / 100) / 10;
  if (failure !== undefined || result === undefined) {
    return { demo, ok: false, error: failure instanceof Error ? failure.message : String(failure), seconds };
  }
  return { demo, ok: true, ...result, seconds };
}

await main();
