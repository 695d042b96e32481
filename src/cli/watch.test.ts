/** What is watched, and the long forms of lists: the program as a process, before a daemon that answers what the test wants. */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { after, before, test } from 'node:test';
import { DEVICES, STATUS } from '../../test/support/answers.ts';
import { FakeDaemon } from '../../test/support/fake-daemon.ts';
import type { EventEntry } from '../api/events.ts';
import type { DeviceDetails, DeviceEntry } from '../api/types.ts';

const EVENT: EventEntry = {
  sequence: 7,
  id: 5,
  time: '2030-01-01T12:00:00.000Z',
  lastTime: '2030-01-01T12:00:35.000Z',
  count: 4,
  type: 'link.down',
  severity: 'warning',
  about: 'host',
  subject: 'm1',
  message: 'the link with m1 is down: refused',
  details: { code: 'unreachable' },
};

let daemon: FakeDaemon;
before(() => {
  daemon = new FakeDaemon();
});
after(() => daemon.close());

test('ls -o name, wide and json', async () => {
  // By the time of the answer: the program says how long ago it was.
  const secondsAgo = (seconds: number) => new Date(Date.now() - seconds * 1000).toISOString();
  const details = (): DeviceDetails => ({
    kind: 'block device',
    blockBytes: 4096,
    allow: ['m2', 'm3'],
    allowCount: 34,
    since: secondsAgo(121),
    users: [{ host: 'm2', vm: 'web', name: 'data', epoch: 3, active: true, since: secondsAgo(61) }],
  });
  const [data, other] = DEVICES.devices as [DeviceEntry, DeviceEntry];
  const urls: (string | undefined)[] = [];
  await daemon.listen((request, response) => {
    urls.push(request.url);
    response.end(
      JSON.stringify({
        devices: [{ ...data, address: '10.0.0.1:7443', details: details() }, other],
        away: [{ host: 'm3', reason: 'does not answer', lastSeen: secondsAgo(61) }],
        warnings: ['m3: does not answer'],
      }),
    );
  });
  assert.equal((await daemon.netbus(['ls', '-o', 'name'])).stdout, 'm1/data\nm1/t\n');
  const wide = await daemon.netbus(['ls', '-o', 'wide']);
  assert.match(wide.stdout, /^DEVICE +ADDRESS +CLASS +SIZE +BLOCK +ACCESS +SHARING +STATE +SINCE +IMAGE +ALLOWED +USED BY$/m);
  assert.match(
    wide.stdout,
    /^m1\/data +10\.0\.0\.1:7443 +disk +10 GiB +4 KiB +read-write +exclusive +ready +.*\(2 min \d+ s\) +\(block device\) +m2,m3 and 32 more +m2:web\/data in use since .*\(1 min \d+ s\), hold forever$/m,
  );
  assert.match(wide.stdout, /^m1\/t +this host +disk .* shared +waiting +/m);
  assert.match(wide.stderr, /^netbus: warning: m3: does not answer; last seen 1 min \d+ s ago\n$/);
  assert.equal(JSON.parse((await daemon.netbus(['ls', '-o', 'json'])).stdout).devices[0].details.blockBytes, 4096);
  assert.deepEqual(urls, ['/v1/devices', '/v1/devices?details=true', '/v1/devices?details=true']);
});

test('events: a table, the question that was asked, and a line of JSON', async () => {
  const urls: (string | undefined)[] = [];
  await daemon.listen((request, response) => {
    urls.push(request.url);
    response.end(JSON.stringify({ events: [EVENT] }));
  });
  const { stdout, status } = await daemon.netbus(['events'], { env: { TZ: 'Europe/Berlin' } });
  assert.equal(status, 0);
  assert.deepEqual(stdout.split('\n'), [
    'TIME                 TYPE       SUBJECT  WHAT HAPPENED',
    '2030-01-01 13:00:35  link.down  m1       the link with m1 is down: refused (4 times since 13:00:00)',
    '',
  ]);
  const json = await daemon.netbus(['events', '--json', '--since', '2030-01-01T00:00:00Z', '--limit', '5', '--type', 'link']);
  assert.deepEqual(JSON.parse(json.stdout), { events: [EVENT] });
  await daemon.netbus(['events', '--since', '2030-01-01T00:00:00Z']);
  assert.deepEqual(urls, [
    '/v1/events?limit=100',
    '/v1/events?since=2030-01-01T00%3A00%3A00.000Z&limit=5&type=link',
    '/v1/events?since=2030-01-01T00%3A00%3A00.000Z',
  ]);
});

test('events --watch: lines as they come; Ctrl-C ends it with 130, the end of the daemon with 5, an error line with its code', async () => {
  let last: ServerResponse | undefined;
  await daemon.listen((request, response) => {
    assert.equal(request.url, '/v1/events?limit=10&watch=true');
    last = response;
    response.write(`${JSON.stringify(EVENT)}\n`);
  });
  const watch = (...argv: string[]) => {
    const program = daemon.start(['events', '--watch', ...argv]);
    const ended = async () => ({ ...(await program.exited), stdout: program.stdout, stderr: program.stderr });
    return { program, came: () => program.waitForLine(/link\.down/), ended };
  };
  const interrupted = watch('--json');
  await interrupted.came();
  interrupted.program.signal('SIGINT');
  const { stdout, stderr, status } = await interrupted.ended();
  assert.deepEqual([JSON.parse(stdout), stderr, status], [EVENT, '', 130]);

  for (const end of [() => last?.end(), () => last?.destroy()]) {
    const cut = watch();
    await cut.came();
    end();
    const result = await cut.ended();
    assert.match(result.stdout, /^\S+ \S+ {2}link\.down {13}m1 {14}the link with m1 is down: refused \(4 times since \S+\)\n$/);
    assert.match(result.stderr, /^netbus: the daemon at \S+ has ended: [^\n]+\n$/);
    assert.equal(result.status, 5);
  }

  const slow = watch('--json');
  await slow.came();
  last?.end(`${JSON.stringify({ error: { code: 'limit', message: 'too slow' } })}\n`);
  const dropped = await slow.ended();
  assert.deepEqual([JSON.parse(dropped.stderr), dropped.status], [{ error: { code: 'limit', message: 'too slow' } }, 1]);
});

test('status --watch in a pipe: one below the other, with --json a line each; Ctrl-C ends it', async () => {
  await daemon.listen((_request, response) => response.end(JSON.stringify(STATUS)));
  for (const [argv, line] of [
    [['status', '--watch'], /^--- \d{4}-.*\nwarning: m3 does not answer\nweb\/data waits for m1/],
    [['status', '--watch', '--json'], /^(?:\{"host":"m2".*\}\n)+$/],
  ] as [string[], RegExp][]) {
    const program = daemon.start(argv);
    await program.waitForLine(/waits for m1|"host"/);
    program.signal('SIGINT');
    assert.equal((await program.exited).status, 130);
    assert.match(program.stdout, line);
  }
});
