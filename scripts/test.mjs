/**
 * `npm test [-- FILTER …]`: the checks, then all tests. A filter is a part of a file's path (`npm test -- virtqueue`); with
 * filters the checks are left out. Unit tests run two files at a time; then those that start guests run beside those that start programs, one of each
 * at a time until one kind is done, when what is left of the other is shared; then those that want the machine for themselves.
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
const LANES = [['test/guest/'], ['test/demo/', 'test/packaging/', 'test/interop/', 'test/simulation/']];
/** Files below these fill the machine, and want it for themselves. */
const ALONE = ['test/faults/'];
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
const run = (msMax) => async (file) => summary.add(await runTestFile(file, msMax));

if (filters.length === 0) await runAll(inTwo(checks), async (check) => summary.add(await runCheck(check)));
await runAll(inTwo(unit), run(UNIT_FILE_MS_MAX));
await runAll(lanes, run(SLOW_FILE_MS_MAX));
await runAll([alone], run(SLOW_FILE_MS_MAX));
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

/** Does `work` for all items, one at a time of each lane; a lane that is done helps the next one that is not. */
async function runAll(lanes, work) {
  const left = lanes.map((items) => [...items]);
  const worker = async (own) => {
    const next = () => (own.length > 0 ? own : left.find((items) => items.length > 0))?.shift();
    for (let item = next(); item !== undefined; item = next()) {
      await work(item);
      if (interrupted) await new Promise(() => {}); // The signal's handler ends the process.
    }
  };
  await Promise.all(left.map(worker));
}

/** One lane that does all, and one that helps. */
function inTwo(items) {
  return [items, []];
}
