/** Runs one test file, or one check, as a process of its own, and says what came of it. */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { leafResults } from './test-results.mjs';

/** Output of a file that is kept for the summary, in characters; the newest. */
const OUTPUT_CHARACTERS_MAX = 64 * 1024;
/** Time that tests get to clean up after a signal, in milliseconds; then they are killed. */
const END_MS_MAX = 10_000;

const REPORTER = fileURLToPath(new URL('./test-reporter.mjs', import.meta.url));
const TYPESCRIPT = new URL('./typescript.mjs', import.meta.url).href;

const running = new Set();

/**
 * @typedef {{ name: string, outcome: 'passed' | 'failed' | 'skipped', reason?: string }} Result
 * @typedef {{ file: string, results: Result[], output: string, durationMs: number }} FileResult
 */

/** Runs a test file; a file that ends badly or without a test is a failed test. @returns {Promise<FileResult>} */
export async function runTestFile(file, timeoutMs) {
  const folder = mkdtempSync(join(tmpdir(), 'nb-report-'));
  try {
    const report = join(folder, 'report');
    const reporter = [`--test-reporter=${REPORTER}`, `--test-reporter-destination=${report}`];
    const exit = await runProcess([process.execPath, '--import', TYPESCRIPT, ...reporter, file], timeoutMs);
    const results = leafResults(readEvents(report));
    const problem = problemOf(exit, results, timeoutMs);
    if (problem !== undefined) results.push({ name: '(the file itself)', outcome: 'failed', reason: problem });
    return { file, results, output: exit.output, durationMs: exit.durationMs };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs a check, which counts as one test. @returns {Promise<FileResult>} */
export async function runCheck({ name, argv }) {
  const exit = await runProcess(argv, END_MS_MAX * 30);
  const outcome = exit.status === 0 ? 'passed' : 'failed';
  return { file: `check: ${name}`, results: [{ name, outcome, reason: `"${argv.join(' ')}" failed` }], ...exit };
}

/** Passes a signal on to all that runs, waits for its end, and kills what does not end. */
export async function endRunning(signal) {
  const ends = [...running].map(({ child, exited }) => {
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), END_MS_MAX);
    return exited.finally(() => clearTimeout(timer));
  });
  await Promise.all(ends);
}

/** What is wrong with the run as a whole, where no test of the file says it. */
function problemOf(exit, results, timeoutMs) {
  if (exit.timedOut) return `not finished after ${timeoutMs / 1000} s, killed (does something keep the process alive?)`;
  if (exit.status !== 0 && !results.some(({ outcome }) => outcome === 'failed')) {
    return `the process ended with ${exit.signal ?? `status ${exit.status}`}`;
  }
  if (results.length === 0) return 'the file has no tests';
  return undefined;
}

function readEvents(path) {
  let text;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return []; // It ended before its first test.
    throw error;
  }
  // A process that was killed may leave half a line at the end.
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line));
}

/** Runs a program, which the kernel ends where this one is killed. */
function runProcess(argv, timeoutMs) {
  const started = performance.now();
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  let timedOut = false;
  const collect = (text) => {
    output = (output + text).slice(-OUTPUT_CHARACTERS_MAX);
  };
  child.stdout.setEncoding('utf8').on('data', collect);
  child.stderr.setEncoding('utf8').on('data', collect);
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), END_MS_MAX).unref();
  }, timeoutMs);
  const exited = new Promise((resolve, reject) => {
    child.once('error', reject);
    // Something that the tests left running may hold the pipes: their end is not waited for long.
    child.once('exit', () => setTimeout(() => child.stdout.destroy() && child.stderr.destroy(), 1_000).unref());
    child.once('close', (status, signal) => {
      resolve({ status, signal, output, timedOut, durationMs: performance.now() - started });
    });
  });
  const entry = { child, exited };
  running.add(entry);
  return exited.finally(() => {
    clearTimeout(timer);
    running.delete(entry);
  });
}
