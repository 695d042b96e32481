/** `netbus ls`: the devices of all hosts, as seen from here. */
import { type Command, Option } from 'commander';
import type { AwayHost, DeviceEntry, Devices, ExportUser } from '../api/types.ts';
import { formatBytes, formatTable, type Style } from '../lib/format.ts';
import { Context } from './context.ts';
import { holdTime, sinceWhen, span } from './words.ts';

type Form = 'wide' | 'name' | 'json';

export function addLs(program: Command): void {
  program
    .command('ls')
    .summary('list the devices of all hosts')
    .description(
      'Lists the devices that the hosts of the cluster export and that this host may use. Hosts that do not answer are named on stderr.',
    )
    .addOption(
      new Option(
        '-o, --output <form>',
        'wide: with address, image, block size, allowed hosts, users and times; name: HOST/NAME alone; json: as --json, with all of that',
      ).choices(['wide', 'name', 'json'] satisfies Form[]),
    )
    .addHelpText('after', '\nExamples:\n  netbus ls\n  netbus ls -o wide\n  netbus ls --json | jq -r ".devices[].name"\n')
    .action(async ({ output }: { output?: Form }, command: Command) => {
      if (output === 'json') command.setOptionValue('json', true);
      const context = new Context(command);
      const answer = await context.client.devices({ details: output === 'wide' || output === 'json' });
      context.print(answer, (style) => describe(answer, output, style));
      context.warn(warningsOf(answer, Date.now()));
    });
}

function describe({ devices, away }: Devices, form: Form | undefined, style: Style): string {
  if (form === 'name') return devices.map(({ host, name }) => `${host}/${name}\n`).join('');
  if (devices.length === 0 && away.length > 0) return 'no devices on the hosts that answer\n';
  if (devices.length === 0) return 'no devices: export one with "netbus export NAME --disk PATH --allow HOST,..."\n';
  return form === 'wide' ? wideTable(devices, Date.now(), style) : table(devices, style);
}

function table(devices: readonly DeviceEntry[], style: Style): string {
  return formatTable(
    ['DEVICE', 'CLASS', 'SIZE', 'ACCESS', 'STATE', 'USED BY'],
    devices.map((device) => [
      style.bold(`${device.host}/${device.name}`),
      device.class,
      formatBytes(device.capacityBytes),
      device.readOnly ? 'read-only' : 'read-write',
      exportState(device.state, style),
      device.usedBy.join(' '),
    ]),
    style,
  );
}

function wideTable(devices: readonly DeviceEntry[], nowMs: number, style: Style): string {
  return formatTable(
    [
      'DEVICE',
      'ADDRESS',
      'CLASS',
      'SIZE',
      'BLOCK',
      'ACCESS',
      'SHARING',
      'STATE',
      'SINCE',
      'IMAGE',
      'ALLOWED',
      'USED BY',
      'REASON',
    ],
    devices.map((device) => {
      const { details } = device;
      return [
        style.bold(`${device.host}/${device.name}`),
        device.address ?? 'this host',
        device.class,
        formatBytes(device.capacityBytes),
        details?.blockBytes === undefined ? '' : formatBytes(details.blockBytes),
        device.readOnly ? 'read-only' : 'read-write',
        device.shared ? 'shared' : 'exclusive',
        exportState(device.state, style),
        details === undefined ? '' : sinceWhen(details.since, nowMs),
        [details?.path, details?.kind && `(${details.kind})`].filter(Boolean).join(' '),
        allowed(details),
        details === undefined ? device.usedBy.join(' ') : details.users.map((user) => userOf(user, nowMs)).join(', '),
        details?.reason ?? '',
      ];
    }),
    style,
  );
}

function allowed(details: DeviceEntry['details']): string {
  if (details === undefined) return '';
  if (details.allowCount === 0) return 'nobody';
  const more = details.allowCount - details.allow.length;
  return `${details.allow.join(',')}${more > 0 ? ` and ${more} more` : ''}`;
}

/** `m2:web/data in use since 14:03:12 (35 s), hold forever`. */
function userOf({ host, vm, name, active, since, holdMs, state, mark }: ExportUser, nowMs: number): string {
  if (mark !== undefined) return `${host}:${vm}/${name} ${state}: ${mark}`;
  const when = since === undefined ? '' : ` since ${sinceWhen(since, nowMs)}`;
  return `${host}:${vm}/${name} ${active ? 'in use' : 'idle'}${when}, hold ${holdTime(holdMs)}`;
}

/** A host that is away is told with when it was there. */
function warningsOf({ warnings, away }: Devices, nowMs: number): string[] {
  const texts = new Map(away.map((host) => [`${host.host}: ${host.reason}`, host]));
  return warnings.map((warning) => {
    const host = texts.get(warning);
    return host === undefined ? warning : `${warning}; ${lastSeen(host, nowMs)}`;
  });
}

function lastSeen({ lastSeen: at }: AwayHost, nowMs: number): string {
  return at === undefined ? 'not seen since the daemon of this host started' : `last seen ${span(at, nowMs)} ago`;
}

export function exportState(state: DeviceEntry['state'], style: Style): string {
  switch (state) {
    case 'ready':
      return style.good(state);
    case 'waiting':
      return style.warn(state);
    case 'failed':
      return style.bad(state);
  }
}
