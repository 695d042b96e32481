/** The runner's own parts: what counts as a test, and what a file's end means. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

/** Runs one file with the runner's parts and gives its results as JSON. */
const DRIVER = `
  import { runTestFile } from ${JSON.stringify(new URL('./test-file.mjs', import.meta.url).href)};
  const { results } = await runTestFile(process.argv[1], Number(process.argv[2]));
  console.log(JSON.stringify(results));
`;

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nb-runner-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

describe('results of a test file', () => {
  test('single tests count: no suites, no tests that only hold others', () => {
    const results = outcomes(`
      describe('suite', () => {
        test('one', () => {});
        describe('inner', () => { test('two', () => {}); test('three', () => { throw new Error('no'); }); });
      });
      test('holder', async (t) => { await t.test('four', () => {}); await t.test('five', () => {}); });
      test('six', { skip: 'for a reason' }, () => {});
      test('seven', { todo: true }, () => {});
      test('eight', () => {});
    `);
    assert.deepEqual(results, ['one +', 'two +', 'three -', 'four +', 'five +', 'six ?', 'seven ?', 'eight +']);
  });

  test('a holder that fails beside the tests inside it counts', () => {
    const results = outcomes(`test('holder', async (t) => { await t.test('inside', () => {}); throw new Error('no'); });`);
    assert.deepEqual(results, ['inside +', 'holder -']);
  });

  test('a hook that fails counts', () => {
    assert.ok(
      outcomes(`describe('suite', () => { after(() => { throw new Error('no'); }); test('one', () => {}); });`).includes(
        'suite -',
      ),
    );
    assert.ok(
      outcomes(`after(() => { throw new Error('no'); }); test('one', () => {});`).some((result) => result.endsWith('-')),
    );
  });

  test('a file without tests, that does not load, that ends badly, or never, fails', () => {
    assert.deepEqual(outcomes(''), ['(the file itself) -']);
    assert.deepEqual(outcomes(`import './missing.ts';`), ['(the file itself) -']);
    assert.ok(
      outcomes(`test('one', () => {}); process.on('exit', () => { process.exitCode = 3; });`).includes('(the file itself) -'),
    );
    assert.deepEqual(outcomes(`test('one', () => {}); setInterval(() => {}, 1000);`, 500).at(-1), '(the file itself) -');
  });
});

function outcomes(source: string, timeoutMs = 30_000): string[] {
  const file = join(folder, 'sample.test.ts');
  writeFileSync(file, `import { after, describe, test } from 'node:test';\n${source}`);
  const repository = fileURLToPath(new URL('..', import.meta.url));
  const argv = ['--input-type=module', '--eval', DRIVER, file, String(timeoutMs)];
  const { stdout, stderr } = spawnSync(process.execPath, argv, { cwd: repository, encoding: 'utf8', timeout: 180_000 });
  assert.notEqual(stdout, '', stderr);
  const results = JSON.parse(stdout) as { name: string; outcome: 'passed' | 'failed' | 'skipped' }[];
  return results.map(({ name, outcome }) => `${name} ${{ passed: '+', failed: '-', skipped: '?' }[outcome]}`);
}
