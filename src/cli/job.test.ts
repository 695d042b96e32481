/** `swap`, `jobs` and `job`: the program as a process, before a daemon that answers what the test wants. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { DEVICES, JOB, STATUS } from '../../test/support/answers.ts';
import { FakeDaemon } from '../../test/support/fake-daemon.ts';
import { assertFails } from '../../test/support/program.ts';
import type { JobEntry } from '../api/jobs.ts';
import { completeNames } from './completion/names.ts';
import { changeText } from './job.ts';

const ENDED_AT = '2030-01-01T00:01:30Z';
const DONE: JobEntry = { ...JOB, state: 'done', endedAt: ENDED_AT, progress: { ...JOB.progress!, stallMs: 7 } };
const CANCELLED: JobEntry = { ...JOB, state: 'cancelled', endedAt: ENDED_AT };
const FAILED: JobEntry = { ...JOB, state: 'failed', endedAt: ENDED_AT, reason: 'm2/new is full', code: 'denied' };
const SWAP = ['swap', 'web/data', '--to', 'm2/new'];

let daemon: FakeDaemon;
before(() => {
  daemon = new FakeDaemon();
});
after(() => daemon.close());

/** Answers the first question with a job that runs, and so the further ones but the last, which is asked for with `last`. Returns what it was asked. */
async function answers(
  last: object,
  { looks = 1, onLook = () => {} }: { looks?: number; onLook?: () => void } = {},
): Promise<string[]> {
  const asked: string[] = [];
  await daemon.listen((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      asked.push(`${request.method} ${request.url}${body === '' ? '' : ` ${body}`}`);
      response.end(JSON.stringify(asked.length > looks ? last : JOB));
      if (asked.length > 1) onLook();
    });
  });
  return asked;
}

test('swap: stays with its job until it is done', async () => {
  const asked = await answers(DONE, { looks: 3 });
  const { stdout, stderr, status } = await daemon.netbus([...SWAP, '--overwrite', '--speed', '100M']);
  assert.equal(stdout, 'web/data is m2/new now: 42 MiB copied in 1 min 30 s, its guest stood still for 7 ms\n');
  // In a pipe one line for a step.
  const step = 'copying: 42 %, 58 MiB left, 10 MiB/s, 2 MiB dirty, 6 s to go';
  assert.equal(stderr, `job j3 swaps web/data from m1/data to m2/new\nnetbus: swap: ${step}\n`);
  assert.equal(status, 0);
  const body = JSON.stringify({ to: 'm2/new', overwrite: true, bytesPerSecondMax: 100 * 1024 ** 2 });
  const looks = ['GET /v1/jobs/j3', 'GET /v1/jobs/j3', 'GET /v1/jobs/j3'];
  assert.deepEqual(asked, [`POST /v1/attachments/web/data/swap ${body}`, ...looks]);
});

test('swap --json has the end alone, --detach the beginning', async () => {
  await answers(DONE);
  const json = await daemon.netbus([...SWAP, '--json']);
  assert.deepEqual([JSON.parse(json.stdout), json.stderr], [DONE, '']);
  const asked = await answers(DONE);
  const detached = await daemon.netbus([...SWAP, '--detach', '--speed', 'unlimited']);
  assert.equal(detached.stdout, 'job j3 swaps web/data from m1/data to m2/new: "netbus job j3 --watch" shows how far it is\n');
  assert.deepEqual([detached.stderr, asked], ['', ['POST /v1/attachments/web/data/swap {"to":"m2/new"}']]);
});

test('swap and job --watch end as the job ends', async () => {
  await answers(FAILED);
  const failed = await daemon.netbus([...SWAP, '--json']);
  const message = 'job j3 failed: m2/new is full; web/data stays at m1/data';
  assert.deepEqual([JSON.parse(failed.stderr), failed.status], [{ error: { code: 'denied', message } }, 6]);
  await answers(CANCELLED);
  const cancelled = await daemon.netbus(['job', 'j3', '--watch']);
  assert.equal(cancelled.status, 1);
  assert.match(cancelled.stderr, /^netbus: job j3 was cancelled: web\/data stays at m1\/data$/m);
});

test('Ctrl-C leaves the job running, and says how it is found again', async () => {
  let looked: () => void = () => {};
  const hasLooked = new Promise<void>((resolve) => {
    looked = resolve;
  });
  await answers(JOB, { onLook: () => looked() });
  const program = daemon.start([...SWAP, '--json']);
  await hasLooked;
  program.signal('SIGINT');
  assert.equal((await program.exited).status, 130);
  const message = 'job j3 goes on: "netbus job j3 --watch" shows it, "netbus job j3 --cancel" ends it';
  assert.deepEqual(JSON.parse(program.stderr), { error: { code: 'ended', message } });
  assert.equal(program.stdout, '');
});

test('a daemon that ends does not end the job', async () => {
  await answers(JOB, { onLook: () => void daemon.stop() });
  const { stderr, status } = await daemon.netbus(SWAP);
  assert.equal(status, 5);
  assert.match(stderr, /^netbus: .*; job j3 goes on with the daemon: "netbus job j3 --watch"$/m);
});

test('job --watch --json is a line for each look', async () => {
  await answers(DONE, { looks: 2 });
  const { stdout, stderr, status } = await daemon.netbus(['job', 'j3', '--watch', '--json']);
  const lines = stdout.trimEnd().split('\n');
  assert.deepEqual([lines.map((line) => JSON.parse(line).state), stderr, status], [['running', 'running', 'done'], '', 0]);
});

test('jobs lists them', async () => {
  await daemon.answerWith({ jobs: [FAILED, JOB] });
  const { stdout } = await daemon.netbus(['jobs']);
  assert.match(stdout, /^JOB +ATTACHMENT .*\nj3 +web\/data .* failed .* m2\/new is full\nj3 +web\/data .* copying .*\n$/);
  assert.deepEqual(JSON.parse((await daemon.netbus(['jobs', '--json'])).stdout), { jobs: [FAILED, JOB] });
});

test('job asks for what is to be changed, one thing at a time', async () => {
  for (const [argv, request] of [
    [['--pause'], 'PATCH /v1/jobs/j3 {"paused":true}'],
    [['--speed', 'unlimited'], 'PATCH /v1/jobs/j3 {"bytesPerSecondMax":null}'],
    [['--cancel'], 'POST /v1/jobs/j3/cancellation'],
  ] as const) {
    const asked = await answers(CANCELLED, { looks: 0 });
    const { stderr, status } = await daemon.netbus(['job', 'j3', ...argv]);
    assert.deepEqual([stderr, status, asked], ['', 0, [request]]);
  }
  assertFails(await daemon.netbus(['job', 'j3', '--pause', '--cancel']), 2, /one at a time: --pause or --cancel/);
  assertFails(await daemon.netbus(['swap', 'web/data', '--to', 'm2']), 2, /"m2" is not of the form HOST\/NAME/);
});

test('ids of jobs, and what a disk may follow to, are completed', async () => {
  const devices = { ...DEVICES, devices: DEVICES.devices.map((device) => ({ ...device, readOnly: false })) };
  const at: Record<string, object> = { '/v1/jobs': { jobs: [FAILED, { ...JOB, id: 'j4' }] }, '/v1/status': STATUS };
  await daemon.listen((request, response) => response.end(JSON.stringify(at[request.url!] ?? devices)));
  const complete = (...argv: string[]) => completeNames(['--socket', `${daemon.folder}/netbus.sock`, ...argv]);
  assert.equal(await complete('job'), 'j4\tweb/data to m2/new, running\nj3\tweb/data to m2/new, failed\n');
  assert.equal(await complete('follow', '--', 'data=m'), 'data=m1/t\t512 bytes\n');
});

test('what was done to a job, in words', () => {
  const cancelling: JobEntry = { ...JOB, cancelling: true, progress: { ...JOB.progress!, reason: 'm2 is away' } };
  for (const [options, entry, text] of [
    [{}, JOB, undefined],
    [{ pause: true }, JOB, 'job j3 is paused: "netbus job j3 --resume" lets it go on\n'],
    [{ resume: true }, JOB, 'job j3 goes on\n'],
    [{ speed: 1024 ** 3 }, JOB, 'job j3 copies 1 GiB/s at most\n'],
    [{ speed: 'unlimited' }, JOB, 'job j3 copies as fast as it can\n'],
    [{ cancel: true }, CANCELLED, 'job j3 is cancelled: web/data stays at m1/data\n'],
    [{ cancel: true }, cancelling, 'job j3 is being cancelled: m2 is away\n'],
  ] as const) {
    assert.equal(changeText(entry, options), text);
  }
});
