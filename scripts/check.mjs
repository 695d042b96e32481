/** `npm run check`: the checks of the source alone, without the tests. */

import { spawnSync } from 'node:child_process';
import { checks } from './checks.mjs';

let failed = 0;
for (const { name, argv } of checks) {
  const { status } = spawnSync(argv[0], argv.slice(1), { stdio: 'inherit' });
  if (status !== 0) failed += 1;
  console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${name}`);
}
process.exitCode = failed === 0 ? 0 : 1;
