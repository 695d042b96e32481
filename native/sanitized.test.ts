import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const root = fileURLToPath(new URL('..', import.meta.url));

/** A quarter of the time of tsx, which counts under a sanitizer. */
const TYPESCRIPT = new URL('../scripts/typescript.mjs', import.meta.url).href;

/** Where the compiler has this library, or an empty string. */
function library(name: string): string {
  const path = execFileSync('cc', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim();
  return existsSync(path) ? path : '';
}

test('the suite of the addon passes under AddressSanitizer and UndefinedBehaviorSanitizer', { timeout: 300_000 }, (context) => {
  if (process.env.NETBUS_ADDON !== undefined) return context.skip('this is the sanitized run');
  const preload = library('libasan.so');
  if (preload === '') return context.skip('needs the sanitizer of gcc: apt-get install build-essential');
  execFileSync(process.execPath, [join(root, 'scripts', 'build.mjs'), '--sanitize'], { stdio: 'inherit' });
  const suites = readdirSync(here).filter((name) => name.endsWith('.test.ts') && name !== basename(import.meta.filename));
  const child = spawnSync(process.execPath, ['--import', TYPESCRIPT, '--test', ...suites.map((name) => join(here, name))], {
    cwd: root,
    encoding: 'utf8',
    env: {
      ...process.env,
      NODE_TEST_CONTEXT: undefined, // Or the child would report to this test's runner in its own protocol.
      NETBUS_ADDON: join(here, 'build', 'netbus-asan.node'),
      LD_PRELOAD: preload,
      // V8 keeps memory until the process ends; the leak tests of the suite itself look at what we own.
      ASAN_OPTIONS: 'detect_leaks=0',
      UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
    },
  });
  const report = `${child.stdout}\n${child.stderr}`;
  assert.equal(child.status, 0, report);
  assert.match(child.stdout, /# fail 0/, report);
  assert.match(child.stdout, /# pass [1-9]/, report);
});
