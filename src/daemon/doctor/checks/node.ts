/** Node.js: what package.json asks for. */
import { type Check, failure, ok } from '../check.ts';
import { isBefore } from '../version.ts';

const NODE_MIN = '20.19.0';

export const node: Check = {
  name: 'node',
  async run({ facts: { nodeVersion } }) {
    if (!isBefore(nodeVersion, NODE_MIN)) return [ok(`Node.js ${nodeVersion}`)];
    return [failure(`Node.js ${nodeVersion} is too old`, `install ${NODE_MIN} or newer: https://nodejs.org/en/download`)];
  },
};
