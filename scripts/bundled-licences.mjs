/** The licences of the packages that the program holds: each asks for its own text to go along with the code. */

import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const LICENCE_FILE = /^(?:licen[cs]e|copying|notice)(?:[.-].*)?$/i;
const PACKAGE_FOLDER = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//;
const RULE = '-'.repeat(80);

/**
 * The text for the packages among `inputs` (paths of the modules that were bundled, relative to `root`), by name. Throws where one has no
 * licence's text.
 */
export function bundledLicences(root, inputs) {
  const folders = new Set(inputs.map((input) => PACKAGE_FOLDER.exec(resolve(root, input))?.[1]).filter(Boolean));
  const parts = [...folders].map(describePackage).sort((a, b) => (a.name < b.name ? -1 : 1));
  const head = 'netbus.js and its chunks hold these packages. Netbus itself is under the Apache License 2.0.\n';
  return [head, ...parts.map(({ name, version, licence, text }) => `${name} ${version} (${licence})\n\n${text}`)].join(
    `\n${RULE}\n`,
  );
}

function describePackage(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const files = readdirSync(folder).filter((file) => LICENCE_FILE.test(file));
  if (files.length === 0) throw new Error(`${name} is in the bundle and has no text of its licence (${license})`);
  const text = files.map((file) => `${readFileSync(join(folder, file), 'utf8').trim()}\n`).join('\n');
  return { name, version, licence: license, text };
}
