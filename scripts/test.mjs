/**
 * `npm test [-- FILTER …]`: the checks, then all tests. A filter is a part of a file's path (`npm test -- virtqueue`); with
 * filters the checks are left out. Two run at a time: of the checks and unit tests first; then one that starts guests beside one that starts programs,
 * until one kind is done, when what is left of the other is shared. Those that want the machine for themselves come last.
 *
 * The last line is "N passed, N failed", of single tests. The exit code is 1 where one failed or none ran, or, with CI=true,
 * where one was skipped that could have run.
 */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { checks } from './checks.mjs';
import { endRunning, runCheck, runTestFile } from './test-file.mjs';
import { Summary } from './test-summary.mjs';

const FOLDERS = ['src', 'native', 'test', 'bench', 'scripts'];
/** Files below these start guests or programs: a lane for each line, in this order. Two of one lane run beside each other where the other lane is empty. */
const LANES = [['test/guest/'], ['test/demo/', 'test/faults/broken', 'test/packaging/', 'test/interop/', 'test/simulation/']];
/** Files below these fill the machine, and want it for themselves. */
const ALONE = ['test/faults/campaign'];
/** Files that take longer than the whole is allowed to, and run where they are asked for: `npm test -- systemd`. */
const ONLY_WHEN_ASKED = ['test/packaging/systemd.test.ts'];
/** After these times a file's process is killed and counts as failed, in milliseconds. */
const UNIT_FILE_MS_MAX = 300_000;
const SLOW_FILE_MS_MAX = 600_000;

const filters = process.argv.slice(2).filter((argument) => argument !== '--');
const summary = new Summary();

// Ctrl-C: the tests' own processes get it from the terminal too, clean up and end; what is left is ended here.
let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    interrupted = true;
    void endRunning(signal).then(() => process.kill(process.pid, signal));
  });
}

const isAsked = (file) => filters.some((part) => file.includes(part));
const files = FOLDERS.flatMap(findTests).filter((file) =>
  filters.length === 0 ? !ONLY_WHEN_ASKED.includes(file) : isAsked(file),
);
if (filters.length === 0) for (const file of ONLY_WHEN_ASKED) console.log(`left out ${file}: npm test -- ${file}`);
const below = (folders) => folders.flatMap((folder) => files.filter((file) => file.startsWith(folder)));
const lanes = LANES.map(below);
const alone = below(ALONE);
const unit = files.filter((file) => ![...lanes.flat(), ...alone].includes(file));
const run = (file, msMax) => async () => summary.add(await runTestFile(file, msMax));
const check = (each) => async () => summary.add(await runCheck(each));
const slow = (lane) => lane.map((file) => run(file, SLOW_FILE_MS_MAX));

const first = [...(filters.length === 0 ? checks.map(check) : []), ...unit.map((file) => run(file, UNIT_FILE_MS_MAX))];
await runAll(first, lanes.map(slow));
await runAll([], [slow(alone)]);
process.exitCode = summary.finish({ strictAboutSkips: process.env.CI === 'true' });

/** All *.test.ts below a folder, as paths from the repository's root, in a fixed order. */
function findTests(folder) {
  let names;
  try {
    names = readdirSync(folder, { recursive: true });
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
  return names
    .map((name) => join(folder, name))
    .filter((path) => path.endsWith('.test.ts'))
    .sort();
}

/** Does all that is there, one at a time for each lane: together what comes first, then each its own, and then what is left of another lane. */
async function runAll(first, lanes) {
  const worker = async (own) => {
    const next = () => [first, own, ...lanes].find((tasks) => tasks.length > 0)?.shift();
    for (let task = next(); task !== undefined; task = next()) {
      await task();
      if (interrupted) await new Promise(() => {}); // The signal's handler ends the process.
    }
  };
  await Promise.all(lanes.map(worker));
}
