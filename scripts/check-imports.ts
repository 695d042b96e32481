/** Checks the import rule (import-rule.ts) on all sources; prints each violation as FILE:LINE and ends with 1 where there is one. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { importsOf, violation } from './import-rule.ts';

let violations = 0;
for (const file of ['src', 'native', 'scripts'].flatMap(sourcesBelow)) {
  for (const { line, specifier } of importsOf(readFileSync(file, 'utf8'))) {
    const target = specifier.startsWith('.') ? join(dirname(file), specifier) : undefined;
    const problem = violation({ file, line, specifier, target });
    if (problem === undefined) continue;
    violations += 1;
    console.log(`${file}:${line}: ${problem} (imports '${specifier}'; the rule is in scripts/import-rule.ts)`);
  }
}
process.exitCode = violations === 0 ? 0 : 1;

function sourcesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name));
  return paths.filter((path) => /\.m?[jt]sx?$/.test(path) && !path.startsWith('native/build/')).sort();
}
