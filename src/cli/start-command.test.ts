import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startCommand } from './start-command.ts';

test('the service where there is one, and the daemon itself elsewhere', () => {
  const unit = '/lib/systemd/system/netbusd.service';
  const say = (config: string, ...there: string[]) => startCommand(config, (path) => there.includes(path));
  assert.equal(say('/etc/netbus/netbus.yaml', '/run/systemd/system', unit), 'systemctl start netbusd');
  // In a container the unit is there, and nobody who starts it.
  assert.equal(say('/etc/netbus/netbus.yaml', unit), 'netbus daemon');
  assert.equal(say('/etc/netbus/netbus.yaml', '/run/systemd/system'), 'netbus daemon');
  assert.equal(say('/srv/m1.yaml', '/run/systemd/system', unit), 'netbus daemon --config /srv/m1.yaml');
});
