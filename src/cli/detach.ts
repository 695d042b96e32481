/** `netbus detach`: takes a device from a VM, out of the running QEMU first where it is told of it. */
import { type Command, InvalidArgumentError } from 'commander';
import { Context, splitPair } from './context.ts';
import { unplugAndDetach } from './detach-qmp.ts';

/** A guest that runs lets a disk go in a second or two; one that boots needs longer. */
const TIMEOUT_S_DEFAULT = 30;
const TIMEOUT_S_MAX = 3600;

interface DetachOptions {
  force?: boolean;
  qmp?: string;
  timeout: number;
}

export function addDetach(program: Command): void {
  program
    .command('detach')
    .summary('take a device from a VM of this host')
    .description(
      'Takes a device from a VM of this host. It is refused while the VM is connected, unless --force is given; with --qmp the running guest is asked to let it go first.',
    )
    .argument('<vm/name>', 'the attachment, as `netbus status` shows it')
    .option('--force', "although the VM is connected (it loses the device), or the device's host does not answer")
    .option('--qmp <socket>', "the running QEMU's QMP socket: unplug it there first")
    .option('--timeout <seconds>', 'how long the guest has to let it go, with --qmp', seconds, TIMEOUT_S_DEFAULT)
    .addHelpText('after', '\nExamples:\n  netbus detach web/data\n  netbus detach web/data --qmp /run/web.qmp\n')
    .action(async (attachment: string, { force = false, qmp, timeout }: DetachOptions, command: Command) => {
      const context = new Context(command);
      const [vm, name] = splitPair(attachment, 'VM/NAME');
      const answer =
        qmp === undefined
          ? await context.client.detach(vm, name, { force })
          : await unplugAndDetach(context, { vm, name, force, path: qmp, timeoutMs: timeout * 1000 });
      context.print(answer, () => `${attachment} is detached\n`);
      context.warn(answer.warnings);
    });
}

function seconds(value: string): number {
  const parsed = Number(value);
  if (value.trim() === '' || !(parsed > 0 && parsed <= TIMEOUT_S_MAX)) {
    throw new InvalidArgumentError(`It is a number of seconds up to ${TIMEOUT_S_MAX}.`);
  }
  return parsed;
}
