/**
 * `npm test [-- FILTER …]`: the checks, then all tests. A filter is a part of a file's path (`npm test -- virtqueue`); with
 * filters the checks are left out. Unit tests run two files at a time; then those that start guests run beside those that start programs, one of each
 * at a time; then those that want the machine for themselves.
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
/** Files below these start guests or programs: a lane for each line, in which they run one at a time. */
const LANES = [['test/guest/'], ['test/interop/', 'test/packaging/', 'test/simulation/', 'test/demo/']];
/** Files below these fill the machine, and want it for themselves. */
const ALONE = ['test/faults/'];
/** Files that take longer than the whole is allowed to, and run where they are asked for: `npm test -- systemd`. */
const ONLY_WHEN_ASKED = ['test/packaging/systemd.test.ts'];
const UNIT_FILES_AT_A_TIME = 2;
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
const below = (folders) => files.filter((file) => folders.some((folder) => file.startsWith(folder)));
const lanes = LANES.map(below);
const alone = below(ALONE);
const unit = files.filter((file) => ![...lanes.flat(), ...alone].includes(file));
const runSlow = (slow) => runAll(slow, 1, async (file) => summary.add(await runTestFile(file, SLOW_FILE_MS_MAX)));

if (filters.length === 0) await runAll(checks, UNIT_FILES_AT_A_TIME, async (check) => summary.add(await runCheck(check)));
await runAll(unit, UNIT_FILES_AT_A_TIME, async (file) => summary.add(await runTestFile(file, UNIT_FILE_MS_MAX)));
await Promise.all(lanes.map(runSlow));
await runSlow(alone);
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

/** Does `work` for all items, `atATime` of them at once. */
async function runAll(items, atATime, work) {
  const left = [...items];
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) {
      await work(item);
      if (interrupted) await new Promise(() => {}); // The signal's handler ends the process.
    }
  };
  await Promise.all(Array.from({ length: atATime }, worker));
}
