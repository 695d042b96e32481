import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplyParser } from './agent.ts';

const replies = fc.array(fc.tuple(fc.nat(), fc.nat(255), fc.string({ unit: 'grapheme' })));

test('replies come out whole, however the stream is cut', () => {
  fc.assert(
    fc.property(replies, fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (sent, cuts) => {
      const stream = Buffer.concat(sent.map(([id, status, output]) => encode(id, status, output)));
      const received: [number, number, string][] = [];
      const parser = new ReplyParser((id, result) => received.push([id, result.status, result.output]));
      for (let at = 0, turn = 0; at < stream.length; turn++) {
        const length = cuts[turn % cuts.length]!;
        parser.feed(stream.subarray(at, at + length));
        at += length;
      }
      assert.deepEqual(received, sent);
    }),
  );
});

test('bytes that are no reply are refused', () => {
  const parser = new ReplyParser(() => assert.fail('no reply was sent'));
  assert.throws(() => parser.feed(Buffer.from('sh: syntax error\n')), /sent "sh: syntax error" where a reply should start/);
  assert.throws(() => new ReplyParser(() => {}).feed(Buffer.alloc(100, 'x')), /where a reply should start/);
});

function encode(id: number, status: number, output: string): Buffer {
  const bytes = Buffer.from(output);
  return Buffer.concat([Buffer.from(`${id} ${status} ${bytes.length}\n`), bytes]);
}
