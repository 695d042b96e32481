import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { JobEntry } from '../api/jobs.ts';
import type { AttachmentEntry, ExportEntry, LinkEntry, Status } from '../api/types.ts';
import { ManualClock } from '../lib/clock.ts';
import type { Attachment } from './attachment.ts';
import { findWaits, Overview } from './overview.ts';
import type { Rates } from './rates.ts';
import type { AttachmentRecord } from './records.ts';

const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString();

function attachment(name: string, more: Partial<AttachmentEntry>): AttachmentEntry {
  const base = {
    vm: 'web',
    name,
    device: `m1/${name}`,
    local: false,
    socket: `/run/${name}`,
    capacityBytes: 512,
    readOnly: false,
    queues: 1,
  };
  return { ...base, qemuArguments: [], state: 'active', since: at(0), connected: true, inFlight: 0, ...more };
}

function exported(name: string, more: Partial<ExportEntry>): ExportEntry {
  const base = {
    name,
    class: 'disk',
    device: `/d/${name}`,
    readOnly: false,
    shared: false,
    allow: [],
    capacityBytes: 512,
  } as const;
  return { ...base, state: 'ready', since: at(0), backend: {}, attachments: [], ...more } as ExportEntry;
}

const link = (host: string, more: Partial<LinkEntry>): LinkEntry => ({
  host,
  address: host,
  state: 'up',
  since: at(0),
  ...more,
});

describe('what waits for what', () => {
  test('the longest wait first, and nothing where all is well', () => {
    const waits = findWaits(
      'm2',
      [link('m1', { state: 'down', since: at(10), reason: 'refused' }), link('m3', {}), link('m4', { state: 'idle' })],
      [
        exported('locked', { state: 'waiting', since: at(5), reason: 'it is in use by qemu (pid 7)' }),
        exported('gone', { state: 'failed', since: at(20), reason: '/d/gone does not exist' }),
        exported('good', { reason: 'a write failed once' }),
      ],
      [
        attachment('data', { state: 'connecting', since: at(12), reason: 'm1 refused the connection' }),
        attachment('own', { device: 'm2/own', state: 'connecting', since: at(13) }),
        attachment('ring', { since: at(1), reason: 'ring 0 is out of use: a descriptor points outside' }),
        attachment('lost', { state: 'failed', reason: 'acknowledged writes may be lost' }),
        attachment('good', {}),
        attachment('idle', { state: 'idle', connected: false }),
      ],
    );
    assert.deepEqual(
      waits.map(({ subject, waitsFor, since, reason }) => `${subject} > ${waitsFor} ${since.slice(17, 19)} ${reason ?? '-'}`),
      [
        'web/ring > a reset of VM web 01 ring 0 is out of use: a descriptor points outside',
        'locked > the lock of /d/locked 05 it is in use by qemu (pid 7)',
        'the link with m1 > m1 10 refused',
        'web/data > m1 12 m1 refused the connection',
        'web/own > export own 13 -',
        'gone > /d/gone 20 /d/gone does not exist',
      ],
    );
    assert.deepEqual(findWaits('m2', [link('m3', {})], [exported('good', {})], [attachment('good', {})]), []);
  });
});

const progress = { phase: 'waiting', totalBytes: 100, doneBytes: 40, dirtyBytes: 0, bytesPerSecond: 0 } as const;
const job: JobEntry = {
  ...{ id: 'j1', kind: 'swap', vm: 'web', name: 'data', from: 'm1/data', to: 'm2/new', overwrite: false, state: 'running' },
  ...{ createdAt: at(0), progress: { ...progress, reason: 'm2 does not answer', waitingSince: at(5) } },
};
const { from: _, ...notBegun } = { ...job, id: 'j2', name: 'log' };
const JOBS: readonly JobEntry[] = [
  job,
  { ...notBegun, progress: { ...progress, reason: 'its guest has just come' } },
  { ...job, id: 'j3', name: 'paused', state: 'paused' },
  { ...job, id: 'j4', name: 'over', state: 'failed', endedAt: at(0) },
];

test('sessions of both roles, rates where there are some, and a word where events are not stored', () => {
  const clock = new ManualClock();
  const entries = [attachment('data', { epoch: 4, inFlight: 2 }), attachment('idle', { state: 'idle' })];
  const rate = { requestsPerSecond: 1, bytesPerSecond: 2, errorsPerSecond: 0 };
  const attachments = entries.map((entry) => ({ describe: () => entry }) as Attachment);
  const overview = new Overview({
    host: 'm2',
    clock,
    attachments: () => attachments,
    rates: {
      of: (key: Attachment) => (key === attachments[0] ? { seconds: 10, read: rate, write: rate, other: rate } : undefined),
    } as unknown as Rates<Attachment>,
    sessions: () => [
      { peer: 'm3', attachment: 'id-1', state: 'active', since: clock.wallTime(), epoch: 7, inFlight: 3 },
      { peer: 'm3', attachment: 'id-1', state: 'over', since: clock.wallTime(), inFlight: 0 },
      { peer: 'm3', attachment: 'id-removed', state: 'standby', since: clock.wallTime(), inFlight: 0 },
    ],
    record: (id) => (id === 'id-1' ? ({ export: 'iso', vm: 'db', name: 'cd' } as AttachmentRecord) : undefined),
    jobs: () => JOBS,
    eventsNotStored: () => 'no space left',
  });
  const status = overview.complete({ host: 'm2', links: [], exports: [], warnings: ['of before'] } as unknown as Status);
  assert.equal(status.time, '2026-01-01T00:00:00.000Z');
  assert.deepEqual(status.attachments[0].rates?.seconds, 10);
  assert.equal(status.attachments[1].rates, undefined);
  assert.deepEqual(status.sessions, [
    { role: 'vm', peer: 'm1', device: 'm1/data', attachment: 'web/data', state: 'active', since: at(0), epoch: 4, inFlight: 2 },
    { role: 'device', peer: 'm3', device: 'm2/iso', attachment: 'db/cd', state: 'active', since: at(0), epoch: 7, inFlight: 3 },
  ]);
  assert.deepEqual(status.jobs, JOBS.slice(0, 3));
  assert.deepEqual(status.waits, [
    { about: 'job', subject: 'j2', waitsFor: 'web/log to be ready for it', since: at(0), reason: 'its guest has just come' },
    { about: 'job', subject: 'j1', waitsFor: 'm1/data or m2/new', since: at(5), reason: 'm2 does not answer' },
  ]);
  assert.deepEqual(status.warnings, ['of before', 'events are not stored and end with this daemon: no space left']);
});
