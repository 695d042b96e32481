/** Both ends of a migration's preparation: the desk of the host that a VM leaves, and the calls at the one that it goes to. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { ATTACHMENT } from '../../test/support/answers.ts';
import type { AttachmentEntry } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { HAND_OVER_FEATURE } from '../protocols/netbus/limits.ts';
import { createMigrationHandlers, PREPARATIONS_MAX, type PreparedAttachments } from './migration-calls.ts';
import { COMMAND_SILENT_MS_MAX, MigrationDesk } from './migration-desk.ts';

const STOP = { at: '2030-01-31T12:00:05.000Z', outcome: 'clean', drainMs: 3, stallMs: 1 } as const;
const START = { at: '2030-01-31T12:00:05.020Z', stallMs: 2 };

function entry(name: string, more: Partial<AttachmentEntry> = {}): AttachmentEntry {
  const { reason: _, ...base } = ATTACHMENT as AttachmentEntry;
  return { ...base, vm: 'web', name, device: `m3/${name}`, state: 'active', connected: true, ...more };
}

/** Of host m2. */
class Destination implements PreparedAttachments {
  all: AttachmentEntry[] = [];
  offers = ['data', 'log'];
  refusal: NetbusError | undefined;
  readonly diary: string[] = [];
  by: string | undefined;

  entries(): AttachmentEntry[] {
    return this.all;
  }

  preparedBy(): string | undefined {
    return this.by;
  }

  async prepare(
    vm: string,
    from: string,
    { check, preparedBy }: { check: boolean; preparedBy: string },
  ): Promise<AttachmentEntry[]> {
    assert.equal(preparedBy, from);
    this.diary.push(`${check ? 'check' : 'prepare'} ${vm} from ${from}`);
    if (this.refusal !== undefined) throw this.refusal;
    const entries = this.offers.map((name) => entry(name, { state: 'standby', connected: false }));
    if (!check) this.all = entries;
    return check ? [] : entries;
  }

  async unprepare(vm: string): Promise<void> {
    this.diary.push(`unprepare ${vm}`);
    this.all = [];
  }
}

let here: AttachmentEntry[];
let destination: Destination;
let desk: MigrationDesk;
let clock: ManualClock;
let features: Record<string, string[]>;
/** By method: what is thrown instead of an answer, or answered instead. */
let instead: Record<string, () => object>;

beforeEach(() => {
  here = [entry('data'), entry('log')];
  destination = new Destination();
  clock = new ManualClock();
  features = { m2: [HAND_OVER_FEATURE], m3: [HAND_OVER_FEATURE] };
  instead = {};
  const handlers = createMigrationHandlers(destination, async () => ({}));
  desk = new MigrationDesk({
    host: 'm1',
    entries: () => here,
    isMember: (host) => ['m1', 'm2', 'm3'].includes(host),
    links: {
      call: async (host, method, params) => {
        assert.equal(host, 'm2');
        if (instead[method] !== undefined) return instead[method]() as Record<string, unknown>;
        // As it comes over the wire.
        return JSON.parse(JSON.stringify(await handlers[method]('m1', JSON.parse(JSON.stringify(params)), undefined)));
      },
      welcomeOf: async (host) => {
        if (features[host] === undefined) throw new NetbusError('unreachable', `${host} refused the connection`);
        return { release: '0.1.0', features: features[host] };
      },
    },
    clock,
    log: { debug() {}, info() {}, warn() {}, error() {} },
  });
});

const begin = (check = false) => desk.begin('web', { to: 'm2', check });

describe('beginning', () => {
  test('makes the devices ready at the destination, and a check changes nothing', async () => {
    const devices = here.map(({ name, device, socket, connected }) => ({ name, device, socket, connected }));
    assert.deepEqual(await begin(true), { to: 'm2', devices, prepared: false });
    assert.deepEqual([destination.diary, destination.all], [['check web from m1'], []]);
    assert.throws(() => desk.progress('web'), { code: 'not_found' });
    assert.deepEqual(await begin(), { to: 'm2', devices, prepared: true });
    assert.equal(destination.diary.at(-1), 'prepare web from m1');
    await desk.end('web', { to: 'm2', undo: true });
    assert.equal(destination.diary.at(-1), 'unprepare web');
    assert.deepEqual(destination.all, []);
  });

  test('leaves alone what a person has made ready there', async () => {
    destination.all = ['data', 'log'].map((name) => entry(name, { state: 'standby' }));
    assert.equal((await begin()).prepared, false);
    await desk.end('web', { to: 'm2', undo: true });
    assert.deepEqual(destination.diary, ['prepare web from m1']);
  });

  for (const [what, change, code, message] of [
    ['no device here', () => (here = []), 'not_found', /VM web has no device on this host/],
    ['not connected', () => (here = [entry('data', { connected: false, state: 'idle' })]), 'device', /no VMM is connected/],
    [
      'a device that is away',
      () => (here[1] = entry('log', { state: 'connecting', reason: 'no' })),
      'unreachable',
      /web\/log \(m3\/log\) is away: no/,
    ],
    [
      'a device that failed',
      () => (here[1] = entry('log', { state: 'failed', reason: 'no' })),
      'device',
      /web\/log .* is out of use: no/,
    ],
    ['a VM that is to come here', () => (here[0] = entry('data', { state: 'standby' })), 'in_use', /VM web is not here yet/],
    ['a VM that has gone', () => (here[0] = entry('data', { state: 'moved' })), 'not_found', /VM web is not here any more/],
    ['a destination that is away', () => delete features.m2, 'unreachable', /m2 refused the connection/],
    [
      'a destination of a release before',
      () => (features.m2 = []),
      'protocol',
      /host m2 runs netbus 0\.1\.0, which does not know live migration/,
    ],
    ["a devices' host of a release before", () => (features.m3 = []), 'protocol', /host m3 runs netbus 0\.1\.0/],
    [
      'an export that is not for the destination',
      () => (destination.refusal = new NetbusError('denied', 'export data of m3 is not for host m2')),
      'denied',
      /^host m2 cannot take VM web: export data of m3 is not for host m2$/,
    ],
    [
      'an answer that is none',
      () => (instead['vm.prepare'] = () => ({ devices: 1 })),
      'protocol',
      /answered vm\.prepare with something else/,
    ],
  ] as const) {
    test(`is refused: ${what}`, async () => {
      change();
      await assert.rejects(begin(true), { code, message });
      await assert.rejects(begin(), { code, message });
      assert.deepEqual(destination.all, []);
      assert.throws(() => desk.progress('web'), { code: 'not_found' });
    });
  }

  test('is refused to this host, to one that is no member, and twice at once', async () => {
    await assert.rejects(desk.begin('web', { to: 'm1', check: false }), { code: 'usage' });
    await assert.rejects(desk.begin('web', { to: 'm9', check: false }), {
      code: 'not_found',
      message: /no host m9 in the cluster/,
    });
    const first = begin();
    await assert.rejects(begin(), {
      code: 'in_use',
      message: /being migrated to m2 already, by another command \(preparing\)/,
    });
    await first;
  });

  test('is refused, and taken back, where a device would be missing', async () => {
    destination.offers = ['data'];
    await assert.rejects(begin(), { code: 'device', message: /host m2 cannot take VM web: web\/log would not be there/ });
    assert.deepEqual(destination.diary, ['prepare web from m1', 'unprepare web']);
  });

  test('whose answer is lost takes back what it may have made', async () => {
    instead['vm.prepare'] = () => {
      throw new NetbusError('timeout', 'm2 did not answer');
    };
    let undone = 0;
    instead['vm.unprepare'] = () => ({ undone: ++undone });
    await assert.rejects(begin(), { code: 'timeout' });
    assert.equal(undone, 1);
  });
});

describe('the command that migrates', () => {
  test('says where it is, and hears that it is to cancel', async () => {
    assert.throws(() => desk.cancel('web'), { code: 'not_found', message: /--cancel --qmp SOCKET/ });
    await begin();
    assert.deepEqual(desk.progress('web', 'copying').cancel, false);
    assert.deepEqual(desk.cancel('web').phase, 'copying');
    assert.deepEqual(desk.progress('web', 'copying'), {
      ...{ vm: 'web', to: 'm2', phase: 'copying' },
      ...{ since: '2026-01-01T00:00:00.000Z', cancel: true },
    });
    await desk.end('web', { to: 'm2', undo: false });
    assert.throws(() => desk.progress('web'), { code: 'not_found' });
    assert.equal(destination.all.length, 2);
  });

  test('is forgotten where it was killed', async () => {
    await begin();
    clock.advance(COMMAND_SILENT_MS_MAX - 1);
    await assert.rejects(begin(), { code: 'in_use' });
    clock.advance(1);
    assert.throws(() => desk.cancel('web'), { code: 'not_found' });
    // What it had made ready is still this host's to take back.
    assert.equal((await begin()).prepared, false);
    await desk.end('web', { to: 'm2', undo: true });
    assert.equal(destination.diary.at(-1), 'unprepare web');
  });
});

describe('the switch-over', () => {
  const earlier = { at: '2030-01-31T12:00:00.000Z' };

  for (const [what, entries, reasons] of [
    [
      'all at rest',
      [entry('data', { lastStart: earlier, lastStop: STOP }), entry('log', { lastStart: earlier, lastStop: STOP })],
      0,
    ],
    ['one was never used', [entry('data', { lastStart: earlier, lastStop: STOP }), entry('log', { state: 'idle' })], 0],
    ['stopped in the millisecond in which it began', [entry('data', { lastStart: { at: STOP.at }, lastStop: STOP })], 0],
    ['one is running', [entry('data', { lastStart: earlier }), entry('log', { lastStart: earlier, lastStop: STOP })], 1],
    ['a stop of before', [entry('data', { lastStart: START, lastStop: STOP })], 1],
    ['a VMM that is not connected', [entry('data', { connected: false })], 1],
  ] as const) {
    test(what, () => {
      here = [...entries];
      const { stopped, reasons: found } = desk.switchover('web');
      assert.equal(stopped, reasons === 0);
      assert.equal(found.length, reasons);
      if (reasons > 0) assert.match(found[0]!, /^web\/data was not brought to rest by its VMM/);
    });
  }

  test('of a VM without devices', () => {
    here = [];
    assert.throws(() => desk.switchover('web'), { code: 'not_found' });
  });
});

describe('the report', () => {
  test('has how the devices left and how they arrived', async () => {
    here = [entry('data', { lastStop: STOP })];
    destination.offers = ['data'];
    await begin();
    assert.deepEqual(await desk.report('web', 'm2'), {
      stop: [{ name: 'data', device: 'm3/data', ...STOP }],
      start: [{ name: 'data', state: 'standby', reason: undefined }],
    });
    destination.all = [entry('data', { lastStart: START })];
    assert.deepEqual((await desk.report('web', 'm2')).start, [{ name: 'data', state: 'active', reason: undefined, ...START }]);
  });

  test('says why the destination does not tell', async () => {
    assert.deepEqual(await desk.report('web', 'm2'), {
      stop: [
        { name: 'data', device: 'm3/data' },
        { name: 'log', device: 'm3/log' },
      ],
      start: [],
      reason: 'host m1 has not had VM web prepared here',
    });
  });
});

describe('the calls of other hosts', () => {
  test('reach only what the caller had prepared', async () => {
    const handlers = createMigrationHandlers(destination, async () => ({ job: 'j1' }));
    const call = (method: string, peer: string, params: object) =>
      handlers[method](peer, params as Record<string, unknown>, undefined);
    await call('vm.prepare', 'm1', { vm: 'web' });
    for (const method of ['vm.unprepare', 'vm.report']) {
      await assert.rejects(call(method, 'm3', { vm: 'web' }), { code: 'denied' });
      await assert.rejects(call(method, 'm1', { vm: 'db' }), { code: 'denied' });
      await assert.rejects(call(method, 'm1', { vm: '../web' }), { code: 'usage', message: /^vm: / });
    }
    await assert.rejects(call('vm.prepare', 'm1', { vm: 'web', check: 1 }), { code: 'usage' });
    const job = { vm: 'web', name: 'data', host: 'm1', export: 'new' };
    assert.deepEqual(await call('job.start', 'm1', job), { job: 'j1' });
    await assert.rejects(call('job.start', 'm3', job), { code: 'denied' });
    assert.deepEqual(await call('job.start', 'm3', { ...job, check: { capacityBytes: 512 } }), { job: 'j1' });
    await assert.rejects(call('job.start', 'm1', { ...job, export: '../x' }), { code: 'usage', message: /^export: / });
    for (let i = 0; i < PREPARATIONS_MAX; i++) await call('vm.prepare', 'm3', { vm: `v${i}` });
    await assert.rejects(call('vm.report', 'm1', { vm: 'web' }), { code: 'denied' });
  });

  test('know who had it prepared also where the daemon was started again', async () => {
    const handlers = createMigrationHandlers(destination, async () => ({}));
    destination.by = 'm1';
    destination.all = [entry('data', { state: 'standby' })];
    await assert.rejects(handlers['vm.unprepare']('m3', { vm: 'web' }, undefined), { code: 'denied' });
    await handlers['vm.unprepare']('m1', { vm: 'web' }, undefined);
    assert.deepEqual(destination.diary, ['unprepare web']);
  });
});
