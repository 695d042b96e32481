import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { JobEntry, JobProgress } from '../api/jobs.ts';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import type { NewEvent } from './events.ts';
import type { Job, JobEnd } from './job.ts';
import { type JobRecord, jobRecordSchema } from './job-record.ts';
import { JOBS_KEPT_MAX, JOBS_RUNNING_MAX, type JobRequest, Jobs } from './jobs.ts';
import type { StoredRecord } from './record.ts';
import { BEGIN_MS_MAX, BEGIN_RETRY_MS, CANCEL_MS_MAX } from './running-job.ts';
import { RecordStore } from './store.ts';

const folder = mkdtempSync(join(tmpdir(), 'nb-jobs-'));
after(() => rmSync(folder, { recursive: true }));

const PROGRESS: JobProgress = { phase: 'copying', totalBytes: 100, doneBytes: 40, dirtyBytes: 5, bytesPerSecond: 10 };
const REQUEST: JobRequest = { vm: 'web', name: 'data', to: { host: 'm2', export: 'new' }, overwrite: false };
const FROM = { host: 'm1', export: 'old', attachment: '1b4e28ba-2fa1-41d2-883f-0016d3cca427' };

/** A job that does what the test says. */
class ScriptedJob implements Job {
  readonly record: StoredRecord<JobRecord>;
  readonly told: string[] = [];
  readonly ended: Promise<JobEnd>;
  end!: (end: JobEnd) => void;
  progress = PROGRESS;
  readonly #script: Script;

  constructor(record: StoredRecord<JobRecord>, script: Script) {
    this.record = record;
    this.#script = script;
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
  }

  async start(): Promise<void> {
    this.told.push('start');
    await this.#script.starts?.();
    await this.record.change((value) => ({ ...value, state: 'copying', from: FROM, generation: 2 }));
  }

  async resumeAfterRestart(): Promise<void> {
    this.told.push(`resume at ${this.record.value.state}`);
  }

  describe(): JobProgress {
    return this.progress;
  }

  pause(): void {
    this.told.push('pause');
  }

  resume(): void {
    this.told.push('resume');
  }

  setSpeed(bytesPerSecondMax: number | undefined): void {
    this.told.push(`speed ${bytesPerSecondMax}`);
  }

  async cancel(): Promise<void> {
    this.told.push('cancel');
    await this.#script.cancels?.();
    this.end({ state: 'cancelled' });
  }

  async close(): Promise<void> {
    this.told.push('close');
  }
}

interface Script {
  starts?: () => Promise<void>;
  cancels?: () => Promise<void>;
}

let folders = 0;

/** Jobs of a host, whose daemon may be started anew. */
class Host {
  readonly clock = new ManualClock();
  readonly events: NewEvent[] = [];
  readonly script: Script = {};
  readonly made: ScriptedJob[] = [];
  readonly store = new RecordStore(join(folder, String(++folders)), jobRecordSchema);
  jobs = this.#make();

  static async open(): Promise<Host> {
    const host = new Host();
    await host.restore();
    return host;
  }

  async restore(): Promise<void> {
    const { records, damaged } = await this.store.load(0);
    assert.deepEqual(damaged, []);
    this.jobs.restore(records);
    await this.jobs.resumeAll();
  }

  async restart(): Promise<void> {
    await this.jobs.close();
    this.jobs = this.#make();
    this.made.length = 0;
    await this.restore();
  }

  start(more: Partial<JobRequest> = {}): Promise<JobEntry> {
    return this.jobs.start({ ...REQUEST, ...more });
  }

  #make(): Jobs {
    const { store: records, clock, events } = this;
    const makeJob = ({ record }: { record: StoredRecord<JobRecord> }) => {
      const job = new ScriptedJob(record, this.script);
      this.made.push(job);
      return job;
    };
    return new Jobs({ records, makeJob, clock, log: silentLog, events: { record: (event) => events.push(event) } });
  }
}

/** Resolves when `holds` does; a job that never gets there is a test that never ends. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

const refusal = (code: NetbusError['code']) => async () => {
  throw new NetbusError(code, `refused: ${code}`);
};

test('a job begins, is described, ends, and is kept over a restart', async () => {
  const host = await Host.open();
  const entry = await host.start({ bytesPerSecondMax: 65_536 });
  assert.deepEqual(entry, {
    ...{ id: 'j1', kind: 'swap', vm: 'web', name: 'data', from: 'm1/old', to: 'm2/new', overwrite: false },
    ...{ state: 'running', bytesPerSecondMax: 65_536, createdAt: '2026-01-01T00:00:00.000Z', progress: PROGRESS },
  });
  assert.deepEqual(host.jobs.find('j1'), entry);
  assert.deepEqual(host.jobs.jobOf('web', 'data'), entry);
  assert.throws(() => host.jobs.find('j2'), { code: 'not_found' });

  host.clock.advance(1_000);
  const progress = { ...PROGRESS, phase: 'releasing', doneBytes: 100, stallMs: 7 } as const;
  host.made[0].progress = { ...progress, secondsLeft: 0, reason: 'm1 is away' };
  host.made[0].end({ state: 'done' });
  await until(() => host.jobs.jobOf('web', 'data') === undefined);
  await host.restart();
  const kept = { ...entry, state: 'done', endedAt: '2026-01-01T00:00:01.000Z', progress };
  assert.deepEqual(host.jobs.entries(), [kept]);
  assert.deepEqual(host.made, []);
  assert.deepEqual(
    host.events.map(({ type, subject, message }) => [type, subject, message]),
    [
      ['job.started', 'web/data', 'job j1 swaps it from m1/old to m2/new'],
      ['job.ended', 'web/data', 'job j1 has swapped it to m2/new: 100 bytes were copied, and its guest stood still for 7 ms'],
    ],
  );
  for (const verb of ['pause', 'resume', 'cancel'] as const) {
    await assert.rejects(host.jobs[verb]('j1'), { code: 'ended', message: 'job j1 is over: it is done' });
  }
  assert.equal((await host.start()).id, 'j2');
});

test('a job that is refused leaves nothing, and one that fails says why', async () => {
  const host = await Host.open();
  host.script.starts = refusal('denied');
  await assert.rejects(host.start(), { code: 'denied' });
  assert.deepEqual(host.made[0].told, ['start', 'close']);
  assert.deepEqual([host.jobs.entries(), (await host.store.load(0)).records.size, host.events], [[], 0, []]);

  delete host.script.starts;
  await host.start();
  host.made[1].end({ state: 'failed', code: 'device', reason: 'm2/new is full' });
  await until(() => host.jobs.entries()[0].state === 'failed');
  const { reason, code } = host.jobs.entries()[0];
  assert.deepEqual([reason, code], ['m2/new is full', 'device']);
  const { severity, message } = host.events.at(-1)!;
  assert.deepEqual([severity, message], ['error', 'job j2 failed: it stays at m1/old: m2/new is full']);
});

test('a daemon that stops while a job begins leaves it to the next one', async () => {
  const host = await Host.open();
  let give: () => void = () => {};
  host.script.starts = () =>
    new Promise((_, reject) => {
      give = () => reject(new NetbusError('ended', 'the daemon is stopping'));
    });
  const started = host.start();
  await until(() => host.made[0]?.told.length === 1);
  const closed = host.jobs.close();
  give();
  await assert.rejects(started, { code: 'ended' });
  await closed;
  await host.restart();
  assert.deepEqual(host.made[0].told, ['resume at copying']);
});

test('one for each virtual device, and a bound for all', async () => {
  const host = await Host.open();
  await host.start();
  await assert.rejects(host.start(), { code: 'in_use', message: /^job j1 swaps web\/data to m2\/new already: / });
  for (let i = 1; i < JOBS_RUNNING_MAX; i++) await host.start({ name: `d${i}` });
  await assert.rejects(host.start({ name: 'more' }), { code: 'limit' });
  host.made[0].end({ state: 'done' });
  await until(() => host.jobs.jobOf('web', 'data') === undefined);
  assert.equal((await host.start()).id, `j${JOBS_RUNNING_MAX + 1}`);
});

test('two at the same moment: one is taken', async () => {
  const host = await Host.open();
  const results = await Promise.allSettled([host.start(), host.start()]);
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
});

test('paused, slowed and cancelled, over a restart', async () => {
  const host = await Host.open();
  await host.start();
  assert.equal((await host.jobs.pause('j1')).state, 'paused');
  assert.equal((await host.jobs.setSpeed('j1', 1 << 20)).bytesPerSecondMax, 1 << 20);
  await host.restart();
  assert.deepEqual(host.made[0].told, ['resume at copying']);
  const { paused, bytesPerSecondMax } = host.made[0].record.value;
  assert.deepEqual([paused, bytesPerSecondMax], [true, 1 << 20]);
  assert.equal((await host.jobs.resume('j1')).state, 'running');
  assert.equal((await host.jobs.setSpeed('j1', undefined)).bytesPerSecondMax, undefined);
  const cancelled = await host.jobs.cancel('j1');
  assert.deepEqual([cancelled.state, cancelled.cancelling], ['cancelled', undefined]);
  assert.deepEqual(host.made[0].told.slice(1), ['resume', 'speed undefined', 'cancel']);
  assert.deepEqual(
    host.events.map(({ type }) => type),
    ['job.started', 'job.paused', 'job.resumed', 'job.ended'],
  );
});

test('a cancellation that takes long goes on, also in a daemon that is started anew', async () => {
  const host = await Host.open();
  await host.start();
  host.script.cancels = () => new Promise(() => {});
  const cancelled = host.jobs.cancel('j1');
  await until(() => host.made[0].told.includes('cancel'));
  host.clock.advance(CANCEL_MS_MAX);
  const { state, cancelling } = await cancelled;
  assert.deepEqual([state, cancelling], ['running', true]);
  delete host.script.cancels;
  await host.restart();
  await until(() => host.jobs.entries()[0].state === 'cancelled');
  assert.deepEqual(host.made[0].told, ['resume at copying', 'cancel']);
});

test('a cancellation that comes too late is refused, and forgotten', async () => {
  const host = await Host.open();
  await host.start();
  host.script.cancels = refusal('ended');
  await assert.rejects(host.jobs.cancel('j1'), { code: 'ended' });
  const { state, cancelling } = host.jobs.find('j1');
  assert.deepEqual([state, cancelling], ['running', undefined]);
  await host.restart();
  assert.deepEqual(host.made[0].told, ['resume at copying']);
});

test('one that waits for its virtual device to settle begins when it has', async () => {
  const host = await Host.open();
  host.script.starts = refusal('in_use');
  assert.equal((await host.start({ whenSettled: true })).state, 'running');
  const waits = () => host.jobs.find('j1').progress?.reason !== undefined;
  await until(waits);
  const progress = { phase: 'waiting', totalBytes: 0, doneBytes: 0, dirtyBytes: 0, bytesPerSecond: 0 };
  const reason = { reason: 'refused: in_use', waitingSince: '2026-01-01T00:00:00.000Z' };
  assert.deepEqual(host.jobs.find('j1').progress, { ...progress, ...reason });
  await host.restart();
  await until(waits);
  delete host.script.starts;
  host.clock.advance(BEGIN_RETRY_MS);
  await until(() => host.jobs.find('j1').from !== undefined);
  assert.deepEqual(host.jobs.find('j1').progress, PROGRESS);
  await host.restart();
  assert.deepEqual(host.made[0].told, ['resume at copying']);
});

test('one that waits is cancelled, refused for good, or has waited for too long', async () => {
  const host = await Host.open();
  host.script.starts = refusal('unreachable');
  await host.start({ whenSettled: true });
  assert.equal((await host.jobs.cancel('j1')).state, 'cancelled');
  await host.start({ whenSettled: true });
  await until(() => host.jobs.find('j2').progress?.reason !== undefined);
  host.script.starts = refusal('denied');
  host.clock.advance(BEGIN_RETRY_MS);
  await until(() => host.jobs.find('j2').state === 'failed');
  assert.equal(host.jobs.find('j2').code, 'denied');

  host.script.starts = refusal('in_use');
  await host.start({ whenSettled: true });
  await until(() => host.jobs.find('j3').progress?.reason !== undefined);
  await host.jobs.close();
  const closed = host.made.length;
  host.clock.advance(BEGIN_MS_MAX);
  assert.equal(host.made.length, closed);
  await host.restart();
  await until(() => host.jobs.find('j3').state === 'failed');
});

test('the newest that are over are kept', async () => {
  const host = await Host.open();
  for (let i = 0; i <= JOBS_KEPT_MAX; i++) {
    await host.start();
    host.made[i].end({ state: 'done' });
    await until(() => host.jobs.jobOf('web', 'data') === undefined);
  }
  await until(() => host.jobs.entries().length === JOBS_KEPT_MAX);
  assert.equal(host.jobs.entries()[0].id, 'j2');
  await host.restart();
  assert.equal(host.jobs.entries().length, JOBS_KEPT_MAX);
  assert.equal((await host.start()).id, `j${JOBS_KEPT_MAX + 2}`);
});
