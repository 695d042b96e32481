/** `netbus attach`: gives a VM of this host a device, and says what QEMU needs for it. */
import type { Command } from 'commander';
import type { AttachmentEntry } from '../api/types.ts';
import { formatBytes, type Style, shellQuote } from '../lib/format.ts';
import { Context, splitPair } from './context.ts';

export function addAttach(program: Command): void {
  program
    .command('attach')
    .summary('give a VM of this host a device of any host')
    .description(
      'Gives VM, on this host, the device NAME of HOST (which may be this one). Prints the socket that the VMM connects to and the arguments that QEMU is started with.',
    )
    .argument('<host/name>', 'the device, as `netbus ls` shows it')
    .requiredOption('--vm <vm>', 'name of the VM')
    .option('--as <name>', "what it is called in the VM (default: the export's name)")
    .addHelpText(
      'after',
      `
Examples:
  netbus attach m1/data --vm web
  qemu-system-x86_64 ... $(netbus attach m1/data --vm web --json | jq -r '.qemuArguments[]')
`,
    )
    .action(async (device: string, options: { vm: string; as?: string }, command: Command) => {
      const context = new Context(command);
      splitPair(device, 'HOST/NAME');
      const { vm, as: name } = options;
      const entry = await context.client.attach({ device, vm, ...(name !== undefined && { name }) });
      context.print(entry, (style) => describe(entry, style));
    });
}

function describe(entry: AttachmentEntry, style: Style): string {
  const access = entry.readOnly ? 'read-only' : 'read and write';
  const place = entry.local ? 'on this host' : 'remote';
  return `${style.bold(`${entry.vm}/${entry.name}`)} is ${entry.device}: ${formatBytes(entry.capacityBytes)}, ${access}, ${place}
socket: ${entry.socket}
QEMU arguments:
${argumentLines(entry.qemuArguments)}
The guest's memory must be shared, so QEMU needs this, too, unless it has it already (the size is that of -m):
  -object memory-backend-memfd,id=mem,size=1G,share=on \\
  -machine q35,memory-backend=mem
`;
}

/** An option and its value on a line, ready to be pasted into a shell. */
function argumentLines(argv: readonly string[]): string {
  const lines: string[] = [];
  for (const argument of argv) {
    if (argument.startsWith('-') || lines.length === 0) lines.push(`  ${shellQuote(argument)}`);
    else lines[lines.length - 1] += ` ${shellQuote(argument)}`;
  }
  return lines.join(' \\\n');
}
