/** Mistakes of usage, and the help: the program as a process. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { DEVICES, STATUS } from '../../test/support/answers.ts';
import { FakeDaemon } from '../../test/support/fake-daemon.ts';
import { assertFails } from '../../test/support/program.ts';

let daemon: FakeDaemon;
before(() => {
  daemon = new FakeDaemon();
});
after(() => daemon.close());

/** A few at a time: most of a start is waiting for the disk and for the other processor. */
const AT_A_TIME = 4;

async function failEach(cases: readonly [string[], RegExp][], status: number): Promise<void> {
  const left = [...cases];
  const worker = async () => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      assertFails(await daemon.netbus(next[0]), status, next[1]);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, worker));
}

test('mistakes of usage: 2, with a guess where there is one', async () => {
  const cases: [string[], RegExp][] = [
    [['expor'], /unknown command 'expor' \(Did you mean export\?\)/],
    [['ls', '--jso'], /unknown option '--jso' \(Did you mean --json\?\)/],
    [['ls', 'more'], /too many arguments/],
    [['export', 'a'], /--disk <path> and --allow <hosts> not specified/],
    [['export', 'a', '--disk', '/a', '--allow', 'm1,,m2'], /list of host names/],
    [['attach', 'm1', '--vm', 'v'], /"m1" is not of the form HOST\/NAME/],
    [['attach', 'm1/a/b', '--vm', 'v'], /not of the form HOST\/NAME/],
    [
      ['attach', 'm1/a', '--vm', 'v', '--format', 'xen'],
      /Allowed choices are qemu, libvirt, qmp, cloud-hypervisor, firecracker/,
    ],
    [['attach', 'm1/a', '--vm', 'v', '--bus', 'b'], /--bus goes with --qmp/],
    [['attach', 'm1/a', '--vm', 'v', '--hold', '60'], /"forever", 0, or a time such as 60s/],
    [['attach', 'm1/a', '--vm', 'v', '--hold', '8d'], /7d at most/],
    [['detach', '/a'], /not of the form VM\/NAME/],
    [['grow', 'v/'], /not of the form VM\/NAME/],
    [['ls', '-o', 'yaml'], /Allowed choices are wide, name, json/],
    [['events', '--since', 'yesterday'], /--since "yesterday": say how long ago/],
    [['events', '--limit', '-1'], /number from 0 to 1000/],
    [['status', '--run-dir', `/${'x'.repeat(110)}`], /longer than the 107 bytes/],
    [['attach', 'm1/a'], /'--vm <vm>' not specified; type: netbus attach <host\/name> --vm <vm>; see "netbus attach --help"/],
    [['attach', '--vm', 'v'], /missing required argument 'host\/name'; type: netbus attach/],
    [['attach', 'm1/a', '--wm', 'v'], /unknown option '--wm' \(Did you mean --vm\?\)/],
    [['attach', 'a', '--vm', 'v'], /not of the form HOST\/NAME: "netbus ls" lists/],
    [['detach', 'v', 'a'], /too many arguments .*; did you mean v\/a; type: netbus detach <vm\/name>/],
    [['m1/a', 'attach'], /unknown command 'm1\/a'; the verb comes first/],
    [['--config', '/x', 'status'], /unknown option '--config'; it belongs behind init, daemon, join,? or doctor/],
    [['help', 'atach'], /unknown command 'atach' \(Did you mean attach\?\)/],
    [['help', 'nonsense'], /unknown command 'nonsense'; see "netbus --help"/],
    [['unexport', 'm1/a'], /type the name alone.*"netbus unexport a" on m1/],
    [['completion', 'tcsh'], /bash, zsh, fish/],
  ];
  await failEach(cases, 2);
  const json = await daemon.netbus(['expor', '--json']);
  assert.equal(JSON.parse(json.stderr).error.code, 'usage');
});

test('help and version', async () => {
  assert.match((await daemon.netbus(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
  const help = await daemon.netbus(['--help']);
  assert.match(help.stdout, /export .*offer a disk/);
  assert.equal(help.status, 0);
  assert.match((await daemon.netbus(['help', 'attach'])).stdout, /Examples:/);
  const bare = await daemon.netbus([]);
  assert.equal(bare.stdout, '');
  assert.match(bare.stderr, /Usage: netbus/);
  assert.equal(bare.status, 2);
});

test('a name that is nearly right: the daemon is asked for those that it has', async () => {
  await daemon.listen((request, response) => {
    const [status, answer] =
      request.method === 'GET'
        ? [200, request.url?.startsWith('/v1/devices') ? DEVICES : STATUS]
        : [404, { error: { code: 'not_found', message: 'there is none' } }];
    response.writeHead(status as number).end(JSON.stringify(answer));
  });
  const cases: [string[], RegExp][] = [
    [['attach', 'm1/dat', '--vm', 'v'], /there is none; did you mean m1\/data\?/],
    [['detach', 'wbe/data'], /there is none; did you mean web\/data\?/],
    [['grow', 'WEB/data'], /there is none; did you mean web\/data\?/],
    [['unexport', 'dta'], /there is none; did you mean data\?/],
    [['detach', 'other/thing'], /there is none$/m],
    // It was found there, so it is something else that is not.
    [['detach', 'web/data'], /there is none$/m],
  ];
  await failEach(cases, 3);
});
