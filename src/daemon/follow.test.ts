/** Both ends of a device that follows its VM: the host that the VM leaves, and the one where it goes. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { ATTACHMENT } from '../../test/support/answers.ts';
import type { JobEntry } from '../api/jobs.ts';
import type { AttachmentEntry } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { SWAP_FEATURE } from '../protocols/netbus/limits.ts';
import type { ExportListing } from './export-entry.ts';
import { Follows, type StartJob, startFollow, startJobSchema } from './follow.ts';
import type { JobRequest } from './jobs.ts';

const GIB = 1024 ** 3;
const FOLLOW = { name: 'data', to: 'm3/new' };
const here: AttachmentEntry[] = ['data', 'log', 'iso'].map((name) => ({
  ...{ ...ATTACHMENT, vm: 'web', name, device: `m1/${name}`, capacityBytes: GIB, readOnly: name === 'iso' },
}));

let listed: Record<string, ExportListing[]>;
let features: string[];
let started: JobRequest[];
let running: JobEntry | undefined;
let refused: string | undefined;
let follows: Follows;

function listing(more: Partial<ExportListing> = {}): ExportListing {
  const base = { name: 'new', class: 'disk', capacityBytes: GIB, readOnly: false, shared: false, state: 'ready' } as const;
  return { ...base, inUseBy: [], ...more };
}

/** Host m3, where the VM goes. */
const destination = {
  host: 'm3',
  isMember: (host: string) => ['m1', 'm2', 'm3'].includes(host),
  deviceHost: (host: string) => ({ list: async () => listed[host] ?? [] }),
  jobs: () => ({
    start: async (request: JobRequest) => {
      if (request.name === refused) throw new NetbusError('limit', 'too many jobs');
      started.push(request);
      return { id: `j${started.length}` } as JobEntry;
    },
    jobOf: () => running,
  }),
};

beforeEach(() => {
  listed = { m3: [listing()] };
  features = [SWAP_FEATURE];
  started = [];
  running = undefined;
  refused = undefined;
  follows = new Follows({
    host: 'm1',
    entries: () => here,
    isMember: destination.isMember,
    links: {
      call: async (host, method, params) => {
        assert.deepEqual([host, method], ['m3', 'job.start']);
        return { ...(await startFollow(destination, startJobSchema.parse(JSON.parse(JSON.stringify(params))))) };
      },
      welcomeOf: async () => ({ release: '0.0.9', features }),
    },
  });
});

describe('before the migration', () => {
  test('what can follow is let through, and nothing is started', async () => {
    listed.m2 = [listing({ name: 'log', capacityBytes: 2 * GIB })];
    await follows.check('web', 'm3', [FOLLOW, { name: 'log', to: 'm2/log' }]);
    assert.deepEqual(started, []);
  });

  const cases: [what: string, follow: typeof FOLLOW, code: string, message: RegExp, set?: () => void][] = [
    ['a device that it has not', { name: 'x', to: 'm3/new' }, 'not_found', /VM web has no device x .*: it has data, log, iso$/],
    ['where it is', { name: 'data', to: 'm1/data' }, 'usage', /^web\/data is at m1\/data already$/],
    ['read-only', { name: 'iso', to: 'm3/new' }, 'usage', /is read-only/],
    ['a host that is none', { name: 'data', to: 'm9/new' }, 'not_found', /^there is no host m9 in the cluster/],
    [
      'an export that is none',
      { name: 'data', to: 'm2/x' },
      'not_found',
      /^there is no m2\/x that host m3 may use: .*--allow m3"/,
    ],
    ['an older release', FOLLOW, 'protocol', /^host m3 runs netbus 0\.0\.9, which does not know/, () => (features = [])],
    ['too small', FOLLOW, 'usage', /too small: it has 512 MiB, web\/data has 1 GiB/, () => offer({ capacityBytes: GIB / 2 })],
    ['a target that is read-only', FOLLOW, 'usage', /m3\/new is read-only/, () => offer({ readOnly: true })],
    ['in use', FOLLOW, 'in_use', /in use by m2:db\/x/, () => offer({ inUseBy: ['m2:db/x'] })],
    ['not open', FOLLOW, 'device', /m3\/new is failed/, () => offer({ state: 'failed' })],
    [
      'not for its own host',
      FOLLOW,
      'denied',
      /--allow m3/,
      () => offer({ details: { allow: ['m1'], allowCount: 1 } as never }),
    ],
  ];
  const offer = (more: Partial<ExportListing>) => {
    listed.m3 = [listing(more)];
  };
  for (const [what, follow, code, message, set] of cases) {
    test(`refused: ${what}`, async () => {
      set?.();
      await assert.rejects(follows.check('web', 'm3', [follow]), { code, message });
    });
  }

  test('refused: one device for two, or two for one', async () => {
    for (const other of [
      { name: 'log', to: 'm3/new' },
      { name: 'data', to: 'm3/x' },
    ]) {
      await assert.rejects(follows.check('web', 'm3', [FOLLOW, other]), { code: 'usage', message: /is there twice$/ });
    }
  });
});

describe('after it', () => {
  test('a job is started, which waits until the VM has settled', async () => {
    assert.deepEqual(await follows.start('web', 'm3', [FOLLOW]), [{ ...FOLLOW, job: 'j1' }]);
    const to = { host: 'm3', export: 'new' };
    assert.deepEqual(started, [{ vm: 'web', name: 'data', to, overwrite: false, whenSettled: true }]);
  });

  test('asked again, it is the same one', async () => {
    running = { id: 'j7', to: 'm3/new' } as JobEntry;
    const request: StartJob = { vm: 'web', name: 'data', host: 'm3', export: 'new' };
    assert.deepEqual(await startFollow(destination, request), { job: 'j7' });
    assert.deepEqual(started, []);
  });

  test('why there is none is told, and the others are started', async () => {
    refused = 'log';
    const log = { name: 'log', to: 'm2/x' };
    assert.deepEqual(await follows.start('web', 'm3', [log, FOLLOW]), [
      { ...log, reason: 'too many jobs' },
      { ...FOLLOW, job: 'j1' },
    ]);
  });
});
