/** Plugging and its undoing, before a QEMU that refuses, fails and answers when the test wants. Real ones are in test/interop and test/guest. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { ManualClock } from '../lib/clock.ts';
import { plug, unplug } from './hot-plug.ts';
import { QmpConnection } from './qmp-connection.ts';

const DISK = { id: 'nb-web-data', socket: '/run/netbus/web/data.sock', queues: 1 };

interface Command {
  execute: string;
  arguments: Record<string, unknown>;
  id: number;
}

/** What a command does: an answer, a refusal (a string), or nothing yet (undefined). */
type Script = Record<string, (command: Command) => object | string | undefined>;

/** A QEMU with one chardev and one device at most, and what the test wants to be different. */
class FakeQemu {
  /** Commands that change something, in order. */
  readonly changes: string[] = [];
  readonly present = new Set<string>();
  script: Script = {};
  version = { major: 7, minor: 2, micro: 0 };
  connected = true;
  socket: Socket | undefined;

  serve(socket: Socket): void {
    this.socket = socket;
    socket.on('error', () => {});
    this.#send({ QMP: { version: { qemu: this.version, package: '' }, capabilities: [] } });
    let text = '';
    socket.on('data', (chunk) => {
      const lines = `${text}${chunk}`.split('\n');
      text = lines.pop()!;
      for (const line of lines) this.#run(JSON.parse(line) as Command);
    });
  }

  event(name: string, data: object): void {
    this.#send({ event: name, data, timestamp: { seconds: 1, microseconds: 0 } });
  }

  #run(command: Command): void {
    const { execute, id } = command;
    if (/^(chardev|device)/.test(execute)) this.changes.push(execute);
    const answer = this.script[execute] === undefined ? this.#default(command) : this.script[execute](command);
    if (typeof answer === 'string') this.#send({ error: { class: 'GenericError', desc: answer }, id });
    else if (answer !== undefined) this.#send({ return: answer, id });
  }

  #default({ execute, arguments: parameters }: Command): unknown {
    switch (execute) {
      case 'chardev-add':
        this.present.add('/chardevs/nb-web-data');
        return {};
      case 'chardev-remove':
        return this.present.delete('/chardevs/nb-web-data') ? {} : 'not found';
      case 'device_add':
        this.present.add('/machine/peripheral/nb-web-data');
        return {};
      case 'device_del':
        this.present.delete('/machine/peripheral/nb-web-data');
        return {};
      case 'qom-list':
        return this.present.has(String(parameters.path)) ? [] : 'not found';
      case 'qom-get':
        return this.connected;
      case 'query-status':
        return { status: 'running' };
      default:
        return {};
    }
  }

  #send(message: object): void {
    this.socket!.write(`${JSON.stringify(message)}\r\n`);
  }
}

let folder: string;
let server: Server;
let clock: ManualClock;
let qemu: FakeQemu;
let qmp: QmpConnection;

async function start(version = { major: 7, minor: 2, micro: 0 }, time = new ManualClock()): Promise<void> {
  clock = time;
  qemu = new FakeQemu();
  qemu.version = version;
  server = createServer((socket) => qemu.serve(socket));
  const path = join(folder, 'qmp');
  server.listen(path);
  await once(server, 'listening');
  qmp = await QmpConnection.open({ path, clock });
}

/** Lets the time pass that somebody waits for, if it is short: a pause, or the guest's bound. QEMU's answers have all the time that they need. */
class ShortWaitsPass extends ManualClock {
  override after(delayMs: number, callback: () => void): () => void {
    if (delayMs <= 1000) setImmediate(() => this.advance(delayMs));
    return super.after(delayMs, callback);
  }
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nb-plug-'));
});
afterEach(async () => {
  qmp.close();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true });
});

describe('plugging', () => {
  for (const [version, member] of [
    [{ major: 7, minor: 2, micro: 0 }, { reconnect: 1 }],
    [{ major: 9, minor: 1, micro: 3 }, { reconnect: 1 }],
    [{ major: 9, minor: 2, micro: 0 }, { 'reconnect-ms': 1000 }],
    [{ major: 10, minor: 0, micro: 0 }, { 'reconnect-ms': 1000 }],
  ] as const) {
    test(`makes QEMU ${version.major}.${version.minor} reconnect`, async () => {
      await start(version);
      let backend: unknown;
      qemu.script['chardev-add'] = (command) => {
        backend = command.arguments.backend;
        return {};
      };
      await plug(qmp, DISK, { bus: 'port1', clock });
      const data = { addr: { type: 'unix', data: { path: DISK.socket } }, server: false, ...member };
      assert.deepEqual(backend, { type: 'socket', data });
      assert.deepEqual(qemu.changes, ['chardev-add', 'device_add']);
    });
  }

  test('that is refused takes the chardev back', async () => {
    await start();
    qemu.script.device_add = () => 'device_add not allowed while migrating';
    await assert.rejects(plug(qmp, DISK, { bus: 'port1', clock }), {
      code: 'device',
      message: 'QEMU refused device_add: device_add not allowed while migrating',
    });
    assert.deepEqual(qemu.changes, ['chardev-add', 'device_add', 'chardev-remove']);
    assert.equal(qemu.present.size, 0);
  });

  test('never adds a device that QEMU could not connect, because QEMU would wait for ever', async () => {
    await start(undefined, new ShortWaitsPass());
    qemu.connected = false;
    let looks = 0;
    qemu.script['qom-get'] = () => {
      looks++;
      return false as unknown as object;
    };
    await assert.rejects(plug(qmp, DISK, { bus: 'port1', clock }), {
      code: 'unreachable',
      message: /could not connect to \/run\/netbus\/web\/data\.sock within 5 s/,
    });
    assert.ok(looks > 1);
    assert.deepEqual(qemu.changes, ['chardev-add', 'chardev-remove']);
  });

  test('that is interrupted after the device came takes both back', async () => {
    await start();
    const controller = new AbortController();
    qemu.script.device_add = () => {
      qemu.present.add('/machine/peripheral/nb-web-data');
      controller.abort();
      return {};
    };
    await assert.rejects(plug(qmp, DISK, { bus: 'port1', clock, signal: controller.signal }), {
      code: 'ended',
      message: 'interrupted',
    });
    assert.deepEqual(qemu.changes, ['chardev-add', 'device_add', 'device_del', 'chardev-remove']);
    assert.equal(qemu.present.size, 0);
  });

  test('says what could not be taken back', async () => {
    await start();
    qemu.script.device_add = () => 'no';
    qemu.script['chardev-remove'] = () => 'busy';
    await assert.rejects(plug(qmp, DISK, { bus: 'port1', clock }), {
      code: 'device',
      message: /QEMU refused device_add: no; and it could not be taken back at .*: QEMU refused chardev-remove: busy/,
    });
  });

  test('into a QEMU that ends has nothing to take back', async () => {
    await start();
    qemu.script.device_add = () => {
      qemu.socket!.destroy();
      return undefined;
    };
    await assert.rejects(plug(qmp, DISK, { bus: 'port1', clock }), { code: 'ended', message: /it has ended$/ });
  });
});

describe('unplugging', () => {
  const PLUGGED = { id: DISK.id, chardev: DISK.id };

  /** A QEMU with the disk; `afterwards` happens when the guest was asked, and the device is still there. */
  async function startPlugged(afterwards: () => void, time = new ManualClock()): Promise<void> {
    await start(undefined, time);
    await plug(qmp, DISK, { bus: 'port1', clock });
    qemu.changes.length = 0;
    let asked = false;
    qemu.script.device_del = () => ({});
    qemu.script['qom-list'] = ({ arguments: parameters }) => {
      if (!asked && parameters.path === '/machine/peripheral/nb-web-data') {
        asked = true;
        setImmediate(afterwards);
      }
      return qemu.present.has(String(parameters.path)) ? [] : 'not found';
    };
  }

  test('waits for the event of its own device, then removes the chardev', async () => {
    await startPlugged(() => {
      qemu.event('DEVICE_DELETED', { device: 'other', path: '/machine/peripheral/other' });
      qemu.event('DEVICE_DELETED', { path: '/machine/peripheral/nb-web-data/virtio-backend' });
      assert.deepEqual(qemu.changes, ['device_del']);
      qemu.event('DEVICE_DELETED', { device: DISK.id, path: '/machine/peripheral/nb-web-data' });
    });
    await unplug(qmp, PLUGGED, { timeoutMs: 1000 });
    assert.deepEqual(qemu.changes, ['device_del', 'chardev-remove']);
  });

  test('a guest that refuses keeps it', async () => {
    await startPlugged(() =>
      qemu.event('DEVICE_UNPLUG_GUEST_ERROR', { device: DISK.id, path: '/machine/peripheral/nb-web-data' }),
    );
    await assert.rejects(unplug(qmp, PLUGGED, { timeoutMs: 1000 }), {
      code: 'device',
      message: /refuses to let go of nb-web-data: unmount/,
    });
    assert.deepEqual(qemu.changes, ['device_del']);
  });

  test('a guest that says nothing keeps it at the bound', async () => {
    await startPlugged(() => {}, new ShortWaitsPass());
    await assert.rejects(unplug(qmp, PLUGGED, { timeoutMs: 1000 }), {
      code: 'timeout',
      message: /within 1 s: its operating system must run/,
    });
    assert.deepEqual(qemu.changes, ['device_del']);
  });

  test('a guest that was asked before is waited for', async () => {
    await startPlugged(() => qemu.event('DEVICE_DELETED', { device: DISK.id, path: '' }));
    qemu.script.device_del = () => 'Device nb-web-data is already in the process of unplug';
    await unplug(qmp, PLUGGED, { timeoutMs: 1000 });
  });

  test('one that stands beside the ports says how it leaves', async () => {
    await startPlugged(() => {});
    qemu.script.device_del = () => "Bus 'pcie.0' does not support hotplugging";
    await assert.rejects(unplug(qmp, PLUGGED, { timeoutMs: 1000 }), {
      code: 'device',
      message: /while the VM runs \(.*pcie\.0.*stop the VM, then detach without --qmp.*pcie-root-port/,
    });
    assert.deepEqual(qemu.changes, ['device_del']);
  });

  test('what is gone already is as good as removed', async () => {
    await start();
    await unplug(qmp, PLUGGED, { timeoutMs: 1000 });
    assert.deepEqual(qemu.changes, ['device_del', 'chardev-remove']);
  });
});
