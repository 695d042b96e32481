/** `netbus attach`: gives a VM of this host a device, and says what its VMM needs for it, or plugs it into a running QEMU. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type AttachmentEntry, type AttachRequest, FENCE_AFTER_MS_MIN, HOLD_MS_MAX } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { formatBytes, type Style } from '../lib/format.ts';
import { deviceId } from '../vmm/disk.ts';
import { VMM_FORMATS, type VmmFormat, vmmText } from '../vmm/text/index.ts';
import { attachAndPlug } from './attach-qmp.ts';
import { Context, splitPair } from './context.ts';
import { parseSpan } from './since.ts';

interface AttachOptions {
  vm: string;
  as?: string;
  hold?: number;
  takeover?: true;
  forceStale?: true;
  fenceAfter?: number;
  format: VmmFormat;
  qmp?: string;
  bus?: string;
}

export function addAttach(program: Command): void {
  program
    .command('attach')
    .summary('give a VM of this host a device of any host')
    .description(
      'Gives VM, on this host, the device NAME of HOST (which may be this one). Prints the socket that the VMM connects to and what the VMM is to be told; with --qmp it plugs the device into the running QEMU itself.',
    )
    .argument('<host/name>', 'the device, as `netbus ls` shows it')
    .requiredOption('--vm <vm>', 'name of the VM')
    .option('--as <name>', "what it is called in the VM (default: the export's name)")
    .option(
      '--hold <time>',
      'how long its requests wait while the device is away, before they fail: forever, 0, or a time such as 60s (default: forever)',
      hold,
    )
    .option('--takeover', 'start a VM anew here that another host had, which was fenced or has stopped it')
    .option('--force-stale', 'although a swap has left a stale copy on the device: for someone who knows that it is wanted')
    .option(
      '--fence-after <time>',
      'another host may take over once this one has had no session with the device for so long, such as 60s (default: never)',
      fenceAfter,
    )
    .addOption(new Option('--format <format>', 'whose text is printed').choices(VMM_FORMATS).default('qemu'))
    .addOption(new Option('--qmp <socket>', "the running QEMU's QMP socket: plug it in there").conflicts('format'))
    .option(
      '--bus <id>',
      'where QEMU plugs it in: a free pcie-root-port, or a PCI bus (default with --qmp: the first that is free)',
    )
    .addHelpText(
      'after',
      `
Examples:
  netbus attach m1/data --vm web
  netbus attach m1/data --vm web --format libvirt    # where it is attached already: prints its text again
  netbus attach m1/data --vm web --qmp /run/web.qmp
  netbus attach m1/data --vm web --takeover          # after "netbus fence m2", where m2 had it
  qemu-system-x86_64 ... $(netbus attach m1/data --vm web --json | jq -r '.qemuArguments[]')
`,
    )
    .action(async (device: string, options: AttachOptions, command: Command) => {
      const context = new Context(command);
      const [, exported] = splitPair(device, 'HOST/NAME');
      const { vm, as: name, hold: holdMs, takeover, forceStale, fenceAfter: fenceAfterMs, format, qmp, bus } = options;
      if (bus !== undefined && qmp === undefined && format !== 'qmp') {
        throw new NetbusError('usage', '--bus goes with --qmp or with --format qmp');
      }
      const request = {
        device,
        vm,
        ...(name !== undefined && { name }),
        ...(holdMs !== undefined && { holdMs }),
        ...(takeover !== undefined && { takeover }),
        ...(forceStale !== undefined && { forceStale }),
        ...(fenceAfterMs !== undefined && { fenceAfterMs }),
      };
      if (qmp !== undefined) {
        const id = deviceId(vm, name ?? exported);
        const { entry, plugged, warnings } = await attachAndPlug(context, request, {
          id,
          path: qmp,
          ...(bus !== undefined && { bus }),
        });
        context.print(
          { ...entry, plugged, warnings },
          (style) => `${describe(entry, style)}plugged into QEMU ${plugged.qemu} as ${plugged.id}, at ${plugged.bus}\n`,
        );
        context.warn(warnings);
        return;
      }
      const entry = await context.client.attach(request).catch((thrown) => attachedBefore(context, request, thrown));
      const disk = { id: deviceId(entry.vm, entry.name), socket: entry.socket, queues: entry.queues };
      const { text, parts } = vmmText(format, disk, { vm, ...(bus !== undefined && { bus }) });
      context.print({ ...entry, vmm: { format, ...parts } }, (style) => `${describe(entry, style)}${text}`);
    });
}

/** Who types the same once more has lost what it printed the first time: that is told again. Throws `thrown` where it is not the same. */
async function attachedBefore(context: Context, request: AttachRequest, thrown: unknown): Promise<AttachmentEntry> {
  if (NetbusError.from(thrown).code !== 'in_use') throw thrown;
  const { device, vm, name = splitPair(device, 'HOST/NAME')[1], holdMs } = request;
  const { attachments } = await context.client.status();
  const entry = attachments.find((other) => other.vm === vm && other.name === name && other.device === device);
  if (entry === undefined) throw thrown;
  if (holdMs !== undefined && holdMs !== entry.holdMs) {
    throw new NetbusError(
      'in_use',
      `${vm}/${name} is attached already, with another hold time: to change that, detach it first`,
    );
  }
  context.note(`${vm}/${name} was attached before; nothing is changed\n`);
  return entry;
}

/** Milliseconds; undefined = for ever. */
function hold(value: string): number | undefined {
  if (value === 'forever') return undefined;
  const milliseconds = value === '0' ? 0 : parseSpan(value);
  if (milliseconds !== undefined && milliseconds <= HOLD_MS_MAX) return milliseconds;
  throw new InvalidArgumentError('It is "forever", 0, or a time such as 60s, 15min or 2h, 7d at most.');
}

/** Milliseconds. */
function fenceAfter(value: string): number {
  const milliseconds = parseSpan(value);
  if (milliseconds !== undefined && milliseconds >= FENCE_AFTER_MS_MIN && milliseconds <= HOLD_MS_MAX) return milliseconds;
  throw new InvalidArgumentError('It is a time such as 60s, 15min or 2h, 10s at least and 7d at most.');
}

function describe(entry: AttachmentEntry, style: Style): string {
  const access = entry.readOnly ? 'read-only' : 'read and write';
  const place = entry.local ? 'on this host' : 'remote';
  return `${style.bold(`${entry.vm}/${entry.name}`)} is ${entry.device}: ${formatBytes(entry.capacityBytes)}, ${access}, ${place}
socket: ${entry.socket}
`;
}
