import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JOB } from '../../test/support/answers.ts';
import type { JobEntry, JobProgress } from '../api/jobs.ts';
import { plain } from '../lib/format.ts';
import { describeJob, endText, jobTable, progressText } from './job-text.ts';

const MIB = 1024 ** 2;

function job(progress: Partial<JobProgress>, more: Partial<JobEntry> = {}): JobEntry {
  return { ...JOB, ...more, progress: { ...JOB.progress!, ...progress } };
}

test('how far it is, with a bar and without one', () => {
  const cases: [JobEntry, string, string?][] = [
    [
      job({}),
      'copying [========>           ] 42 %, 58 MiB left, 10 MiB/s, 2 MiB dirty, 6 s to go',
      'copying: 42 %, 58 MiB left, 10 MiB/s, 2 MiB dirty, 6 s to go',
    ],
    [
      job({ phase: 'converging', doneBytes: 100 * MIB, dirtyBytes: 0, secondsLeft: 0 }),
      'converging [====================] 100 %, 0 bytes left, 10 MiB/s, 0 ms to go',
    ],
    [job({ doneBytes: 100 * MIB - 1 }), 'copying [===================>] 99 %, 1 bytes left, 10 MiB/s, 2 MiB dirty, 6 s to go'],
    [job({}, { state: 'paused' }), 'paused [========>           ] 42 %, 58 MiB left, 2 MiB dirty'],
    [job({ totalBytes: 0, doneBytes: 0 }), 'copying'],
    [
      job({ phase: 'waiting', bytesPerSecond: 0, reason: 'm2 is away' }),
      'waiting [========>           ] 42 %, 58 MiB left, 2 MiB dirty; m2 is away',
    ],
    [job({ phase: 'waiting', totalBytes: 0, reason: 'm2 is away' }), 'waiting: m2 is away'],
    [job({ phase: 'releasing', reason: 'm1 is away' }), 'releasing: m1 is away'],
    [job({ totalBytes: 0, reason: 'm2 is away' }, { cancelling: true }), 'cancelling: m2 is away'],
  ];
  for (const [entry, withBar, without] of cases) {
    assert.equal(progressText(entry, { bar: true }), withBar);
    if (without !== undefined) assert.equal(progressText(entry, { bar: false }), without);
  }
});

test('how it ended', () => {
  const over = { endedAt: '2030-01-01T00:01:30Z' };
  const done = job({ doneBytes: 100 * MIB, stallMs: 7.26 }, { ...over, state: 'done' });
  assert.equal(endText(done), 'web/data is m2/new now: 100 MiB copied in 1 min 30 s, its guest stood still for 7.3 ms');
  assert.equal(endText({ ...JOB, ...over, state: 'cancelled' }), 'cancelled: web/data stays at m1/data');
  const { from: _, ...notBegun } = JOB;
  const failed = { ...notBegun, ...over, state: 'failed', reason: 'm2/new is full' } as const;
  assert.equal(endText(failed), 'failed: m2/new is full; web/data stays where it is');
});

test('one, and all', () => {
  const now = Date.parse('2030-01-01T00:00:35Z');
  assert.match(
    describeJob(job({}, { bytesPerSecondMax: 20 * MIB }), plain, now),
    /^j3: web\/data from m1\/data to m2\/new, since \S+ \(35 s\)\ncopying \[.*to go\nat most 20 MiB\/s\n$/,
  );
  const over = job({}, { id: 'j2', state: 'failed', endedAt: '2030-01-01T00:00:30Z', reason: 'm2/new is full' });
  assert.match(
    describeJob(over, plain, now),
    /^j2: web\/data from m1\/data to m2\/new, since [^()]*\n\S+: failed: m2\/new is full; web\/data stays at m1\/data\n$/,
  );
  assert.equal(jobTable([], plain, now), 'no jobs\n');
  const [head, first, second] = jobTable([over, job({})], plain, now).split('\n');
  assert.match(head, /^JOB +ATTACHMENT +FROM +TO +STATE +DONE +LEFT +RATE +DIRTY +TO GO +BEGUN +ENDED +REASON$/);
  assert.match(first, /^j2 +web\/data +m1\/data +m2\/new +failed +- +- +- +- +- +\S+ +\S+ +m2\/new is full$/);
  assert.match(second, /^j3 +web\/data +m1\/data +m2\/new +copying +42 % +58 MiB +10 MiB\/s +2 MiB +6 s +\S+ +- +-$/);
});
