import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Devices, ErrorBody, Status } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { silentLog } from '../lib/log.ts';
import type { Attachments } from './attachments.ts';
import type { Events } from './events.ts';
import type { Exports } from './exports.ts';
import type { Follows } from './follow.ts';
import type { IssuingDesk } from './issuing-desk.ts';
import type { Jobs } from './jobs.ts';
import type { Membership } from './membership.ts';
import { Metrics } from './metrics.ts';
import type { MigrationDesk } from './migration-desk.ts';
import type { Preparation } from './preparation.ts';
import { createRoutes } from './routes.ts';

let notReady: string | undefined;
const exports = {
  add: async (request: object) => request,
  remove: async (name: string) => {
    if (name === 'bug') throw new TypeError('of undefined');
    throw new NetbusError('not_found', `no ${name}`);
  },
} as unknown as Exports;
const attachments = { detach: async (...args: unknown[]) => [args.join(' ')] } as unknown as Attachments;
const preparation = {
  prepare: async (...args: unknown[]) => [args.join(' ')],
  unprepare: async () => {},
} as unknown as Preparation;
const membership = {
  members: () => ({ cluster: 'lab', members: [] }),
} as unknown as Membership;
const desk = {
  invite: async (host: string, address?: string) => ({ host, address }),
  checkEvict: (host: string) => {
    if (host !== 'm4') throw new NetbusError('not_found', `no ${host}`);
  },
  evict: async (host: string) => ({ host, told: [], untold: [] }),
  setAddress: async (host: string, address: string) => ({ host, address }),
} as unknown as IssuingDesk;
const migrations = {
  begin: async (vm: string, request: object) => ({ vm, ...request }),
  end: async (...args: unknown[]) => void ended.push(args),
  report: async (vm: string, to: string) => ({ vm, to }),
  progress: (vm: string, phase?: string) => ({ vm, phase }),
  cancel: (vm: string) => ({ vm, cancel: true }),
  switchover: (vm: string) => ({ vm, stopped: true }),
} as unknown as MigrationDesk;
const ended: unknown[] = [];
const jobs = {
  start: async (request: object) => request,
  entries: () => [{ id: 'j1' }],
  find: (id: string) => {
    if (id !== 'j1') throw new NetbusError('not_found', `no ${id}`);
    return { id };
  },
  pause: async (id: string) => void changed.push(`pause ${id}`),
  resume: async (id: string) => void changed.push(`resume ${id}`),
  setSpeed: async (id: string, bytes?: number) => void changed.push(`speed ${id} ${bytes}`),
  cancel: async (id: string) => ({ id, state: 'cancelled' }),
} as unknown as Jobs;
const changed: string[] = [];
const follows = {
  check: async (...args: unknown[]) => void checked.push(args),
  start: async (vm: string, to: string, follow: object[]) => follow.map((each) => ({ ...each, job: `${vm} ${to}` })),
} as unknown as Follows;
const checked: unknown[] = [];
const app = createRoutes({
  exports,
  attachments,
  preparation,
  membership,
  desk,
  migrations,
  jobs,
  follows,
  metrics: new Metrics('1.2.3'),
  status: async () => ({ host: 'm1' }) as Status,
  devices: async () => ({}) as Devices,
  busAttachments: async () => ({ attachments: [], away: [], warnings: [] }),
  checkFence: (host) => {
    if (host === 'm1') throw new NetbusError('usage', `host ${host} is alive`);
    return { host, answers: false };
  },
  fence: async (host) => ({ host, fenced: [], untold: [] }),
  events: {} as Events,
  probe: async () => [],
  notReady: () => notReady,
  log: silentLog,
});

const post = (body: string) => app.request('/v1/exports', { method: 'POST', body });

async function refused(response: Response, status: number, code: string, message: RegExp): Promise<void> {
  assert.equal(response.status, status);
  const { error } = (await response.json()) as ErrorBody;
  assert.equal(error.code, code);
  assert.match(error.message, message);
}

test('the devices of a VM that comes are asked for, and taken back', async () => {
  const at = '/v1/vms/web/preparation';
  const prepared = await app.request(at, { method: 'POST', body: '{"from":"m1"}' });
  assert.deepEqual(await prepared.json(), { attachments: ['web m1'] });
  await refused(await app.request(at, { method: 'POST', body: '{}' }), 400, 'usage', /from/);
  assert.deepEqual(await (await app.request(at, { method: 'DELETE' })).json(), {});
});

test('a request is completed with its defaults', async () => {
  const response = await post('{"name":"data","disk":"/d"}');
  assert.deepEqual(await response.json(), { name: 'data', disk: '/d', readOnly: false, allow: [], direct: false });
});

test('what is wrong with a request is told', async () => {
  await refused(await post('{'), 400, 'usage', /not JSON/);
  await refused(await post('{"name":"a b","disk":"/d"}'), 400, 'usage', /^name: a name has letters/);
  await refused(await post('{"name":"a","disk":"/d","more":1}'), 400, 'usage', /more/);
  await refused(await post(JSON.stringify({ name: 'x'.repeat(300_000) })), 429, 'limit', /at most/);
  // A command of a newer release: "not found" would be about a name.
  await refused(await app.request('/v1/nothing'), 502, 'protocol', /not know GET \/v1\/nothing: .* another release/);
});

test('an error keeps its code, and a bug is none of the caller’s', async () => {
  await refused(await app.request('/v1/exports/x', { method: 'DELETE' }), 404, 'not_found', /no x/);
  await refused(await app.request('/v1/exports/bug', { method: 'DELETE' }), 500, 'internal', /undefined/);
});

test('detach passes force on and gives the warnings', async () => {
  const detach = async (query: string) => (await app.request(`/v1/attachments/web/data${query}`, { method: 'DELETE' })).json();
  assert.deepEqual(await detach(''), { warnings: ['web data false'] });
  assert.deepEqual(await detach('?force=true'), { warnings: ['web data true'] });
});

test('members: listed, invited and evicted', async () => {
  assert.deepEqual(await (await app.request('/v1/members')).json(), { cluster: 'lab', members: [] });
  const invite = (body: string) => app.request('/v1/invitations', { method: 'POST', body });
  assert.deepEqual(await (await invite('{"host":"m4","address":"10.0.0.4"}')).json(), { host: 'm4', address: '10.0.0.4' });
  await refused(await invite('{"host":"m 4"}'), 400, 'usage', /^host: a name has letters/);
  await refused(await invite('{}'), 400, 'usage', /^host: /);
  assert.deepEqual(await (await app.request('/v1/members/m4/eviction')).json(), { allowed: true });
  await refused(await app.request('/v1/members/m5/eviction'), 404, 'not_found', /no m5/);
  const evicted = await app.request('/v1/members/m4', { method: 'DELETE' });
  assert.deepEqual(await evicted.json(), { host: 'm4', told: [], untold: [] });
});

test('jobs: started, listed, changed and cancelled', async () => {
  const ask = (method: string, path: string, body?: object) =>
    app.request(`/v1/${path}`, { method, ...(body !== undefined && { body: JSON.stringify(body) }) });
  const answer = async (...given: Parameters<typeof ask>) => (await ask(...given)).json();
  const at = 'attachments/web/data/swap';
  const request = { vm: 'web', name: 'data', to: { host: 'm2', export: 'new' } };
  assert.deepEqual(await answer('POST', at, { to: 'm2/new' }), { ...request, overwrite: false });
  const more = { overwrite: true, bytesPerSecondMax: 1 << 20 };
  assert.deepEqual(await answer('POST', at, { to: 'm2/new', ...more }), { ...request, ...more });
  for (const to of ['m2', 'm2/a/b', '/new', 'm2/', 'm 2/x'])
    await refused(await ask('POST', at, { to }), 400, 'usage', /^to: /);
  await refused(await ask('POST', at, { to: 'm2/new', bytesPerSecondMax: 1 }), 400, 'usage', /^bytesPerSecondMax: /);
  assert.deepEqual(await answer('GET', 'jobs'), { jobs: [{ id: 'j1' }] });
  assert.deepEqual(await answer('GET', 'jobs/j1'), { id: 'j1' });
  await refused(await ask('GET', 'jobs/j2'), 404, 'not_found', /no j2/);
  assert.deepEqual(await answer('PATCH', 'jobs/j1', { paused: true }), { id: 'j1' });
  await answer('PATCH', 'jobs/j1', { paused: false, bytesPerSecondMax: null });
  await answer('PATCH', 'jobs/j1', { bytesPerSecondMax: 65_536 });
  assert.deepEqual(changed, ['pause j1', 'speed j1 undefined', 'resume j1', 'speed j1 65536']);
  await refused(await ask('PATCH', 'jobs/j1', {}), 400, 'usage', /say what is to be changed/);
  assert.deepEqual(await answer('POST', 'jobs/j1/cancellation'), { id: 'j1', state: 'cancelled' });
});

test('devices that follow their VM: checked before it goes, started after it', async () => {
  const ask = (path: string, body: object) =>
    app.request(`/v1/vms/web/migration${path}`, { method: 'POST', body: JSON.stringify(body) });
  const follow = [{ name: 'data', to: 'm3/new' }];
  const begun = await ask('', { to: 'm3', check: true, follow });
  assert.deepEqual(await begun.json(), { vm: 'web', to: 'm3', check: true });
  assert.deepEqual(checked, [['web', 'm3', follow]]);
  const started = await ask('/follow', { to: 'm3', follow });
  assert.deepEqual(await started.json(), { follows: [{ ...follow[0], job: 'web m3' }] });
  await refused(await ask('/follow', { to: 'm3', follow: [] }), 400, 'usage', /^follow: /);
  await refused(await ask('', { to: 'm3', follow: [{ name: 'data', to: 'new' }] }), 400, 'usage', /^follow\.0\.to: /);
});

test('health, readiness and metrics', async () => {
  assert.equal((await app.request('/healthz')).status, 200);
  assert.equal((await app.request('/readyz')).status, 200);
  notReady = 'exports are being opened';
  const response = await app.request('/readyz');
  assert.deepEqual([response.status, await response.text()], [503, 'not ready: exports are being opened\n']);
  assert.match(await (await app.request('/metrics')).text(), /netbus_build_info\{release="1\.2\.3"\} 1/);
});

test('a fence is checked, and done', async () => {
  assert.deepEqual(await (await app.request('/v1/hosts/m2/fence')).json(), { host: 'm2', answers: false });
  await refused(await app.request('/v1/hosts/m1/fence'), 400, 'usage', /alive/);
  const response = await app.request('/v1/hosts/m2/fence', { method: 'POST' });
  assert.deepEqual(await response.json(), { host: 'm2', fenced: [], untold: [] });
});

test('migrations: what is asked for reaches the desk, and what is wrong does not', async () => {
  const ask = (method: string, path: string, body?: object) =>
    app.request(`/v1/vms/web/${path}`, { method, ...(body !== undefined && { body: JSON.stringify(body) }) });
  const answer = async (...given: Parameters<typeof ask>) => (await ask(...given)).json();
  assert.deepEqual(await answer('POST', 'migration', { to: 'm3' }), { vm: 'web', to: 'm3', check: false });
  assert.deepEqual(await answer('GET', 'migration?to=m3'), { vm: 'web', to: 'm3' });
  assert.deepEqual(await answer('PUT', 'migration/progress', { phase: 'copying' }), { vm: 'web', phase: 'copying' });
  assert.deepEqual(await answer('GET', 'migration/progress'), { vm: 'web' });
  assert.deepEqual(await answer('POST', 'migration/cancellation'), { vm: 'web', cancel: true });
  assert.deepEqual(await answer('GET', 'switchover'), { vm: 'web', stopped: true });
  await ask('DELETE', 'migration?to=m3');
  await ask('DELETE', 'migration?to=m3&undo=false');
  assert.deepEqual(ended, [
    ['web', { to: 'm3', undo: true }],
    ['web', { to: 'm3', undo: false }],
  ]);
  await refused(await ask('GET', 'migration'), 400, 'usage', /\?to=HOST/);
  await refused(await ask('DELETE', 'migration?to=../x'), 400, 'usage', /\?to=HOST/);
  await refused(await ask('POST', 'migration', { to: 'm3', now: true }), 400, 'usage', /now/);
  await refused(await ask('PUT', 'migration/progress', { phase: 'dancing' }), 400, 'usage', /phase/);
});
