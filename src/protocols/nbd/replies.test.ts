import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { chunk, dataChunk, holeChunk, simpleReply } from '../../../test/support/fake-nbd-server.ts';
import { NetbusError } from '../../device/errors.ts';
import { CHUNK_FLAG_DONE, Chunk, Command, CommandFlag } from './constants.ts';
import { ReplyReader, type ReplySink } from './replies.ts';
import { encodeRequest, REQUEST_BYTES } from './requests.ts';

/** Notes what it is told, in words; a simple reply to tag n has n bytes of payload. */
class Notes implements ReplySink {
  readonly told: string[] = [];
  bytes: number[] = [];

  simple(user: number, tag: number): number {
    this.#tell(`simple ${user}/${tag}`);
    return tag;
  }
  data(user: number, tag: number, position: number, length: number): void {
    this.#tell(`data ${user}/${tag} ${position}+${length}`);
  }
  hole(user: number, tag: number, position: number, length: number): void {
    this.#tell(`hole ${user}/${tag} ${position}+${length}`);
  }
  failed(user: number, tag: number, error: number): void {
    this.#tell(`failed ${user}/${tag} ${error}`);
  }
  done(user: number, tag: number): void {
    this.#tell(`done ${user}/${tag}`);
  }
  payload(bytes: Uint8Array, at: number, length: number): void {
    this.bytes.push(...bytes.subarray(at, at + length));
  }

  #tell(what: string): void {
    if (this.bytes.length > 0) this.told.push(`payload ${this.bytes.join(',')}`);
    this.bytes = [];
    this.told.push(what);
  }
}

const cookie = (user: number, tag: number) => (BigInt(user) << 32n) | BigInt(tag);

function error(flags: number, type: number, value: number, message: string, more = 0): (of: bigint) => Buffer {
  const text = Buffer.from(message);
  const fields = Buffer.alloc(6);
  fields.writeUInt32BE(value);
  fields.writeUInt16BE(text.length, 4);
  return (of) => chunk(of, flags, type, Buffer.concat([fields, text, Buffer.alloc(more)]));
}

const stream: [Buffer, string[]][] = [
  [simpleReply(cookie(1, 0), 0), ['simple 1/0', 'done 1/0']],
  [simpleReply(cookie(0xffffffff, 7), 5), ['failed 4294967295/7 5', 'done 4294967295/7']],
  [Buffer.concat([simpleReply(cookie(2, 3), 0), Buffer.from([7, 8, 9])]), ['simple 2/3', 'payload 7,8,9', 'done 2/3']],
  [dataChunk(cookie(1, 9), 0, 2 ** 40 + 512, Buffer.from([1, 2])), [`data 1/9 ${2 ** 40 + 512}+2`]],
  [holeChunk(cookie(1, 9), 0, 4096, 512), ['payload 1,2', 'hole 1/9 4096+512']],
  [chunk(cookie(1, 9), CHUNK_FLAG_DONE, Chunk.none, Buffer.alloc(0)), ['done 1/9']],
  [dataChunk(cookie(3, 1), CHUNK_FLAG_DONE, 0, Buffer.from([5])), ['data 3/1 0+1', 'payload 5', 'done 3/1']],
  [error(CHUNK_FLAG_DONE, Chunk.error, 28, 'no room')(cookie(3, 2)), ['failed 3/2 28', 'done 3/2']],
  [error(0, Chunk.errorOffset, 5, '', 8)(cookie(3, 4)), ['failed 3/4 5']],
  [error(CHUNK_FLAG_DONE, 0x8077, 22, 'a kind of the future', 40)(cookie(3, 4)), ['failed 3/4 22', 'done 3/4']],
];
const whole = Buffer.concat(stream.map(([bytes]) => bytes));
const expected = stream.flatMap(([, told]) => told);

test('a stream of all kinds of answers is understood, in whatever pieces it comes', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(whole.length), { maxLength: 30 }), (places) => {
      const notes = new Notes();
      const reader = new ReplyReader(notes);
      let from = 0;
      for (const to of [...places, whole.length].sort((a, b) => a - b)) {
        reader.receive(whole.subarray(from, to), to - from);
        from = to;
      }
      assert.deepEqual(notes.told, expected);
    }),
  );
});

test('a payload may be put in its place by others', () => {
  const notes = new Notes();
  const reader = new ReplyReader(notes);
  const reply = simpleReply(cookie(1, 100), 0);
  reader.receive(Buffer.concat([reply, Buffer.alloc(10)]), reply.length + 10);
  assert.equal(reader.payloadLeft, 90);
  reader.placed(89);
  assert.deepEqual([reader.payloadLeft, notes.told], [1, ['simple 1/100']]);
  reader.placed(1);
  assert.equal(notes.told.at(-1), 'done 1/100');
  reader.receive(simpleReply(cookie(1, 0), 0), 16);
  assert.equal(notes.told.at(-1), 'done 1/0');
});

test('what no server may say ends it', () => {
  const of = cookie(1, 1);
  const cases: [string, Buffer][] = [
    ['no magic', Buffer.alloc(16)],
    ['an empty chunk that is not the end', chunk(of, 0, Chunk.none, Buffer.alloc(0))],
    ['an empty chunk with a payload', chunk(of, CHUNK_FLAG_DONE, Chunk.none, Buffer.alloc(1))],
    ['data without bytes', chunk(of, 0, Chunk.offsetData, Buffer.alloc(8))],
    ['a hole of the wrong length', chunk(of, 0, Chunk.offsetHole, Buffer.alloc(13))],
    ['block status', chunk(of, 0, 5, Buffer.alloc(12))],
    ['an error without a number', chunk(of, 0, Chunk.error, Buffer.alloc(4))],
    ['an error that is none', error(CHUNK_FLAG_DONE, Chunk.error, 0, '')(of)],
    ['an error without end', chunk(of, 0, Chunk.error, Buffer.alloc(5000))],
    ['a message longer than its error', chunk(of, 0, Chunk.error, Buffer.from([0, 0, 0, 5, 0, 9]))],
  ];
  for (const [what, bytes] of cases)
    assert.throws(() => new ReplyReader(new Notes()).receive(bytes, bytes.length), { code: 'protocol' }, what);
});

test('any bytes are answers, the beginning of one, or a NetbusError', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 }), (damages) => {
      const bytes = Buffer.from(whole);
      for (const [at, value] of damages) bytes[at] = value;
      try {
        new ReplyReader({
          ...new Notes(),
          simple: (_, tag) => tag,
          data() {},
          hole() {},
          failed() {},
          done() {},
          payload() {},
        }).receive(bytes, bytes.length);
      } catch (thrown) {
        assert.ok(thrown instanceof NetbusError, String(thrown));
      }
    }),
  );
});

test('a request is as the specification draws it', () => {
  const view = new DataView(new ArrayBuffer(REQUEST_BYTES + 1));
  encodeRequest(view, 1, Command.writeZeroes, CommandFlag.fua | CommandFlag.noHole, 0xfffffffe, 3, 2 ** 40 + 512, 0xfffffe00);
  assert.equal(
    Buffer.from(view.buffer, 1).toString('hex'),
    `25609513${'0003'}${'0006'}fffffffe${'00000003'}${'0000010000000200'}fffffe00`,
  );
});
