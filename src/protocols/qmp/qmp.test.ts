import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { NetbusError } from '../../device/errors.ts';
import { QmpClient, type QmpHappening } from './client.ts';
import { COMMANDS_MAX } from './limits.ts';
import { LineSplitter } from './line-splitter.ts';
import { decodeMessage, encodeCommand } from './message.ts';

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}\r\n';
const READY = `${GREETING}{"return": {}, "id": 1}\r\n`;
const EVENT = '{"timestamp": {"seconds": 1, "microseconds": 500000}, "event": "STOP"}\r\n';

/** A client that QEMU has greeted. Its next command is number 2. */
function readyClient(): QmpClient {
  const client = new QmpClient();
  assert.deepEqual(
    client.feed(Buffer.from(READY)).map(({ kind }) => kind),
    ['ready'],
  );
  client.take();
  return client;
}

/** Bytes cut at the given places (as parts of the whole, each below 1). */
function pieces(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [0, ...cuts.map((cut) => Math.floor(cut * bytes.length)).sort((a, b) => a - b), bytes.length];
  return places.slice(1).map((end, index) => bytes.subarray(places[index], end));
}

const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), { maxLength: 12 });

describe('the splitter of lines', () => {
  test('finds the same lines however the bytes are cut', () => {
    const line = fc.string({ unit: 'grapheme', maxLength: 40 }).map((text) => text.replace(/[\r\n]/g, ' ').trim());
    fc.assert(
      fc.property(fc.array(line), cuts, (lines, places) => {
        const splitter = new LineSplitter(1024);
        const bytes = Buffer.from(lines.map((text) => `${text}\r\n`).join(''));
        const found = pieces(bytes, places).flatMap((piece) => splitter.feed(piece));
        assert.deepEqual(
          found,
          lines.filter((text) => text !== ''),
        );
        assert.equal(splitter.atBoundary, true);
      }),
    );
  });

  test('keeps no more than the longest line', () => {
    const splitter = new LineSplitter(8);
    assert.deepEqual(splitter.feed(Buffer.from('12345678\n1234')), ['12345678']);
    assert.equal(splitter.atBoundary, false);
    assert.deepEqual(splitter.feed(Buffer.from('5678\n')), ['12345678']);
    assert.throws(() => splitter.feed(Buffer.from('123456789')), { code: 'protocol', message: /longer than 8 bytes/ });
    assert.throws(() => new LineSplitter(8).feed(Buffer.from('123456789\n')), { code: 'protocol' });
  });

  test('refuses what is not UTF-8', () => {
    assert.throws(() => new LineSplitter(8).feed(Buffer.from([0xff, 0x0a])), { code: 'protocol', message: /UTF-8/ });
  });
});

describe('messages', () => {
  test('of every kind', () => {
    assert.deepEqual(decodeMessage(GREETING), {
      kind: 'greeting',
      greeting: { version: { major: 7, minor: 2, micro: 22 }, package: 'Debian', capabilities: ['oob'] },
    });
    assert.deepEqual(decodeMessage(EVENT), { kind: 'event', event: { name: 'STOP', data: {}, timeMs: 1500 } });
    assert.deepEqual(decodeMessage('{"return": [1], "id": 7}'), { kind: 'answer', id: 7, value: [1] });
    assert.deepEqual(decodeMessage('{"error": {"class": "GenericError", "desc": "no"}, "id": 7}'), {
      kind: 'refusal',
      id: 7,
      refusal: { errorClass: 'GenericError', description: 'no' },
    });
    assert.deepEqual(JSON.parse(encodeCommand(3, 'device_del', { id: 'a\n"' })), {
      execute: 'device_del',
      arguments: { id: 'a\n"' },
      id: 3,
    });
    assert.match(encodeCommand(3, 'device_del', { id: 'a\n' }), /^[^\n]+\n$/);
  });

  for (const [line, message] of [
    ["QEMU 7.2.22 monitor - type 'help' for more information", /not JSON: "QEMU 7/],
    ['[]', /not a JSON object/],
    ['null', /not a JSON object/],
    ['{}', /no message of QMP/],
    ['{"QMP": {}}', /QMP\.version is not an object/],
    ['{"QMP": {"version": {"qemu": {"major": -1, "minor": 0, "micro": 0}}}}', /major is not a whole number/],
    ['{"QMP": {"version": {"qemu": {"major": 7, "minor": 0, "micro": 0}}, "capabilities": 1}}', /capabilities is not an array/],
    ['{"event": "STOP"}', /timestamp is not an object/],
    ['{"event": 1, "timestamp": {"seconds": 1, "microseconds": 1}}', /event is not a string/],
    ['{"event": "A", "timestamp": {"seconds": "1", "microseconds": 1}}', /seconds is not a number/],
    ['{"event": "A", "data": [], "timestamp": {"seconds": 1, "microseconds": 1}}', /data is not an object/],
    ['{"error": {"desc": "no"}, "id": 1}', /error\.class is not a string/],
    ['{"error": "no", "id": 1}', /error is not an object/],
    ['['.repeat(1_000_000), /not JSON/],
  ] as const) {
    test(`refuses ${line.slice(0, 60)}`, () => assert.throws(() => decodeMessage(line), { code: 'protocol', message }));
  }
});

describe('the client', () => {
  test('greets back, and is ready with the answer', () => {
    const client = new QmpClient();
    assert.throws(() => client.execute('stop'), { code: 'internal' });
    assert.deepEqual(client.feed(Buffer.from(GREETING)), []);
    assert.deepEqual(JSON.parse(client.take()), { execute: 'qmp_capabilities', arguments: {}, id: 1 });
    assert.deepEqual(client.feed(Buffer.from(EVENT)), [{ kind: 'event', event: { name: 'STOP', data: {}, timeMs: 1500 } }]);
    const [ready] = client.feed(Buffer.from('{"return": {}, "id": 1}\n'));
    assert.equal(ready?.kind, 'ready');
    assert.equal(client.ready, true);
    assert.equal(client.take(), '');
  });

  test('finds the command of each answer, in any order, with events between, however the bytes are cut', () => {
    const commands = fc.integer({ min: 1, max: COMMANDS_MAX });
    fc.assert(
      fc.property(commands, fc.infiniteStream(fc.nat()), cuts, (count, random, places) => {
        const client = readyClient();
        const ids = Array.from({ length: count }, (_, index) => client.execute(`command-${index}`, { index }));
        assert.equal(client.pending, count);
        const sent = client.take().trimEnd().split('\n');
        assert.deepEqual(
          sent.map((line) => JSON.parse(line).id),
          ids,
        );
        const order = ids.map((id) => ({ id, key: random.next().value as number })).sort((a, b) => a.key - b.key);
        const wanted: QmpHappening[] = [];
        let stream = '';
        for (const { id, key } of order) {
          if (key % 3 === 0) {
            stream += EVENT;
            wanted.push({ kind: 'event', event: { name: 'STOP', data: {}, timeMs: 1500 } });
          }
          if (key % 2 === 0) {
            stream += `{"return": {"of": "ü${id}"}, "id": ${id}}\r\n`;
            wanted.push({ kind: 'answer', id, value: { of: `ü${id}` } });
          } else {
            stream += `{"error": {"class": "GenericError", "desc": "no ${id}"}, "id": ${id}}\r\n`;
            wanted.push({ kind: 'refusal', id, refusal: { errorClass: 'GenericError', description: `no ${id}` } });
          }
        }
        assert.deepEqual(
          pieces(Buffer.from(stream), places).flatMap((piece) => client.feed(piece)),
          wanted,
        );
        assert.equal(client.pending, 0);
      }),
    );
  });

  test('is broken by what QEMU never says', () => {
    for (const [stream, message] of [
      [EVENT, /begins with an event/],
      ['{"return": {}, "id": 1}\n', /begins with an answer/],
      [`${GREETING}{"error": {"class": "GenericError", "desc": "no"}, "id": 1}\n`, /refused qmp_capabilities: no/],
      [`${GREETING}{"return": {}, "id": 2}\n`, /was not sent/],
      [`${READY}${GREETING}`, /greeted twice/],
      [`${READY}{"return": {}, "id": 1}\n`, /was not sent/],
      [`${READY}{"return": {}, "id": "1"}\n`, /was not sent/],
      [`${READY}{"return": {}}\n`, /was not sent/],
      [`${READY}{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n`, /was not sent: JSON parse error/],
    ] as const) {
      const client = new QmpClient();
      assert.throws(() => client.feed(Buffer.from(stream)), { code: 'protocol', message });
      assert.deepEqual(client.feed(Buffer.from(EVENT)), [], 'what comes later is ignored');
      assert.equal(client.ready, false);
    }
  });

  test('sends no more commands than the bound', () => {
    const client = readyClient();
    for (let i = 0; i < COMMANDS_MAX; i++) client.execute('query-status');
    assert.throws(() => client.execute('query-status'), { code: 'limit' });
    client.feed(Buffer.from('{"return": {}, "id": 2}\n'));
    client.execute('query-status');
  });

  test('throws nothing but a protocol error, whatever it is fed', () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 64 }),
      fc.json().map((text) => Buffer.from(`${text}\n`)),
      fc
        .constantFrom(GREETING, READY, EVENT, '{"return": {}, "id": 1}\n', '{"QMP": 1}\n', '\r\n')
        .map((text) => Buffer.from(text)),
      fc.tuple(fc.constantFrom('QMP', 'event', 'return', 'error', 'id'), fc.jsonValue()).map(([key, value]) => {
        return Buffer.from(`${JSON.stringify({ [key]: value })}\n`);
      }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (stream) => {
        const client = new QmpClient({ lineBytesMax: 256 });
        try {
          for (const bytes of stream) client.feed(bytes);
        } catch (thrown) {
          assert.ok(thrown instanceof NetbusError && thrown.code === 'protocol', String(thrown));
        }
      }),
      { numRuns: 500 },
    );
  });
});
