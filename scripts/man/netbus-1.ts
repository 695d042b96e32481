/** netbus(1): the verbs and their options from the program itself, and what belongs to none of them. */

import type { Command } from 'commander';
import { errorCodes } from '../../src/device/errors.ts';
import { optionList, optionMacros, ownOptions, sections, synopsis, textAfter, verbBody, verbName, verbsOf } from './command.ts';
import { argument, definitions, literal, paragraphs, prose } from './mdoc.ts';
import { header, type PageOptions, seeAlso } from './page.ts';

const DESCRIPTION = `
A device of one host is used by a virtual machine on any other as if it were plugged into its own.
The daemon of each host, netbusd(8), does the work; this program tells it what to do, over the control socket of the host that it is typed on.

On the host that has a device, \`netbus export\` says which hosts may use it.
On the host that runs the virtual machine, \`netbus attach\` makes it a device of that machine and prints what the virtual machine monitor needs for it.

The answer goes to standard output, everything else to standard error.
Text is for people and may change from release to release.
With \`--json\` the answer is for programs: sizes are in bytes, times in ISO 8601, and members are only ever added.
A failure is one line on standard error, which says what is wrong, where, and what to do; with \`--json\` it is an object with a stable code.
`;

const INTERRUPTED = `130`;

export function netbusPage(program: Command, options: PageOptions): string {
  const verbs = verbsOf(program);
  const examples = sections(textAfter(program)).find(({ title }) => title === 'Examples');
  return [
    header('netbus', '1', 'devices of one host, used by virtual machines on any other', options),
    '.Sh SYNOPSIS',
    '.Nm netbus',
    ...ownOptions(program).map((option) => `.Op ${optionMacros(option).replace(/^Fl \S+ , /, '')}`),
    '.Ar verb',
    '.Op Ar argument ...',
    '.Sh DESCRIPTION',
    paragraphs(DESCRIPTION),
    '.Pp',
    prose('These options may stand before or after every verb:'),
    optionList(program, [...ownOptions(program), helpOption(program)]),
    '.Sh VERBS',
    ...verbs.flatMap((verb) => [`.Ss ${argument(verbName(verb))}`, synopsisLine(verb), '.Pp', verbBody(verb)]),
    '.Sh ENVIRONMENT',
    definitions(environment(program, verbs)),
    '.Sh FILES',
    definitions([
      ['Pa /run/netbus/netbus.sock', prose('The control socket: whoever may write to it may do everything.')],
      ['Pa /run/netbus/VM/NAME.sock', prose('The socket of a virtual device, for the virtual machine monitor.')],
    ]),
    '.Sh EXIT STATUS',
    definitions(exitStatus(), '-tag -width 130'),
    ...(examples === undefined ? [] : ['.Sh EXAMPLES', literal(examples.body)]),
    seeAlso(['netbus.yaml 5', 'netbusd 8']),
  ].join('\n');
}

function synopsisLine(verb: Command): string {
  const line = synopsis(verb);
  return `.Nm netbus Cm ${verbName(verb)}${line === '' ? '' : ` ${line}`}`;
}

/** Commander keeps `--help` apart from the others. */
function helpOption(program: Command) {
  const help = program.createHelp();
  const found = help.visibleOptions(program).find(({ long }) => long === '--help');
  if (found === undefined) throw new Error('the program has no --help');
  return found;
}

function environment(program: Command, verbs: readonly Command[]): [string, string][] {
  const variables = [program, ...verbs].flatMap(({ options }) => options).filter(({ envVar }) => envVar !== undefined);
  return [
    ...variables.map(({ envVar, long }): [string, string] => [`Ev ${envVar}`, prose(`The same as \`${long}\`.`)]),
    ['Ev NO_COLOR', prose('Without colours, also on a terminal.')],
  ];
}

/** What a status means, with the codes of `--json` that end with it. */
function exitStatus(): [string, string][] {
  const meanings: Record<number, string> = {
    0: 'It is done.',
    1: 'It failed.',
    2: 'A mistake of usage, or in the configuration.',
    3: 'There is no such export, attachment, host or file.',
    4: 'Somebody else has it.',
    5: 'The daemon, or that of the other host, does not answer.',
    6: 'It is not allowed.',
    7: 'It took longer than its bound; the daemon may have carried it out all the same.',
  };
  const statuses = new Set([0, ...Object.values(errorCodes).map(({ exit }) => exit)]);
  const rows = [...statuses]
    .sort((a, b) => a - b)
    .map((status): [string, string] => {
      const codes = Object.entries(errorCodes).filter(([, { exit }]) => exit === status);
      const named = codes.map(([code]) => `\`${code}\``).join(', ');
      if (meanings[status] === undefined) throw new Error(`exit status ${status} has no words in the manual page`);
      return [String(status), prose(meanings[status] + (named === '' ? '' : ` Codes: ${named}.`))];
    });
  return [...rows, [INTERRUPTED, prose('Interrupted; the daemon may have carried it out all the same.')]];
}
