/** The command line as data: what commander was told of verbs, options and arguments, for the scripts that complete them. */
import type { Argument, Command, Option } from 'commander';
import { completionOf, type Value } from './kinds.ts';

export interface CommandNode {
  /** `""` of the program, `attach` of a verb, `a b` of a verb below a verb. */
  readonly path: string;
  /** Verbs below it. */
  readonly commands: readonly { readonly name: string; readonly description: string }[];
  /** Its own. */
  readonly options: readonly OptionNode[];
  /** Long flags that make sense behind it: its own, and those of the nodes above it, which are taken in any place. */
  readonly flags: readonly { readonly name: string; readonly description: string }[];
  readonly arguments: readonly ArgumentNode[];
}

export interface OptionNode {
  /** `-h` and `--help`. */
  readonly flags: readonly string[];
  readonly description: string;
  /** Undefined where it takes none. */
  readonly value: Value | undefined;
}

export interface ArgumentNode {
  readonly value: Value;
  /** Stands for all that follow, too. */
  readonly variadic: boolean;
}

/** The program first, then each verb. */
export function commandTree(program: Command): CommandNode[] {
  return nodes(program, '', [], []);
}

function nodes(
  command: Command,
  path: string,
  siblings: readonly string[],
  above: readonly CommandNode['flags'][number][],
): CommandNode[] {
  const help = command.createHelp();
  const commands = help.visibleCommands(command);
  const names = commands.map((below) => below.name());
  const options = help.visibleOptions(command).map((option) => optionNode(option, path));
  const own = options.flatMap((option) => {
    const name = option.flags.find((flag) => flag.startsWith('--'));
    return name === undefined ? [] : [{ name, description: option.description }];
  });
  const flags = [...own, ...above.filter(({ name }) => !own.some((flag) => flag.name === name))];
  // `--version` is of the program alone.
  const inherited = flags.filter(({ name }) => name !== '--version');
  const node: CommandNode = {
    path,
    commands: commands.map((below) => ({ name: below.name(), description: below.summary() || below.description() })),
    options,
    flags,
    arguments: command.registeredArguments.map((argument) => argumentNode(argument, path, siblings)),
  };
  const pathOf = (name: string) => (path === '' ? name : `${path} ${name}`);
  return [node, ...commands.flatMap((below) => nodes(below, pathOf(below.name()), names, inherited))];
}

function optionNode(option: Option, path: string): OptionNode {
  const { short, long, description, argChoices } = option;
  const takesValue = option.required || option.optional;
  const placeholder = /[<[]([^>\]]*?)(?:\.{3})?[>\]]/.exec(option.flags)?.[1] ?? '';
  return {
    flags: [short, long].filter((flag) => flag !== undefined),
    description,
    value: takesValue ? completionOf(path, long ?? short ?? '', placeholder, argChoices) : undefined,
  };
}

function argumentNode(argument: Argument, path: string, siblings: readonly string[]): ArgumentNode {
  const name = argument.name();
  // `netbus help VERB`, which commander makes itself.
  const choices = name === 'verb' ? siblings : argument.argChoices;
  return { value: completionOf(path, name, name, choices), variadic: argument.variadic };
}
