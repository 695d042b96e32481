/** Checks of the source as a whole. Each is a program that ends with 0 where all is well; `npm test` counts each as a test. */

export const checks = [
  { name: 'types (tsc)', argv: ['node_modules/.bin/tsc', '--noEmit'] },
  { name: 'format and lint (biome)', argv: ['node_modules/.bin/biome', 'ci', '--colors=off'] },
  { name: 'dead code (knip)', argv: ['node_modules/.bin/knip', '--no-progress'] },
  { name: 'import rule', argv: [process.execPath, '--import', 'tsx', 'scripts/check-imports.ts'] },
];
