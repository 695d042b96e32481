/** A reporter for node:test that writes what the runner wants to know, one JSON object a line. */

import { inspect } from 'node:util';

export default async function* report(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const { name, nesting, skip, todo, details } = data;
    yield `${JSON.stringify({
      name,
      nesting,
      suite: details.type === 'suite',
      passed: type === 'test:pass',
      // True, or the reason as a string.
      skip: skip ?? false,
      todo: todo ?? false,
      ...(type === 'test:fail' ? { failureType: details.error.failureType, error: describe(details.error) } : {}),
    })}\n`;
  }
}

/** node:test wraps what a test threw. */
function describe(error) {
  const cause = error.cause ?? error;
  return typeof cause === 'string' ? cause : inspect(cause, { depth: 5 });
}
