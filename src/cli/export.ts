/** `netbus export`: offers a disk of this host to other hosts. */
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import type { ExportEntry } from '../api/types.ts';
import { formatBytes } from '../lib/format.ts';
import { nearest } from '../lib/nearest.ts';
import { Context } from './context.ts';

interface ExportOptions {
  disk: string;
  readOnly?: true;
  direct?: true;
  allow: string[];
}

export function addExport(program: Command): void {
  program
    .command('export')
    .summary('offer a disk of this host to other hosts')
    .description('Offers an image file or a block device of this host, under NAME, to the hosts that --allow names.')
    .argument('<name>', 'what the export is called; HOST/NAME on other hosts')
    .requiredOption('--disk <path>', 'image file or block device; its size is a multiple of 512 bytes')
    .requiredOption('--allow <hosts>', 'hosts that may use it, separated by commas; this one too, if it may', hostList)
    .option('--read-only', 'nobody may write; several VMs may use it at once')
    .option('--direct', 'use O_DIRECT, past the page cache of this host')
    .addHelpText(
      'after',
      `
Examples:
  netbus export data --disk /srv/images/data.img --allow m2,m3
  netbus export tools --disk /dev/vg0/tools --read-only --allow m2
`,
    )
    .action(async (name: string, options: ExportOptions, command: Command) => {
      const context = new Context(command);
      const entry = await context.client.export({
        name,
        disk: resolve(options.disk),
        readOnly: options.readOnly ?? false,
        direct: options.direct ?? false,
        allow: options.allow,
      });
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
  const trouble = entry.state === 'ready' ? '' : `; it is ${entry.state}${entry.reason ? `: ${entry.reason}` : ''}`;
  return `exported ${entry.device} as ${entry.name}: ${formatBytes(entry.capacityBytes)}, ${access}, for ${entry.allow.join(', ')}${trouble}\n`;
}

/** May be given several times, too. */
function hostList(value: string, previous: string[] = []): string[] {
  const hosts = value.split(',').map((host) => host.trim());
  if (hosts.includes('')) throw new InvalidArgumentError('It is a list of host names such as m2,m3.');
  return [...new Set([...previous, ...hosts])];
}
