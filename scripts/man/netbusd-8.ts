/** netbusd(8): the daemon, with the options that `netbus daemon` has. */

import type { Command } from 'commander';
import { optionList, optionMacros, ownOptions } from './command.ts';
import { definitions, literal, paragraphs, prose } from './mdoc.ts';
import { header, type PageOptions, seeAlso } from './page.ts';

const DESCRIPTION = `
The daemon of a host: it serves the devices that the host exports to the hosts that may use them, and gives the host's own virtual machines the devices that are attached to them.
It runs in the foreground until it is told to end; its log goes to standard error, one JSON object a line.
\`netbus daemon\` is another name for it.

The configuration, netbus.yaml(5), is checked as a whole before anything is opened; a mistake is one line with file and line number.
Exports and attachments are not part of it: they are made with netbus(1), and kept in the state folder across restarts.
`;

const RELOADING =
  'Takes the certificates and the key anew from their files. New connections use them, nothing that is up ends, and files that are wrong are refused in the log and change nothing.';
const ENDING = `
An end in order answers the requests that were taken, gives leases back and closes the files.
Guests wait meanwhile, and go on when their virtual machine monitor has reconnected to the daemon that follows.
A second signal ends the daemon at once.
`;

const SERVICE_MANAGER = `
Where a service manager gave it a socket in \`NOTIFY_SOCKET\`, the daemon says there (sd_notify(3)) when it can be asked (\`READY=1\`), what it does (\`STATUS=\`), and that it has begun to end (\`STOPPING=1\`).
Where \`WATCHDOG_USEC\` is set, it says in half of that time, again and again, that it is alive; this comes from its event loop, so that a loop that hangs is found.
`;

const CONTROL_GROUP = `The control socket. Where the group \`netbus\` exists and the daemon runs as root, the socket belongs to that group; its members may do everything that the daemon can, which is as much as root.`;

export function daemonPage(program: Command, options: PageOptions): string {
  const daemon = program.commands.find((command) => command.name() === 'daemon');
  if (daemon === undefined) throw new Error('the program has no verb "daemon"');
  const all = [...ownOptions(daemon), ...ownOptions(program)];
  return [
    header('netbusd', '8', 'the daemon of a host whose devices are used by virtual machines anywhere', options),
    '.Sh SYNOPSIS',
    '.Nm netbusd',
    ...all.map((option) => `.Op ${optionMacros(option).replace(/^Fl \S+ , /, '')}`),
    '.Sh DESCRIPTION',
    paragraphs(DESCRIPTION),
    optionList(program, all),
    '.Sh SIGNALS',
    definitions([
      ['Dv SIGTERM , SIGINT', paragraphs(ENDING)],
      ['Dv SIGHUP', paragraphs(RELOADING)],
    ]),
    '.Sh SERVICE MANAGER',
    paragraphs(SERVICE_MANAGER),
    '.Sh FILES',
    definitions([
      ['Pa /etc/netbus/netbus.yaml', prose('The configuration.')],
      ['Pa /etc/netbus/pki', prose('The certificate of the cluster, and those of the host with its key.')],
      ['Pa /run/netbus/netbus.sock', prose(CONTROL_GROUP)],
      ['Pa /run/netbus/VM/NAME.sock', prose('The socket of a virtual device, for the virtual machine monitor.')],
      ['Pa /var/lib/netbus', prose('A record for each export and attachment. Not to be edited while the daemon runs.')],
    ]),
    '.Sh EXIT STATUS',
    prose('That of netbus(1); 0 after an end in order, 2 where the configuration is wrong.'),
    '.Sh EXAMPLES',
    prose('How a service of systemd runs it:'),
    literal('netbusd --config /etc/netbus/netbus.yaml'),
    seeAlso(['netbus 1', 'netbus.yaml 5']),
  ].join('\n');
}
