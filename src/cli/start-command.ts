/** How the daemon of this host is started, for messages that say what comes next. */
import { existsSync } from 'node:fs';
import { CONFIG_DEFAULT } from './daemon.ts';

/** systemd runs, and has the unit that the Debian package brings, or that was taken from the npm package. */
const SYSTEMD = '/run/systemd/system';
const UNITS = [
  '/etc/systemd/system/netbusd.service',
  '/lib/systemd/system/netbusd.service',
  '/usr/lib/systemd/system/netbusd.service',
];

export function startCommand(config: string, exists: (path: string) => boolean = existsSync): string {
  if (config !== CONFIG_DEFAULT) return `netbus daemon --config ${config}`;
  return exists(SYSTEMD) && UNITS.some((unit) => exists(unit)) ? 'systemctl start netbusd' : 'netbus daemon';
}
