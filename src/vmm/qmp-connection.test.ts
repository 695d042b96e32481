/** The connection before sockets that answer what the test wants, on a clock that the test owns. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { COMMAND_MS_DEFAULT, GREETING_MS_MAX, QmpConnection, refusalOf } from './qmp-connection.ts';
import { EVENTS_MAX } from './qmp-events.ts';

const GREETING = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n';
const eventLine = (name: string) => `{"timestamp": {"seconds": 1, "microseconds": 0}, "event": "${name}"}\r\n`;

let folder: string;
let path: string;
let server: Server;
let clock: ManualClock;
let peers: Socket[];

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nb-qmp-'));
});
after(() => rmSync(folder, { recursive: true }));

/** Serves each client with `serve`, which gets the commands (undefined at the beginning) and writes what it wants. */
async function listen(serve: (command: { execute: string; id: number } | undefined, socket: Socket) => void): Promise<void> {
  server = createServer((socket) => {
    peers.push(socket);
    let text = '';
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      const lines = `${text}${chunk}`.split('\n');
      text = lines.pop()!;
      for (const line of lines) serve(JSON.parse(line), socket);
    });
    serve(undefined, socket);
  });
  server.listen(path);
  await once(server, 'listening');
}

/** QEMU as far as the greeting; every other command goes to `serve`. */
function listenAsQemu(serve: (command: { execute: string; id: number }, socket: Socket) => void): Promise<void> {
  return listen((command, socket) => {
    if (command === undefined) socket.write(GREETING);
    else if (command.execute === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${command.id}}\r\n`);
    else serve(command, socket);
  });
}

let count = 0;
beforeEach(() => {
  path = join(folder, `qmp-${count++}`);
  clock = new ManualClock();
  peers = [];
  server = createServer();
});
afterEach(async () => {
  for (const peer of peers) peer.destroy();
  if (server.listening) await new Promise((resolve) => server.close(resolve));
});

const open = (signal?: AbortSignal) => QmpConnection.open({ path, clock, ...(signal && { signal }) });

describe('opening', () => {
  test('waits for the greeting', async () => {
    await listenAsQemu(() => {});
    const qmp = await open();
    assert.deepEqual(qmp.greeting.version, { major: 7, minor: 2, micro: 22 });
    qmp.close();
    qmp.close();
  });

  test('says what a socket is that does not greet, after the bound', async () => {
    await listen(() => {});
    const opened = open();
    await once(server, 'connection');
    clock.advance(GREETING_MS_MAX);
    await assert.rejects(opened, {
      code: 'timeout',
      message: /did not greet within 5 s: another program .* second one with -qmp/,
    });
  });

  test('says what speaks another protocol', async () => {
    await listen((_, socket) => socket.write("QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) "));
    await assert.rejects(open(), { code: 'protocol', message: /is no QMP socket: a line is not JSON: "QEMU .*mode=control/ });
  });

  test('says what is no socket, nobody listens at, or may not be used', async () => {
    await assert.rejects(open(), { code: 'not_found', message: /there is no QMP socket .*-qmp unix:PATH/ });
    writeFileSync(path, '');
    await assert.rejects(open(), { code: 'unreachable', message: /nobody listens at/ });
    await assert.rejects(QmpConnection.open({ path: `/${'x'.repeat(107)}`, clock }), { code: 'usage', message: /107 bytes/ });
  });

  test('a socket that the user may not use', async () => {
    await listen(() => {});
    chmodSync(path, 0);
    // Root may use every socket.
    const root = process.geteuid?.() === 0;
    if (root) process.seteuid?.(65534);
    try {
      await assert.rejects(open(), { code: 'denied', message: /may not use the QMP socket/ });
    } finally {
      if (root) process.seteuid?.(0);
    }
  });

  test('is given up by the signal', async () => {
    await listen(() => {});
    const controller = new AbortController();
    const opened = open(controller.signal);
    await once(server, 'connection');
    controller.abort();
    await assert.rejects(opened, { code: 'ended' });
    await assert.rejects(open(AbortSignal.abort()), { code: 'ended' });
  });

  test('ends with a QEMU that ends', async () => {
    await listen((_, socket) => socket.end());
    await assert.rejects(open(), { code: 'ended', message: /closed its QMP socket/ });
  });
});

describe('commands', () => {
  test('get their own answers, in whatever order these come', async () => {
    const ids: number[] = [];
    await listenAsQemu(({ id }, socket) => {
      ids.push(id);
      if (ids.length < 3) return;
      socket.write(`{"return": "third", "id": ${ids[2]}}\r\n${eventLine('STOP')}`);
      socket.write(
        `{"error": {"class": "DeviceNotFound", "desc": "no\\nsuch"}, "id": ${ids[0]}}\r\n{"return": "second", "id": ${ids[1]}}\r\n`,
      );
    });
    const qmp = await open();
    const [first, second, third] = await Promise.allSettled(['a', 'b', 'c'].map((command) => qmp.execute(command)));
    assert.equal(first!.status, 'rejected');
    const { reason } = first as PromiseRejectedResult;
    assert.deepEqual([reason.code, reason.message], ['device', 'QEMU refused a: no such']);
    assert.equal(refusalOf(reason)?.errorClass, 'DeviceNotFound');
    assert.deepEqual(
      [second, third],
      ['second', 'third'].map((value) => ({ status: 'fulfilled', value })),
    );
    qmp.close();
  });

  test('are bounded in time, and an answer that comes later does no harm', async () => {
    const late: { id: number; socket: Socket }[] = [];
    await listenAsQemu(({ execute, id }, socket) => {
      if (execute === 'slow') late.push({ id, socket });
      else socket.write(`{"return": {}, "id": ${late[0]!.id}}\r\n{"return": 1, "id": ${id}}\r\n`);
    });
    const qmp = await open();
    const slow = qmp.execute('slow');
    clock.advance(COMMAND_MS_DEFAULT);
    await assert.rejects(slow, { code: 'timeout', message: /answer to slow took longer than 30 s/ });
    assert.equal(await qmp.execute('query-status'), 1);
    const controller = new AbortController();
    const other = qmp.execute('slow', {}, { signal: controller.signal });
    controller.abort();
    await assert.rejects(other, { code: 'ended' });
    qmp.close();
  });

  test('end with the connection', async () => {
    await listenAsQemu((_, socket) => socket.destroy());
    const qmp = await open();
    const events = qmp.events();
    await assert.rejects(qmp.execute('quit'), { code: 'ended' });
    await assert.rejects(qmp.execute('query-status'), { code: 'ended' });
    await assert.rejects(events.next({ timeoutMs: 1 }), { code: 'ended' });
    await assert.rejects(qmp.events().next({ timeoutMs: 1 }), { code: 'ended' });
  });

  test('end where QEMU breaks the protocol', async () => {
    await listenAsQemu((_, socket) => socket.write('{"return": {}, "id": 99}\r\n'));
    const qmp = await open();
    await assert.rejects(qmp.execute('query-status'), { code: 'protocol', message: /broke the QMP protocol: .*not sent/ });
  });
});

describe('events', () => {
  /** A connection whose QEMU says an event for each command, named like it. */
  async function openEchoing(): Promise<QmpConnection> {
    await listenAsQemu(({ execute, id }, socket) => socket.write(`${eventLine(execute)}{"return": {}, "id": ${id}}\r\n`));
    return open();
  }

  test('come to every stream, in order, from when it was asked for', async () => {
    const qmp = await openEchoing();
    const all = qmp.events();
    await qmp.execute('ONE');
    const later = qmp.events();
    await qmp.execute('TWO');
    const names = [];
    for await (const { name } of all) {
      names.push(name);
      if (names.length === 2) all.close();
    }
    assert.deepEqual(names, ['ONE', 'TWO']);
    assert.equal((await later.find(() => true, { timeoutMs: 1 })).name, 'TWO');
    qmp.close();
  });

  test('are waited for within bounds', async () => {
    const qmp = await openEchoing();
    const events = qmp.events();
    const found = events.find(({ name }) => name === 'WANTED', { timeoutMs: 1000 });
    await qmp.execute('OTHER');
    clock.advance(999);
    await qmp.execute('WANTED');
    assert.equal((await found).name, 'WANTED');
    const none = events.find(() => true, { timeoutMs: 1000 });
    clock.advance(1000);
    await assert.rejects(none, { code: 'timeout' });
    const controller = new AbortController();
    const given = events.next({ timeoutMs: 1000, signal: controller.signal });
    controller.abort();
    await assert.rejects(given, { code: 'ended' });
    // Nobody who gave up takes an event away.
    await qmp.execute('NEXT');
    assert.equal((await events.next({ timeoutMs: 1000 })).name, 'NEXT');
    qmp.close();
  });

  test('that nobody reads end the stream at the bound, and nothing else', async () => {
    await listenAsQemu(({ id }, socket) =>
      socket.write(`${eventLine('STOP').repeat(EVENTS_MAX + 1)}{"return": {}, "id": ${id}}\r\n`),
    );
    const qmp = await open();
    const events = qmp.events();
    await qmp.execute('flood');
    let read = 0;
    await assert.rejects(
      async () => {
        for await (const _ of events) read++;
      },
      (error: NetbusError) => error.code === 'limit',
    );
    assert.equal(read, EVENTS_MAX);
    await qmp.execute('flood');
    qmp.close();
  });
});
