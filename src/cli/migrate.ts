/** `netbus migrate`: moves a running VM of a plain QEMU to another host, and its devices with it. */
import { type Command, InvalidArgumentError } from 'commander';
import { NetbusError } from '../device/errors.ts';
import { formatBytes, formatDuration, formatTable, type Style } from '../lib/format.ts';
import { Context } from './context.ts';
import { cancelVm } from './migrate-cancel.ts';
import { MIGRATION_PORT, type Migrated, migrateVm } from './migrate-qmp.ts';

interface MigrateOptions {
  to?: string;
  qmp?: string;
  uri?: string;
  start?: string;
  keepSource?: true;
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
    .option('--cancel', 'cancel the migration that another command is at; with --qmp also where that was killed')
    .addHelpText(
      'after',
      `
Examples:
  netbus migrate web --to m3 --qmp /run/web.qmp --start 'ssh m3 start-web --incoming tcp:0:4444'
  netbus migrate web --to m3 --qmp /run/web.qmp --uri tcp:10.0.0.3:4444
  netbus migrate web --cancel
`,
    )
    .action(async (vm: string, options: MigrateOptions, command: Command) => {
      const context = new Context(command);
      const { to, qmp: path, start, keepSource = false, cancel = false } = options;
      if (cancel) {
        if (options.uri !== undefined || start !== undefined || keepSource) {
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
      const migrated = await migrateVm(context, { vm, to, path, uri: options.uri, start, keepSource });
      context.print(migrated, (style) => describe(migrated, path, style));
      context.warn(migrated.warnings);
    });
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
${formatTable(['ATTACHMENT', 'DEVICE', 'STOPPED', 'DRAINED IN', 'ADDED HERE', 'ADDED THERE'], rows, style)}${source}`;
}

/** Short ones are what this is about. */
function span(ms: number): string {
  return ms < 10 ? `${Number(ms.toFixed(1))} ms` : formatDuration(ms);
}
