import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { CAPACITY_BYTES, TestHost } from '../../test/support/daemon/exports.ts';
import { NOT_POSSIBLE_HERE } from '../../test/support/skip.ts';
import { waitFor } from '../../test/support/wait.ts';
import { NetbusError } from '../device/errors.ts';
import { MessageTable } from '../device/message-table.ts';
import { DiskStatistics } from '../frontends/vhost-user/disk-statistics.ts';
import { silentLog } from '../lib/log.ts';
import type { Frontend, FrontendOptions } from './attachment.ts';
import { Attachments } from './attachments.ts';
import { type DeviceHost, LocalDeviceHost } from './device-host.ts';
import { noEvents } from './events.ts';
import { virtualDeviceRecordSchema } from './records.ts';
import { RecordStore } from './store.ts';

const asRoot = process.geteuid?.() === 0 ? {} : { skip: `${NOT_POSSIBLE_HERE}only root may give a file to any group` };

/** Stands for a VMM's socket: a file at its place. */
class FakeFrontend implements Frontend {
  chosen: boolean | undefined;
  readonly statistics = new DiskStatistics();
  readonly left = 'nothing';
  connected = false;
  changes = 0;
  closed = false;
  readonly options: FrontendOptions;

  constructor(options: FrontendOptions) {
    this.options = options;
    writeFileSync(options.path, '');
    chmodSync(options.path, options.mode);
  }

  status() {
    return { connected: this.connected, inFlight: 0, ...(this.connected && { vmm: { pid: process.pid } }) };
  }

  chooseWriteCache(enabled: boolean): void {
    this.chosen = enabled;
  }

  profileChanged(): void {
    this.changes++;
  }

  async close(): Promise<void> {
    this.closed = true;
    rmSync(this.options.path);
  }
}

describe('attachments', () => {
  let m1: TestHost;
  let runDir: string;
  let frontends: FakeFrontend[];
  let attachments: Attachments;
  /** Set = the device's host does not answer. */
  let away: NetbusError | undefined;
  /** What the device's host was asked. */
  let asked: string[];
  /** That it was asked for. */
  let sessions: number;
  /** How often m2 was started anew: then no process of before is there. */
  let boots: number;

  const recordPath = () => join(m1.folder, 'virtual-devices', 'web~data.json');

  /** The VM's host m2, from what is stored. */
  async function start(socketGroup?: number): Promise<void> {
    const records = new RecordStore(join(m1.folder, 'virtual-devices'), virtualDeviceRecordSchema);
    const stored = (await records.load(0)).records;
    const reached = new LocalDeviceHost(m1.exports, 'm2', (device) => device);
    const unreached = new Proxy(reached, {
      get: (target, name) => {
        const method = Reflect.get(target, name) as (...values: unknown[]) => unknown;
        if (name === 'openSession') {
          return (attachment: string) => {
            const open = target.openSession(attachment);
            return (onEnded: Parameters<typeof open>[0]) => {
              sessions++;
              return open(onEnded);
            };
          };
        }
        return (...values: unknown[]) => {
          const { check } = Object(values[0]) as { check?: boolean };
          asked.push(
            `${String(name)}${check ? ', to look' : ''}, ${existsSync(recordPath()) ? 'with' : 'without'} a record here`,
          );
          return away === undefined ? method.apply(target, values) : Promise.reject(away);
        };
      },
    }) as DeviceHost;
    attachments = new Attachments({
      host: 'm2',
      runDir,
      socketGroup,
      records,
      hosts: () => ['m1', 'm2'],
      deviceHost: (host) => {
        assert.equal(host, 'm1');
        return unreached;
      },
      createFrontend: (options) => {
        const frontend = new FakeFrontend(options);
        frontends.push(frontend);
        return frontend;
      },
      clock: m1.clock,
      log: silentLog,
      events: noEvents,
      ...(boots > 0 && { identifyProcess: (pid: number) => `${pid}-${boots}` }),
    });
    for (const record of stored.values()) await attachments.restore(record);
  }

  beforeEach(async () => {
    m1 = await new TestHost().start();
    await m1.add('data');
    runDir = join(m1.folder, 'run');
    frontends = [];
    away = undefined;
    asked = [];
    boots = 0;
    sessions = 0;
    await start();
  });
  afterEach(async () => {
    await attachments.close();
    await m1.stop();
  });

  /** What a failed attach must leave: nothing. */
  async function assertNothingLeft(): Promise<void> {
    assert.deepEqual(attachments.entries(), []);
    assert.deepEqual((await m1.exports.entries())[0].attachments, []);
    assert.deepEqual(readdirSync(join(m1.folder, 'virtual-devices')), []);
    assert.equal(existsSync(join(runDir, 'web', 'data.sock')), false);
  }

  test('attaching makes the socket and says how to use it', async () => {
    const entry = await attachments.attach({ device: 'm1/data', vm: 'web' });
    const socket = join(runDir, 'web', 'data.sock');
    assert.deepEqual(entry.qemuArguments, [
      '-chardev',
      `socket,id=nb-web-data,path=${socket},reconnect=1`,
      '-device',
      'vhost-user-blk-pci,id=nb-web-data,chardev=nb-web-data,num-queues=1',
    ]);
    assert.deepEqual([entry.socket, entry.state, entry.local], [socket, 'idle', false]);
    assert.equal(statSync(socket).mode & 0o777, 0o660);
    assert.equal(statSync(join(runDir, 'web')).mode & 0o777, 0o750);
  });

  test("folder and socket belong to the devices' group", asRoot, async () => {
    await start(107);
    const { socket } = await attachments.attach({ device: 'm1/data', vm: 'web' });
    for (const [path, mode] of [
      [socket, 0o660],
      [join(runDir, 'web'), 0o750],
    ] as const) {
      const facts = statSync(path);
      assert.deepEqual([facts.uid, facts.gid, facts.mode & 0o777], [0, 107, mode]);
    }
    await attachments.close();
    await start();
  });

  test('who names the device instead of the attachment is told what it is attached as', async () => {
    await attachments.attach({ device: 'm1/data', vm: 'web', name: 'disk' });
    await assert.rejects(attachments.detach('m1', 'data', false), {
      code: 'not_found',
      message: /m1\/data is attached as web\/disk$/,
    });
    await assert.rejects(attachments.detach('m1', 'none', false), {
      code: 'not_found',
      message: /"netbus status" lists them$/,
    });
  });

  test('what is wrong is told before anything is made', async () => {
    const attach = (device: string, vm = 'web', name?: string) => attachments.attach({ device, vm, ...(name && { name }) });
    await assert.rejects(attach('data'), { code: 'usage', message: /it is HOST\/EXPORT/ });
    await assert.rejects(attach('m9/data'), { code: 'not_found', message: /no host m9: the members are m1, m2/ });
    await assert.rejects(attach('m1/none'), { code: 'not_found', message: /no export none/ });
    const long = 'x'.repeat(63);
    await assert.rejects(attach('m1/data', long, long), { code: 'usage', message: /at most 107: make .* \d+ bytes shorter/ });
    await assertNothingLeft();
    await attach('m1/data');
    await assert.rejects(attach('m1/data'), { code: 'in_use', message: /VM web has a device data already .*--as/ });
    await assert.rejects(attach('m1/data', 'db'), { code: 'in_use', message: /m2:web\/data/ });
  });

  test('of two commands for one name, one is refused', async () => {
    const results = await Promise.allSettled([
      attachments.attach({ device: 'm1/data', vm: 'web' }),
      attachments.attach({ device: 'm1/data', vm: 'web' }),
    ]);
    assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  });

  test('a socket that cannot be made undoes the rest', async () => {
    mkdirSync(runDir);
    writeFileSync(join(runDir, 'web'), 'a file where the folder should be');
    await assert.rejects(attachments.attach({ device: 'm1/data', vm: 'web' }), { code: 'device' });
    await assertNothingLeft();
  });

  test('the hold time is in the records of both sides, and acted on after a restart, too', async () => {
    const entry = await attachments.attach({ device: 'm1/data', vm: 'web', holdMs: 60_000 });
    assert.equal(entry.holdMs, 60_000);
    await attachments.close();
    await start();
    assert.equal(attachments.entries()[0].holdMs, 60_000);
    assert.equal((await m1.exports.entries())[0].attachments[0].holdMs, 60_000);
    away = new NetbusError('unreachable', 'm1 is away');
    await attachments.detach('web', 'data', true);
    away = undefined;
    await attachments.attach({ device: 'm1/data', vm: 'web' });
    assert.equal((await m1.exports.entries())[0].attachments[0].holdMs, undefined);
  });

  test('a restart brings the socket back, with the device’s host away', async () => {
    const before = await attachments.attach({ device: 'm1/data', vm: 'web' });
    await attachments.close();
    assert.equal(existsSync(before.socket), false);
    away = new NetbusError('unreachable', 'host m1 does not answer');
    await start();
    assert.ok(existsSync(before.socket));
    assert.equal(attachments.entries()[0].capacityBytes, CAPACITY_BYTES);
  });

  test('a record whose socket cannot be made stays in the list, with the reason, and can be detached', async () => {
    await attachments.attach({ device: 'm1/data', vm: 'web' });
    await attachments.close();
    writeFileSync(join(runDir, 'web'), '');
    await start();
    const [entry] = attachments.entries();
    assert.equal(entry.state, 'failed');
    assert.ok(entry.reason);
    await attachments.detach('web', 'data', false);
    assert.deepEqual(attachments.entries(), []);
  });

  test('detaching is refused while a VMM is connected, unless it is forced', async () => {
    await attachments.attach({ device: 'm1/data', vm: 'web' });
    frontends[0].connected = true;
    await assert.rejects(attachments.detach('web', 'data', false), { code: 'in_use', message: /--force/ });
    assert.equal(frontends[0].closed, false);
    assert.deepEqual(await attachments.detach('web', 'data', true), []);
    assert.equal(frontends[0].closed, true);
    await assertNothingLeft();
    await assert.rejects(attachments.detach('web', 'data', false), { code: 'not_found' });
  });

  test('detaching with the device’s host away is refused, unless it is forced', async () => {
    await attachments.attach({ device: 'm1/data', vm: 'web' });
    away = new NetbusError('unreachable', 'host m1 does not answer');
    await assert.rejects(attachments.detach('web', 'data', false), { code: 'unreachable', message: /--force/ });
    assert.equal(attachments.entries().length, 1);
    const [warning] = await attachments.detach('web', 'data', true);
    assert.match(warning, /host m1 was not told/);
    away = undefined;
    // The way back that the warning names.
    await attachments.attach({ device: 'm1/data', vm: 'web' });
    await attachments.detach('web', 'data', false);
    await assertNothingLeft();
  });

  test('growing reaches the record and the guest', async () => {
    await attachments.attach({ device: 'm1/data', vm: 'web' });
    assert.deepEqual(await attachments.grow('web', 'data'), { grown: false, capacityBytes: CAPACITY_BYTES });
    m1.disks.capacityBytes = 3 * CAPACITY_BYTES;
    assert.deepEqual(await attachments.grow('web', 'data'), { grown: true, capacityBytes: 3 * CAPACITY_BYTES });
    assert.equal(frontends[0].changes, 1);
    assert.equal(frontends[0].options.source.profile.capacityBytes, 3 * CAPACITY_BYTES);
    await attachments.close();
    await start();
    assert.equal(attachments.entries()[0].capacityBytes, 3 * CAPACITY_BYTES);
  });

  test('the driver’s write-cache choice is kept on both sides', async () => {
    await attachments.attach({ device: 'm1/data', vm: 'web' });
    frontends[0].options.onWriteCache(false);
    await attachments.close();
    await start();
    assert.equal(frontends[1].options.writeCache, false);
    // The device's host is told without anybody waiting for it.
    const { attachment } = await m1.exports.attach('m2', { export: 'data', vm: 'web', name: 'data' });
    const choice = () => (m1.exports.describeAttachment('m2', attachment) as { writeCache: boolean | null }).writeCache;
    await waitFor('the choice', () => choice() !== null);
    assert.equal(choice(), false);
  });

  test('a guest that comes is known by its VMM from the first word on', async () => {
    const { attachment } = await m1.exports.attach('m1', { export: 'data', vm: 'web', name: 'data' });
    await attachments.expect('web', 'm1', { attachment, name: 'data', host: 'm1', export: 'data' }, { check: false });
    const [frontend] = frontends;
    frontend.connected = true;
    frontend.options.onConnection(true);
    await attachments.close();
    const records = new RecordStore(join(m1.folder, 'virtual-devices'), virtualDeviceRecordSchema);
    const [record] = (await records.load(0)).records.values();
    // One that is not known is another one for the next daemon, and what it wrote is in no log of its own then.
    assert.match(record.guest?.process ?? 'none', new RegExp(`^${process.pid}-`));
    await start();
  });

  test('what stands ready has a record here whenever the device’s host may know of it', async () => {
    const { attachment } = await m1.exports.attach('m1', { export: 'data', vm: 'web', name: 'data' });
    const device = { attachment, name: 'data', host: 'm1', export: 'data' };
    asked = [];
    await attachments.expect('web', 'm1', device, { check: false, preparedBy: 'm1' });
    assert.deepEqual(asked, ['prepare, to look, without a record here', 'prepare, with a record here']);
    const [{ record }] = [...attachments.all];
    assert.equal(record.preparedBy, 'm1');
    asked = [];
    await attachments.unexpect('web', 'data');
    assert.deepEqual(asked, ['unprepare, with a record here']);
    assert.ok(!existsSync(recordPath()));
  });

  test('a host that was started anew gives back the lease that it still has, and voids nothing that it said before', async () => {
    await attachments.attach({ device: 'm1/data', vm: 'web' });
    const [{ record }] = [...attachments.all];
    const stored = () => m1.exports.record(record.attachment)!;
    const left = { queues: [{ fetched: 4, usedIndex: 4, heads: [], lastBatch: [] }] };
    for (const isHeard of [true, false]) {
      const frontend = frontends.at(-1)!;
      frontend.connected = true;
      frontend.options.onConnection(true);
      const device = frontend.options.source.open();
      device.start({ requests: new MessageTable(1), reply: () => {}, push: () => 0, ready: () => {}, lost: () => {} });
      await waitFor('the device', () => stored().lease.holder === 'm2');
      await attachments.close();
      const last = m1.exports.openSession('m2', record.attachment, () => {}).session;
      if (isHeard) await last.quiesced(left);
      last.close();
      away = new NetbusError('unreachable', 'away');
      boots++;
      sessions = 0;
      await start();
      away = undefined;
      asked = [];
      m1.clock.advance(1_000);
      await waitFor('the device’s host is asked', () => asked.some((what) => what.startsWith('whereabouts')));
      await waitFor('the lease is free', () => stored().lease.holder === null);
      for (let i = 0; i < 10; i++) await turn();
      assert.equal(sessions, isHeard ? 0 : 1);
      assert.deepEqual(stored().handOver?.queues, isHeard ? left.queues : []);
    }
  });

  test('a guest that has come may come back while its VMM runs', async () => {
    const { attachment } = await m1.exports.attach('m1', { export: 'data', vm: 'web', name: 'data' });
    await attachments.expect('web', 'm1', { attachment, name: 'data', host: 'm1', export: 'data' }, { check: false });
    const mayComeBack = async () => [...attachments.all][0].mayComeBack();
    assert.equal(await mayComeBack(), false);
    const [frontend] = frontends;
    frontend.connected = true;
    frontend.options.onConnection(true);
    await attachments.close();
    await start();
    assert.equal(await mayComeBack(), false, 'the VM is at the other host');
    away = new NetbusError('unreachable', 'away');
    assert.equal(await mayComeBack(), true, 'nobody says where the VM is');
    away = undefined;
    const device = frontends[1].options.source.open();
    const gone = frontends[1].options.source.passage!.arrival();
    await gone;
    assert.equal(await mayComeBack(), true);
    await device.close();
  });
});
