/** All manual pages. */

import { makeProgram } from '../../src/cli/program.ts';
import { netbusPage } from './netbus-1.ts';
import { configPage } from './netbus-yaml-5.ts';
import { daemonPage } from './netbusd-8.ts';
import type { PageOptions } from './page.ts';

export interface ManualPage {
  /** Its name in a folder of manual pages. */
  readonly file: string;
  /** mdoc(7). */
  readonly text: string;
}

export function manualPages(options: PageOptions): ManualPage[] {
  return [
    { file: 'netbus.1', text: netbusPage(makeProgram(), options) },
    { file: 'netbusd.8', text: daemonPage(makeProgram(), options) },
    { file: 'netbus.yaml.5', text: configPage(options) },
  ];
}
