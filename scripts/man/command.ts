/** What commander knows of a verb, as mdoc: the pages say what `--help` says, because they are made of the same. */

import type { Argument, Command, Option } from 'commander';
import { argument, definitions, literal, prose, sentence } from './mdoc.ts';

/** The verbs, in the order of the help, without `help` itself; those that have verbs of their own are replaced by these. */
export function verbsOf(program: Command): Command[] {
  return program
    .createHelp()
    .visibleCommands(program)
    .filter((command) => command.name() !== 'help')
    .flatMap((command) => (command.commands.length === 0 ? [command] : verbsOf(command)));
}

/** "export", or "key show" of a verb below a verb. */
export function verbName(verb: Command): string {
  const { parent } = verb;
  return parent === null || parent.parent === null ? verb.name() : `${verbName(parent)} ${verb.name()}`;
}

/** Options of a command alone, without `--help` and without those of all verbs. */
export function ownOptions(command: Command): Option[] {
  return command.options.filter((option) => !option.hidden);
}

/** `Fl -vm Ar vm`, as in a synopsis; brackets are the caller's. */
export function optionMacros({ short, long, required, optional, flags }: Option): string {
  const value = /[<[]([^>\]]+)[>\]]/.exec(flags)?.[1];
  const names = [short, long].filter((name) => name !== undefined).map((name) => `Fl ${argument(name.slice(1))}`);
  const operand = value === undefined ? '' : optional ? ` ${bracketed(`Ar ${argument(value)}`)}` : ` Ar ${argument(value)}`;
  return `${names.join(' , ')}${required || optional ? operand : ''}`;
}

/** Op would go on to the end of the line. */
function bracketed(macros: string): string {
  return `Oo ${macros} Oc`;
}

function argumentMacros(each: Argument): string {
  const name = `Ar ${argument(each.name())}${each.variadic ? ' ...' : ''}`;
  return each.required ? name : bracketed(name);
}

/** The command line of a verb, as macros that continue a line. */
export function synopsis(verb: Command): string {
  const operands = verb.registeredArguments.map(argumentMacros);
  // The long name alone: the list of options has the short one.
  const options = ownOptions(verb).map((option) => {
    const macros = optionMacros(option).replace(/^Fl \S+ , /, '');
    return option.mandatory ? macros : bracketed(macros);
  });
  return [...operands, ...options].join(' ');
}

/** A list of options with what the help says of them, defaults, choices and variables included. */
export function optionList(command: Command, options: readonly Option[]): string {
  const help = command.createHelp();
  return definitions(options.map((option) => [optionMacros(option), sentence(help.optionDescription(option))]));
}

/** What a verb does, its operands, its options and its examples. */
export function verbBody(verb: Command): string {
  const parts = [prose(verb.description() || verb.summary())];
  const help = verb.createHelp();
  const operands = verb.registeredArguments.map((each): [string, string] => [
    `Ar ${argument(each.name())}`,
    sentence(help.argumentDescription(each)),
  ]);
  if (operands.length > 0) parts.push(definitions(operands));
  const options = ownOptions(verb);
  if (options.length > 0) parts.push(optionList(verb, options));
  for (const { title, body } of sections(textAfter(verb))) parts.push(`.Pp\n${prose(`${title}:`)}\n${literal(body)}`);
  return parts.join('\n');
}

/** The sections that follow a command's help, such as "Examples:", with the lines below them. */
export function sections(text: string): { title: string; body: string }[] {
  const found: { title: string; lines: string[] }[] = [];
  for (const line of text.trim().split('\n')) {
    const title = /^(\S.*):$/.exec(line)?.[1];
    if (title !== undefined) found.push({ title, lines: [] });
    else if (line.trim() !== '' && found.length === 0) found.push({ title: 'Note', lines: [line] });
    else found.at(-1)?.lines.push(line);
  }
  return found.map(({ title, lines }) => ({ title, body: unindent(lines).join('\n').trim() }));
}

/** What `addHelpText('after')` adds. Commander has no other way to ask for it than to print the help. */
export function textAfter(command: Command): string {
  const output = command.configureOutput();
  let text = '';
  command.configureOutput({ ...output, writeOut: (part) => (text += part) });
  command.outputHelp();
  command.configureOutput(output);
  return text.slice(command.helpInformation().length);
}

function unindent(lines: readonly string[]): string[] {
  const depth = Math.min(...lines.filter((line) => line.trim() !== '').map((line) => line.length - line.trimStart().length));
  return lines.map((line) => line.slice(depth));
}
