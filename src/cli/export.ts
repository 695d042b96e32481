/** `netbus export`: offers a disk of this host to other hosts. */
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ExportEntry } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { formatBytes } from '../lib/format.ts';
import { nearest } from '../lib/nearest.ts';
import { Context } from './context.ts';

interface ExportOptions {
  disk?: string;
  nbd?: string;
  readOnly?: true;
  direct?: true;
  allow?: string[];
  reopen?: true;
}

export function addExport(program: Command): void {
  program
    .command('export')
    .summary('offer a disk of this host to other hosts')
    .description(
      'Offers an image file or a block device of this host, or an export of an NBD server, under NAME, to the hosts that --allow names.',
    )
    .argument('<name>', 'what the export is called; HOST/NAME on other hosts')
    .option('--disk <path>', 'image file or block device; its size is a multiple of 512 bytes')
    .addOption(
      new Option(
        '--nbd <uri>',
        'instead of a disk: an export of an NBD server such as qemu-nbd or nbdkit, nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=/PATH',
      ).conflicts(['disk', 'direct']),
    )
    .option('--allow <hosts>', 'hosts that may use it, separated by commas; this one too, if it may', hostList)
    .option('--read-only', 'nobody may write; several VMs may use it at once')
    .option('--direct', 'use O_DIRECT, past the page cache of this host')
    .addOption(
      new Option(
        '--reopen',
        'open an export that there is anew, after a flush had failed or the image was replaced; its VMs go on',
      ).conflicts(['disk', 'nbd', 'allow', 'readOnly', 'direct']),
    )
    .addHelpText(
      'after',
      `
Examples:
  netbus export data --disk /srv/images/data.img --allow m2,m3
  netbus export data --reopen
  netbus export root --nbd 'nbd+unix:///?socket=/run/root.sock' --allow m2
  netbus export tools --disk /dev/vg0/tools --read-only --allow m2
`,
    )
    .action(async (name: string, options: ExportOptions, command: Command) => {
      const context = new Context(command);
      const { disk, nbd, allow, readOnly = false, direct = false, reopen } = options;
      if (reopen) {
        const entry = await context.client.reopen(name);
        context.print(entry, () => `opened ${name} anew${trouble(entry)}\n`);
        return;
      }
      const backing = disk !== undefined ? { disk: resolve(disk) } : nbd !== undefined ? { nbd } : undefined;
      if (backing === undefined || allow === undefined) {
        const missing = [backing === undefined && '--disk <path>', allow === undefined && '--allow <hosts>']
          .filter(Boolean)
          .join(' and ');
        throw new NetbusError(
          'usage',
          `${missing} not specified; type: netbus export <name> --disk <path> --allow <hosts>; see "netbus export --help"`,
        );
      }
      const entry = await context.client.export({ name, ...backing, readOnly, direct, allow });
      context.print(entry, () => describe(entry));
      context.warn(await unknownHosts(context, entry.allow));
    });
}

/** An export may be made before its host joins, and a mistyped name looks just like that. The export is there, so this never fails. */
async function unknownHosts(context: Context, allow: readonly string[]): Promise<string[]> {
  const answer = await context.client.members().catch(() => undefined);
  if (answer?.members === undefined) return [];
  const hosts = answer.members.filter(({ state }) => state === 'member').map(({ host }) => host);
  const unknown = allow.filter((host) => !hosts.includes(host));
  return unknown.map((host) => {
    const near = nearest(host, hosts);
    return `host ${host} is not a member of cluster ${answer.cluster}${near === undefined ? '' : ` (did you mean ${near}?)`}: it may use this once it has joined`;
  });
}

function describe(entry: ExportEntry): string {
  const access = entry.readOnly ? 'read-only' : 'one VM at a time';
  return `exported ${entry.device} as ${entry.name}: ${formatBytes(entry.capacityBytes)}, ${access}, for ${entry.allow.join(', ')}${trouble(entry)}\n`;
}

function trouble({ state, reason }: ExportEntry): string {
  return state === 'ready' ? '' : `; it is ${state}${reason ? `: ${reason}` : ''}`;
}

/** May be given several times, too. */
function hostList(value: string, previous: string[] = []): string[] {
  const hosts = value.split(',').map((host) => host.trim());
  if (hosts.includes('')) throw new InvalidArgumentError('It is a list of host names such as m2,m3.');
  return [...new Set([...previous, ...hosts])];
}
