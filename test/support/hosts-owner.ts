/** Started by hosts.test.ts: makes hosts, starts programs on them, says where, and waits to be killed. */

import { dirname } from 'node:path';
import { Cleanup } from './cleanup.ts';
import { createHosts } from './hosts.ts';

const hosts = await createHosts(['m1', 'm2'], new Cleanup(), 'namespace');
for (const host of hosts.all) host.spawn(['sleep', 'infinity']);
console.log(`hosts in ${dirname(hosts.all[0]!.folder)}`);
setInterval(() => {}, 60_000);
