/** From node:test's events to results of single tests. */

/** Failures of a test or suite that only repeat those of the tests inside. */
const OF_THE_TESTS_INSIDE = ['subtestsFailed'];

/**
 * Leaves out suites, and tests that only hold other tests, unless they failed by themselves (a hook, or an assertion beside
 * the tests inside). A test's event comes after those of the tests inside it.
 *
 * @param {{ name: string, nesting: number, suite: boolean, passed: boolean, skip: boolean | string, todo: boolean | string,
 *   failureType?: string, error?: string }[]} events
 * @returns {{ name: string, outcome: 'passed' | 'failed' | 'skipped', reason?: string }[]}
 */
export function leafResults(events) {
  const results = [];
  /** Whether tests were seen inside the test at a nesting that is not reported yet. */
  const hasInside = [];
  for (const event of events) {
    const { name, nesting, suite, passed, skip, todo } = event;
    const holdsOthers = hasInside[nesting + 1] === true;
    hasInside.length = nesting + 1;
    hasInside[nesting] = true;
    if (skip !== false || todo !== false) {
      const kind = skip !== false ? 'no reason given' : 'to do';
      results.push({ name, outcome: 'skipped', reason: [skip, todo].find((word) => typeof word === 'string') || kind });
    } else if (!passed) {
      if (holdsOthers && OF_THE_TESTS_INSIDE.includes(event.failureType)) continue;
      results.push({ name, outcome: 'failed', reason: event.error });
    } else if (!suite && !holdsOthers) {
      results.push({ name, outcome: 'passed' });
    }
  }
  return results;
}
