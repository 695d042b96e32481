/** The command line: its verbs, and how each ends. */
import { Command, CommanderError, Option } from 'commander';
import packageJson from '../../package.json' with { type: 'json' };
import { errorCodes, NetbusError } from '../device/errors.ts';
import { addAttach } from './attach.ts';
import { addAttachments } from './attachments.ts';
import { addCompletion } from './completion.ts';
import { addDaemon } from './daemon.ts';
import { addDetach } from './detach.ts';
import { addDoctor } from './doctor.ts';
import { addEvents } from './events.ts';
import { addEvict } from './evict.ts';
import { addExport } from './export.ts';
import { addFence } from './fence.ts';
import { addGrow } from './grow.ts';
import { withGuess } from './guess.ts';
import { addInit } from './init.ts';
import { addInvite } from './invite.ts';
import { addJob } from './job.ts';
import { addJobs } from './jobs.ts';
import { addJoin } from './join.ts';
import { addLs } from './ls.ts';
import { addMembers } from './members.ts';
import { addMigrate } from './migrate.ts';
import { addPrepare } from './prepare.ts';
import { addSetAddress } from './set-address.ts';
import { addStatus } from './status.ts';
import { addSwap } from './swap.ts';
import { addUnexport } from './unexport.ts';
import { checkHelp, usageError } from './usage.ts';

const EXAMPLES = `
Examples:
  netbus export data --disk /srv/images/data.img --allow m2   # on m1
  netbus attach m1/data --vm web                              # on m2
  netbus status

Exit status:
  0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 in use, 5 daemon unreachable,
  6 denied, 7 timeout, 130 interrupted
`;

/** Runs the command line `argv` (without node and script). Returns the exit status; never throws. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  // Where commander was when it found a mistake, and the verb that it ran.
  const at: Place = { command: undefined, ran: undefined };
  const program = makeProgram(at);
  try {
    checkHelp(program, argv);
    await program.parseAsync(argv, { from: 'user' });
    // A verb may have answered, and still say that not all is well.
    return Number(process.exitCode ?? 0);
  } catch (thrown) {
    // Help and the version have been printed; without a verb the help stands on stderr, and it is a mistake.
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return 0;
    if (thrown instanceof CommanderError && thrown.code === 'commander.help') return errorCodes.usage.exit;
    const error =
      thrown instanceof CommanderError
        ? usageError(thrown, at.command ?? program, argv)
        : await withGuess(NetbusError.from(thrown), at.ran);
    process.stderr.write(argv.includes('--json') ? jsonLine(error) : textLines(error));
    if (error.code === 'internal' && process.env.NETBUS_DEBUG) process.stderr.write(`${error.cause ?? error.stack}\n`);
    return errorCodes[error.code].exit;
  }
}

interface Place {
  command: Command | undefined;
  ran: Command | undefined;
}

/** All verbs with their options; the manual page and the completions are made of it, too. */
export function makeProgram(at: Place = { command: undefined, ran: undefined }): Command {
  const program = new Command('netbus')
    .description('A device of one host, used by a virtual machine on any other.')
    .version(packageJson.version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .addOption(new Option('--run-dir <dir>', "the daemon's run folder (default: /run/netbus)").env('NETBUS_RUN_DIR'))
    .addOption(new Option('--socket <path>', "the daemon's control socket (default: netbus.sock in the run folder)"))
    .option('--json', 'print the answer as one line of JSON, and an error as one on stderr')
    .addHelpText('after', EXAMPLES)
    .configureHelp({ showGlobalOptions: true, sortOptions: false, helpWidth: helpWidth() })
    // What commander has to say of a mistake is in the error that it throws.
    .configureOutput({ outputError: () => {} })
    .exitOverride();
  addInit(program);
  addDaemon(program);
  addExport(program);
  addUnexport(program);
  addAttach(program);
  addDetach(program);
  addPrepare(program);
  addGrow(program);
  addMigrate(program);
  addSwap(program);
  addJobs(program);
  addJob(program);
  addLs(program);
  addAttachments(program);
  addStatus(program);
  addEvents(program);
  addInvite(program);
  addJoin(program);
  addMembers(program);
  addSetAddress(program);
  addEvict(program);
  addFence(program);
  addDoctor(program);
  addCompletion(program);
  program.helpCommand('help [verb]', 'print the help of a verb');
  noteMistakes(program, at);
  program.hook('preAction', (_program, command) => {
    at.ran = command;
  });
  return program;
}

/** A mistake is thrown, and it is known at which verb it was made. */
function noteMistakes(command: Command, at: Place): void {
  command.exitOverride((error) => {
    at.command = command;
    throw error;
  });
  for (const below of command.commands) noteMistakes(below, at);
}

function helpWidth(): number {
  return Math.min(process.stdout.columns ?? 100, 100);
}

function jsonLine({ code, message }: NetbusError): string {
  return `${JSON.stringify({ error: { code, message } })}\n`;
}

/** One line, or one for each mistake of a config file. */
function textLines({ message }: NetbusError): string {
  return message
    .trim()
    .split(/\s*\n\s*/)
    .map((line) => `netbus: ${line}\n`)
    .join('');
}
