/** `netbus migrate`: moves a running VM of a plain QEMU to another host, and its devices with it. */
import { type Command, InvalidArgumentError } from 'commander';
import { type Follow, followSchema } from '../api/jobs.ts';
import { NetbusError } from '../device/errors.ts';
import { formatBytes, formatDuration, formatTable, type Style } from '../lib/format.ts';
import { Context } from './context.ts';
import { cancelVm } from './migrate-cancel.ts';
import { MIGRATION_PORT, migrateVm } from './migrate-qmp.ts';
import type { Migrated } from './migrate-report.ts';

interface MigrateOptions {
  to?: string;
  qmp?: string;
  uri?: string;
  start?: string;
  keepSource?: true;
  follow?: Follow[];
  cancel?: true;
}

export function addMigrate(program: Command): void {
  program
    .command('migrate')
    .summary('move a running VM, and its devices, to another host')
    .description(
      'Moves VM from this host to another one while it runs: checks first, makes its devices ready there, has its QEMU migrate it to the QEMU that waits there, and ends the one here. Where that does not work out, or at Ctrl-C, the VM goes on here and everything is undone.',
    )
    .argument('<vm>', 'name of the VM')
    .option('--to <host>', 'where it moves to')
    .option('--qmp <socket>', "the running QEMU's QMP socket")
    .option(
      '--uri <uri>',
      `where the QEMU there waits (-incoming), such as tcp:HOST:PORT (default: port ${MIGRATION_PORT} of the host's address)`,
      uri,
    )
    .option('--start <command>', 'a shell command that starts the waiting QEMU there; it is killed if the VM stays here')
    .option('--keep-source', 'do not end the QEMU that the VM has left')
    .option(
      '--follow <disk=host/name>',
      'after the migration, swap this disk of the VM there to that device, as "netbus swap" does (repeat it for several)',
      follow,
    )
    .option('--cancel', 'cancel the migration that another command is at; with --qmp also where that was killed')
    .addHelpText(
      'after',
      `
Examples:
  netbus migrate web --to m3 --qmp /run/web.qmp --start 'ssh m3 start-web --incoming tcp:0:4444'
  netbus migrate web --to m3 --qmp /run/web.qmp --uri tcp:10.0.0.3:4444
  netbus migrate web --to m3 --qmp /run/web.qmp --follow data=m3/data
  netbus migrate web --cancel
`,
    )
    .action(async (vm: string, options: MigrateOptions, command: Command) => {
      const context = new Context(command);
      const { to, qmp: path, start, keepSource = false, cancel = false } = options;
      if (cancel) {
        if (options.uri !== undefined || start !== undefined || keepSource || options.follow !== undefined) {
          throw new NetbusError('usage', '--cancel goes with --qmp and --to alone');
        }
        const cancelled = await cancelVm(context, { vm, path, to });
        const where = cancelled.to === undefined ? '' : ` to ${cancelled.to}`;
        context.print(cancelled, () => `the migration of ${vm}${where} is cancelled: it goes on here\n`);
        context.warn(cancelled.warnings);
        return;
      }
      if (to === undefined || path === undefined) {
        throw new NetbusError('usage', `type: netbus migrate ${vm} --to <host> --qmp <socket>; see "netbus migrate --help"`);
      }
      const migrated = await migrateVm(context, {
        vm,
        to,
        path,
        uri: options.uri,
        start,
        keepSource,
        follow: options.follow ?? [],
      });
      context.print(migrated, (style) => describe(migrated, path, style));
      context.warn(migrated.warnings);
    });
}

/** Collects them. */
function follow(value: string, before: readonly Follow[] = []): Follow[] {
  const [, name, to] = /^([^=]+)=(.+)$/.exec(value) ?? [];
  const parsed = followSchema.safeParse({ name, to });
  if (parsed.success) return [...before, parsed.data];
  throw new InvalidArgumentError("It is DISK=HOST/NAME: the disk's name in the VM, and a device as `netbus ls` shows it.");
}

/** Other ways of QEMU's, such as exec:, do not tell how it went at the destination. */
function uri(value: string): string {
  if (/^tcp:.+:\d{1,5}$/.test(value) || /^unix:\/./.test(value)) return value;
  throw new InvalidArgumentError('It is tcp:HOST:PORT, or unix:PATH.');
}

function describe(migrated: Migrated, path: string, style: Style): string {
  const { vm, to, totalMs, downtimeMs, addedStallMs, transferredBytes, sourceEnded } = migrated;
  const rows = migrated.devices.map(({ name, device, outcome, drainMs, stopStallMs, startStallMs }) => [
    ...[`${vm}/${name}`, device, outcome ?? 'not in use'],
    ...[drainMs, stopStallMs, startStallMs].map((ms) => (ms === undefined ? '' : span(ms))),
  ]);
  const source = sourceEnded ? '' : `the QEMU at ${path} is still there, stopped: end it, and never let it go on\n`;
  return `${style.bold(vm)} runs on ${to}: moved in ${span(totalMs)} with ${formatBytes(transferredBytes)}
its guest stood still for ${span(downtimeMs)}; its devices added ${span(addedStallMs)}
${formatTable(['ATTACHMENT', 'DEVICE', 'STOPPED', 'DRAINED IN', 'ADDED HERE', 'ADDED THERE'], rows, style)}${source}${followLines(migrated)}`;
}

/** Those that do not follow are among the warnings. */
function followLines({ vm, to, follows }: Migrated): string {
  return follows
    .filter(({ job }) => job !== undefined)
    .map(
      ({ name, to: device, job }) =>
        `${vm}/${name} goes to ${device}: on ${to}, "netbus job ${job} --watch" shows how far it is\n`,
    )
    .join('');
}

/** Short ones are what this is about. */
function span(ms: number): string {
  return ms < 10 ? `${Number(ms.toFixed(1))} ms` : formatDuration(ms);
}
