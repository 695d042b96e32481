/** Mistakes on the command line, in one line: what is wrong, and how it is typed. */
import type { Command, CommanderError } from 'commander';
import { NetbusError } from '../device/errors.ts';
import { nearest } from '../lib/nearest.ts';

/** `command` is the one that commander was at; `argv` is all that was typed. */
export function usageError(error: CommanderError, command: Command, argv: readonly string[]): NetbusError {
  const unknown = error.code === 'commander.missingMandatoryOptionValue' ? unknownFlag(command, argv) : undefined;
  const message = unknown === undefined ? oneLine(error.message.replace(/^error: /, '')).replace(/\.$/, '') : unknown;
  const text = [message, ...advice(error, command, argv)].join('; ');
  return new NetbusError('usage', `${text}; see "${pathOf(command)} --help"`, { cause: error });
}

/** `netbus help VERB` of a verb that is not there prints the help of all, unless it is caught before. */
export function checkHelp(program: Command, argv: readonly string[]): void {
  const [first, verb] = argv;
  const verbs = program.commands.map((command) => command.name());
  if (first !== 'help' || verb === undefined || verb.startsWith('-') || verb === 'help' || verbs.includes(verb)) return;
  const near = nearest(verb, verbs);
  const guess = near === undefined ? '' : ` (Did you mean ${near}?)`;
  throw new NetbusError('usage', `unknown command '${verb}'${guess}; see "netbus --help"`);
}

function advice({ code, message }: CommanderError, command: Command, argv: readonly string[]): string[] {
  switch (code) {
    case 'commander.missingMandatoryOptionValue':
    case 'commander.missingArgument':
      return [`type: ${typed(command)}`];
    case 'commander.excessArguments':
      return [...joined(command), `type: ${typed(command)}`];
    case 'commander.unknownOption': {
      const flag = /'(--?[^']+)'/.exec(message)?.[1];
      const others = flag === undefined ? [] : verbsWith(root(command), flag);
      return others.length === 0 || message.includes('Did you mean')
        ? []
        : [`it belongs behind ${new Intl.ListFormat('en', { type: 'disjunction' }).format(others)}`];
    }
    case 'commander.unknownCommand':
      return argv.some((word) => word.includes('/')) ? ['the verb comes first'] : [];
    default:
      return [];
  }
}

/** Commander misses what is required before it sees what is misspelt: `attach m1/data --wm web`. */
function unknownFlag(command: Command, argv: readonly string[]): string | undefined {
  const known = [...command.options, ...root(command).options].flatMap(({ short, long }) => [short, long]);
  const end = argv.indexOf('--');
  for (const word of end < 0 ? argv : argv.slice(0, end)) {
    const flag = word.split('=', 1)[0];
    if (!/^--[a-z]/.test(flag) || known.includes(flag)) continue;
    const near = nearest(
      flag,
      known.filter((other) => other !== undefined),
    );
    return `unknown option '${flag}'${near === undefined ? '' : ` (Did you mean ${near}?)`}`;
  }
  return undefined;
}

/** The shortest line that is complete: `netbus attach <host/name> --vm <vm>`. */
function typed(command: Command): string {
  const args = command.registeredArguments.map((argument) =>
    argument.required ? `<${argument.name()}>` : `[${argument.name()}]`,
  );
  const options = command.options.filter(({ mandatory }) => mandatory).map(({ flags }) => flags.split(', ').at(-1));
  return [pathOf(command), ...args, ...options].join(' ');
}

/** Two words where one with a slash between them is wanted: `detach web data`. */
function joined(command: Command): string[] {
  const [first, second, ...rest] = command.args;
  const wanted = command.registeredArguments[0]?.name() ?? '';
  if (!wanted.includes('/') || second === undefined || rest.length > 0 || `${first}${second}`.includes('/')) return [];
  return [`did you mean ${first}/${second}`];
}

function verbsWith(program: Command, flag: string): string[] {
  return program.commands
    .filter(({ options }) => options.some(({ short, long }) => short === flag || long === flag))
    .map((command) => command.name());
}

function root(command: Command): Command {
  return command.parent === null ? command : root(command.parent);
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' ');
}
