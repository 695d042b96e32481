/** `netbus status`: this host, its links, exports, attachments and sessions, and what waits for what. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Command } from 'commander';
import { Context } from './context.ts';
import { describeStatus } from './status-text.ts';
import { localTime } from './words.ts';

const REFRESH_MS = 2_000;
/** To the top left corner; what is below is written over, and the rest of each line and of the screen removed. */
const HOME = '\x1b[H';
const TO_LINE_END = '\x1b[K';
const TO_SCREEN_END = '\x1b[J';

export function addStatus(program: Command): void {
  program
    .command('status')
    .summary('show what this host does')
    .description(
      'Shows what waits for what on this host, then its daemon, its links to other hosts, what it exports, what its VMs have attached, the sessions of both, and what they did over the last seconds.',
    )
    .option('--watch', `again every ${REFRESH_MS / 1000} s, until Ctrl-C; with --json a line of JSON each time`)
    .addHelpText('after', '\nExamples:\n  netbus status\n  netbus status --watch\n  netbus status --json | jq ".waits"\n')
    .action(async ({ watch }: { watch?: true }, command: Command) => {
      const context = new Context(command);
      for (;;) {
        const status = await context.client.status();
        if (watch && !context.json) {
          showAgain(
            status.time ?? new Date().toISOString(),
            `${warningLines(status.warnings)}${describeStatus(status, context.style)}`,
          );
        } else {
          context.warn(status.warnings);
          context.print(status, (style) => describeStatus(status, style));
        }
        if (!watch) return;
        await pause(REFRESH_MS);
      }
    });
}

/** On a terminal in the place of the last one; elsewhere below it, after a line with the time. */
function showAgain(time: string, text: string): void {
  if (process.stdout.isTTY) {
    process.stdout.write(`${HOME}${text.replaceAll('\n', `${TO_LINE_END}\n`)}${TO_SCREEN_END}`);
  } else {
    process.stdout.write(`--- ${localTime(time)}\n${text}\n`);
  }
}

function warningLines(warnings: readonly string[] = []): string {
  return warnings.map((warning) => `warning: ${warning}\n`).join('');
}
