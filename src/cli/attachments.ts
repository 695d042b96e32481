/** `netbus attachments`: where each guest is, and where its device is. */
import type { Command } from 'commander';
import type { BusAttachment, BusAttachments } from '../api/types.ts';
import { formatTable, type Style } from '../lib/format.ts';
import { Context } from './context.ts';
import { sinceWhen } from './words.ts';

export function addAttachments(program: Command): void {
  program
    .command('attachments')
    .summary('list where each guest is, and where its device is')
    .description(
      "Lists all attachments to the devices that this host may use, as the devices' hosts know them: the VM's host, the device, who has it under which epoch, and where the VM is expected. Hosts that do not answer are named on stderr.",
    )
    .addHelpText('after', '\nExamples:\n  netbus attachments\n  netbus attachments --json | jq -r ".attachments[].host"\n')
    .action(async (_options: object, command: Command) => {
      const context = new Context(command);
      const answer = await context.client.busAttachments();
      context.print(answer, (style) => describe(answer, Date.now(), style));
      context.warn(answer.warnings);
    });
}

function describe({ attachments, away }: BusAttachments, nowMs: number, style: Style): string {
  if (attachments.length === 0) return away.length > 0 ? 'no attachments on the hosts that answer\n' : 'no attachments\n';
  return formatTable(
    ['ATTACHMENT', 'HOST', 'DEVICE', 'STATE', 'EPOCH', 'SINCE'],
    attachments.map((attachment) => [
      style.bold(`${attachment.vm}/${attachment.name}`),
      attachment.host,
      attachment.device,
      stateText(attachment, style),
      attachment.epoch === undefined ? '' : String(attachment.epoch),
      attachment.since === undefined ? '' : sinceWhen(attachment.since, nowMs),
    ]),
    style,
  );
}

function stateText({ state, standby, previous, mark }: BusAttachment, style: Style): string {
  const expected = standby === undefined ? '' : `, standby at ${standby}`;
  const came = previous === undefined ? '' : `, came from ${previous}`;
  switch (state) {
    case 'active':
      return `${style.good(state)}${came}${expected}`;
    case 'handed-over':
      return `${style.warn('handed over')} to ${standby}`;
    case 'away':
      return `${style.warn('holds the lease, no session')}${came}${expected}`;
    case 'fenced':
      return `${style.bad(state)}${expected}`;
    case 'stale':
      return `${style.bad(state)}: ${mark}`;
    case 'copied':
    case 'handing-over':
    case 'filling':
    case 'complete':
      return `${style.warn(state)}: ${mark}`;
    case 'idle':
    case 'unknown':
      return `${state}${expected}`;
  }
}
