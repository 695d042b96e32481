import { join } from 'node:path';
import { bootAttached, exportEmptyDisk } from '../test/guest/attached.ts';
import { Cleanup } from '../test/support/cleanup.ts';
import { startCluster } from '../test/support/cluster.ts';

const cleanup = new Cleanup();
const t0 = performance.now();
const say = (s: string) => console.log(`[${((performance.now() - t0) / 1000).toFixed(1)}] ${s}`);
try {
  const cluster = await startCluster(['m1', 'm2'], { cleanup });
  const nb = async (h: string, ...argv: string[]) => {
    say(`${h}# netbus ${argv.join(' ')}`);
    const r = await cluster.netbus(h, ...argv);
    say(`-> ${r.status}\nOUT ${r.stdout}\nERR ${r.stderr}`);
    return r;
  };
  await exportEmptyDisk(cluster, 'm1', 'data', { sizeMiB: 256, allow: ['m1', 'm2'] });
  await exportEmptyDisk(cluster, 'm2', 'near', { sizeMiB: 320, allow: ['m1', 'm2'] });
  await exportEmptyDisk(cluster, 'm2', 'small', { sizeMiB: 64, allow: ['m1', 'm2'] });
  await exportEmptyDisk(cluster, 'm1', 'back', { sizeMiB: 320, allow: ['m1', 'm2'] });
  const guest = await bootAttached(cluster, 'm2', 'web', ['m1/data'], { cleanup, cpus: 1, fio: true });
  say('booted');
  await guest.succeed(
    'dd if=/dev/urandom of=/dev/vda bs=1M count=150 seek=64 oflag=direct 2>/dev/null; md5sum /dev/vda >/tmp/sum; cat /tmp/sum',
  );
  const fio = guest.run(
    'fio --name=work --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=16 --size=48M --rw=randwrite --bsrange=4k-64k --fsync=32 --verify=crc32c --verify_fatal=1 --randseed=3 --time_based --runtime=1000',
  );
  fio.catch(() => undefined);
  await nb('m2', 'swap', 'web/data', '--to', 'm2/small');
  await nb('m2', 'swap', 'web/data', '--to', 'm2/nothing');
  await nb('m2', 'swap', 'web/nothing', '--to', 'm2/near');
  await nb('m2', 'swap', 'web/data', '--to', 'm1/data');
  await nb('m2', 'swap', 'web/data', '--to', 'm2/near', '--speed', '50M');
  await nb('m2', 'jobs');
  await nb('m2', 'status');
  await nb('m1', 'status');
  await nb('m2', 'attachments');
  await nb('m1', 'ls');
  await nb('m2', 'events');
  await nb('m1', 'events');
  say('stop m1');
  await cluster.stopDaemon(cluster.host('m1'));
  await new Promise((r) => setTimeout(r, 2000));
  say(
    await guest.succeed(
      'blockdev --getsize64 /dev/vda; cat /sys/block/vda/stat; sleep 1; cat /sys/block/vda/stat; dmesg | tail -3',
    ),
  );
  await nb('m2', 'status');
  await nb('m2', 'swap', 'web/data', '--to', 'm1/back');
  await cluster.startDaemon(cluster.host('m1'));
  await nb('m2', 'swap', 'web/data', '--to', 'm1/data');
  await nb('m2', 'swap', 'web/data', '--to', 'm1/data', '--overwrite');
  await nb('m2', 'swap', 'web/data', '--to', 'm1/back', '--detach');
  await nb('m2', 'job', 'j2', '--watch');
  await nb('m2', 'job', 'j9');
  await nb('m2', 'grow', 'web/data');
  say(await guest.succeed('blockdev --getsize64 /dev/vda; dmesg | tail -3'));
  await guest.succeed('killall fio; sleep 1');
  say(JSON.stringify(await fio));
  say(await guest.succeed('sha256sum /dev/vda'));
  await guest.powerOff();
  await nb('m2', 'status');
  await nb('m2', 'ls');
} finally {
  await cleanup.run();
}
