/**
 * Makes the manual pages: `node --import tsx scripts/make-man.ts FOLDER` writes netbus.1, netbusd.8 and netbus.yaml.5 there. The build does it, into
 * dist/man. SOURCE_DATE_EPOCH is the date at their foot, in seconds since 1970; today by default.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { manualPages } from './man/pages.ts';

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error('usage: make-man.ts FOLDER');
const epoch = process.env.SOURCE_DATE_EPOCH;
const date = epoch ? new Date(Number(epoch) * 1000) : new Date();
mkdirSync(folder, { recursive: true });
for (const { file, text } of manualPages({ date })) writeFileSync(join(folder, file), text);
