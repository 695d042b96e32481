/** `netbus doctor`: checks this host, and says what to do. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { CheckOutcome } from '../daemon/doctor/check.ts';
import type { Diagnosis } from '../daemon/doctor/doctor.ts';
import type { Style } from '../lib/format.ts';
import { Context } from './context.ts';
import { CONFIG_DEFAULT } from './daemon.ts';

/** Where an error was found: docs/cli.md. */
const EXIT_ERROR = 1;
/** Of the longest result. */
const RESULT_WIDTH = 'skipped'.length;

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .summary('check this host, and say what to do')
    .description(
      'Checks this host: versions, limits, folders, certificates, the daemon, the other members and their clocks. It changes nothing, and works also without a daemon and without a config. Ends with 1 where it found an error.',
    )
    .option('--config <file>', 'the config that the daemon has', CONFIG_DEFAULT)
    .option('--state-dir <dir>', "instead of the config's")
    .addHelpText(
      'after',
      '\nExamples:\n  netbus doctor\n  netbus doctor --json | jq ".checks[] | select(.result == \\"error\\")"\n',
    )
    .action(async (_options: unknown, command: Command) => {
      const context = new Context(command);
      const options = command.optsWithGlobals<{ config: string; runDir?: string; stateDir?: string; socket?: string }>();
      // Loaded here alone: the other verbs start in a fraction of the time without it.
      const { diagnoseMachine } = await import('../daemon/doctor/doctor.ts');
      const diagnosis = await diagnoseMachine({
        configFile: resolve(options.config),
        runDir: options.runDir ? resolve(options.runDir) : undefined,
        stateDir: options.stateDir ? resolve(options.stateDir) : undefined,
        socket: options.socket || undefined,
      });
      context.print(diagnosis, (style) => describe(diagnosis, style));
      if (!diagnosis.ok) process.exitCode = EXIT_ERROR;
    });
}

function describe({ checks, results }: Diagnosis, style: Style): string {
  const width = Math.max(...checks.map(({ check }) => check.length));
  const lines = checks.flatMap(({ check, result, found, advice }) => [
    `${mark(result, style)}${' '.repeat(RESULT_WIDTH - result.length)}  ${check.padEnd(width)}  ${found}\n`,
    ...(advice === undefined ? [] : [`${' '.repeat(RESULT_WIDTH + width + 4)}→ ${advice}\n`]),
  ]);
  const count = (result: CheckOutcome, one: string, many: string) =>
    results[result] === 0 ? [] : [`${results[result]} ${results[result] === 1 ? one : many}`];
  const summary = [
    ...count('error', 'error', 'errors'),
    ...count('warning', 'warning', 'warnings'),
    ...count('hint', 'hint', 'hints'),
    ...count('skipped', 'not checked', 'not checked'),
    `${results.ok} ok`,
  ];
  return `${lines.join('')}\n${summary.join(', ')}\n`;
}

function mark(result: CheckOutcome, style: Style): string {
  switch (result) {
    case 'ok':
      return style.good('ok');
    case 'hint':
      return 'hint';
    case 'warning':
      return style.warn('warning');
    case 'error':
      return style.bad('error');
    case 'skipped':
      return style.dim('skipped');
  }
}
