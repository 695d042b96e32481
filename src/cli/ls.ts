/** `netbus ls`: the devices of all hosts, as seen from here. */
import type { Command } from 'commander';
import type { DeviceEntry } from '../api/types.ts';
import { formatBytes, formatTable, type Style } from '../lib/format.ts';
import { Context } from './context.ts';

export function addLs(program: Command): void {
  program
    .command('ls')
    .summary('list the devices of all hosts')
    .description('Lists the devices that the hosts of the cluster export. Hosts that do not answer are named on stderr.')
    .addHelpText('after', '\nExamples:\n  netbus ls\n  netbus ls --json | jq -r ".devices[].name"\n')
    .action(async (_options: unknown, command: Command) => {
      const context = new Context(command);
      const answer = await context.client.devices();
      context.print(answer, (style) => describe(answer.devices, style));
      context.warn(answer.warnings);
    });
}

function describe(devices: readonly DeviceEntry[], style: Style): string {
  if (devices.length === 0) return 'no devices: export one with "netbus export NAME --disk PATH --allow HOST,..."\n';
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
