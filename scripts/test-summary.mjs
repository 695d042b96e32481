/** Collects results, says a line for each file as it ends, and at the end what failed and why. */

/** Skips with this prefix are of tests that no installed package makes possible; all others count as failures in CI. */
const NOT_POSSIBLE_HERE = 'not possible here: ';

export class Summary {
  #passed = 0;
  #failed = 0;
  #failures = [];
  #skips = [];

  /** @param {import('./test-file.mjs').FileResult} result */
  add({ file, results, output, durationMs }) {
    const count = (wanted) => results.filter(({ outcome }) => outcome === wanted).length;
    const [passed, failed, skipped] = [count('passed'), count('failed'), count('skipped')];
    this.#passed += passed;
    this.#failed += failed;
    for (const { name, reason } of results.filter(({ outcome }) => outcome === 'skipped'))
      this.#skips.push({ file, name, reason });
    if (failed > 0) this.#failures.push({ file, results, output });
    const counts = [`${passed} passed`, failed > 0 && `${failed} failed`, skipped > 0 && `${skipped} skipped`].filter(Boolean);
    console.log(`${failed > 0 ? 'FAILED' : 'ok    '} ${file} (${counts.join(', ')}, ${(durationMs / 1000).toFixed(1)} s)`);
  }

  /** Says the rest; the exit code. */
  finish({ strictAboutSkips }) {
    for (const failure of this.#failures) sayFailure(failure);
    if (this.#skips.length > 0) {
      console.log(`\n${this.#skips.length} skipped:`);
      for (const { file, name, reason } of this.#skips) console.log(`  ${file}: ${name}: ${reason}`);
    }
    const avoidable = this.#skips.filter(({ reason }) => !reason.startsWith(NOT_POSSIBLE_HERE)).length;
    let failed = this.#failed;
    if (strictAboutSkips && avoidable > 0) {
      console.log(`\nCI=true: ${avoidable} of them could have run and count as failed`);
      failed += avoidable;
    }
    if (this.#passed + failed === 0) console.log('\nno tests ran');
    console.log(`\n${this.#passed} passed, ${failed} failed`);
    return failed > 0 || this.#passed === 0 ? 1 : 0;
  }
}

function sayFailure({ file, results, output }) {
  for (const { name, reason } of results.filter(({ outcome }) => outcome === 'failed')) {
    console.log(`\n--- FAILED ${file}: ${name}\n${reason}`);
  }
  if (output.trim() !== '') console.log(`\n--- output of ${file}\n${output.trimEnd()}`);
}
