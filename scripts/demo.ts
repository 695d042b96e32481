/**
 * The demo: `npm run demo -- [--json] [--keep]`.
 *
 *   --json  the story goes to stderr; the last line of stdout is {"demo":"disk","ok":true,"verifiedBytes":N,...}
 *   --keep  leaves everything running to explore, says how, and ends with Ctrl-C
 */

import { parseArgs } from 'node:util';
import { Cleanup } from '../test/support/cleanup.ts';
import { type DiskResult, tellDiskStory } from './demo/disk.ts';
import { explore } from './demo/explore.ts';
import { Story } from './demo/story.ts';
import { tellSummary } from './demo/summary.ts';

const USAGE = 'usage: npm run demo -- [--json] [--keep]';

function readOptions(): { json: boolean; keep: boolean } {
  try {
    const { values } = parseArgs({ options: { json: { type: 'boolean' }, keep: { type: 'boolean' } } });
    return { json: values.json ?? false, keep: values.keep ?? false };
  } catch (error) {
    console.error(`demo: ${(error as Error).message}\n${USAGE}`);
    process.exit(2);
  }
}

async function main(): Promise<void> {
  const { json, keep } = readOptions();
  const story = new Story(json ? process.stderr : process.stdout);
  const cleanup = new Cleanup();
  // Whatever fails after a signal fails because everything is being taken down; the cleanup ends the process.
  let interrupted = false;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => (interrupted = true));

  story.title('Netbus: a disk of host m1, used by a virtual machine on host m2');
  let result: DiskResult | undefined;
  let failure: unknown;
  try {
    const told = await tellDiskStory(story, cleanup);
    result = told.result;
    tellSummary(story, result);
    if (keep) await explore(story, cleanup, told.cluster);
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
  if (json) console.log(JSON.stringify(describe(result, failure, story.elapsedMs)));
}

function describe(result: DiskResult | undefined, failure: unknown, elapsedMs: number): object {
  const seconds = Math.round(elapsedMs / 100) / 10;
  if (failure !== undefined || result === undefined) {
    return { demo: 'disk', ok: false, error: failure instanceof Error ? failure.message : String(failure), seconds };
  }
  return { demo: 'disk', ok: true, ...result, seconds };
}

await main();
