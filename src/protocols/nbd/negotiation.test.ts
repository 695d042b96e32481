import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NetbusError } from '../../device/errors.ts';
import { Info, Option, OptionReply, TransmissionFlag } from './constants.ts';
import { Negotiation, serverText } from './negotiation.ts';

const GREETING = Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1');

function reply(option: number, type: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(20);
  header.writeBigUInt64BE(0x3e889045565a9n, 0);
  for (const [i, value] of [option, type, payload.length].entries()) header.writeUInt32BE(value, 8 + 4 * i);
  return Buffer.concat([header, payload]);
}

function sizeInfo(size: bigint, flags: number): Buffer {
  const payload = Buffer.alloc(12);
  payload.writeUInt16BE(Info.export, 0);
  payload.writeBigUInt64BE(size, 2);
  payload.writeUInt16BE(flags, 10);
  return reply(Option.go, OptionReply.info, payload);
}

function blockInfo(...sizes: number[]): Buffer {
  const payload = Buffer.alloc(14);
  payload.writeUInt16BE(Info.blockSize, 0);
  for (const [i, size] of sizes.entries()) payload.writeUInt32BE(size, 2 + 4 * i);
  return reply(Option.go, OptionReply.info, payload);
}

const { hasFlags, sendFlush, readOnly } = TransmissionFlag;
const FLAGS = hasFlags | sendFlush;
const ack = (option: number) => reply(option, OptionReply.ack);

function shakeHands(...replies: Buffer[]): Negotiation {
  const negotiation = new Negotiation('data');
  for (const bytes of replies) negotiation.receive(bytes);
  return negotiation;
}

test('asks for structured replies, then for the export with its block sizes', () => {
  const negotiation = new Negotiation('däta');
  const first = negotiation.receive(GREETING);
  assert.equal(first.toString('hex'), `00000003${'49484156454f5054'}${'00000008'}${'00000000'}`);
  const name = Buffer.from('däta');
  const second = negotiation.receive(ack(Option.structuredReply));
  assert.equal(
    second.toString('hex'),
    `${'49484156454f5054'}00000007${'0000000d'}${'00000005'}${name.toString('hex')}${'0001'}${'0003'}`,
  );
  assert.equal(negotiation.result, undefined);
  assert.equal(
    negotiation.receive(Buffer.concat([blockInfo(512, 65_536, 1_048_576), sizeInfo(10n, FLAGS), ack(Option.go)])).length,
    0,
  );
  assert.deepEqual(negotiation.result, {
    sizeBytes: 10,
    flags: FLAGS,
    structuredReplies: true,
    minimumBlockBytes: 512,
    preferredBlockBytes: 65_536,
    payloadBytesMax: 1_048_576,
  });
});

test('a server without structured replies and block sizes has what the specification says', () => {
  const unsupported = reply(Option.structuredReply, OptionReply.unsupported);
  const unknownInfo = reply(Option.go, OptionReply.info, Buffer.from([0, 99, 1, 2]));
  const { result } = shakeHands(GREETING, unsupported, unknownInfo, sizeInfo(4096n, FLAGS | readOnly), ack(Option.go));
  assert.deepEqual(result, {
    sizeBytes: 4096,
    flags: FLAGS | readOnly,
    structuredReplies: false,
    minimumBlockBytes: 1,
    preferredBlockBytes: 4096,
    payloadBytesMax: 33_554_432,
  });
});

test('what the server refuses is said with its own words', () => {
  const refusals: [number, string, RegExp][] = [
    [OptionReply.unknown, 'not_found', /no such export \("export 'x' is not there"\)/],
    [OptionReply.policy, 'denied', /does not allow it/],
    [OptionReply.tlsRequired, 'denied', /wants TLS.*nbdkit nbd/],
    [OptionReply.shutdown, 'unreachable', /is ending/],
    [OptionReply.unsupported, 'protocol', /too old/],
    [0x80000009, 'protocol', /error 9/],
  ];
  for (const [type, code, message] of refusals) {
    const said = Buffer.from("export 'x' is\nnot there");
    const refused = () => shakeHands(GREETING, ack(Option.structuredReply), reply(Option.go, type, said));
    assert.throws(refused, (error: NetbusError) => {
      assert.equal(error.code, code);
      assert.match(error.message, message);
      return true;
    });
  }
});

test('what is against the protocol ends it', () => {
  const begin = [GREETING, ack(Option.structuredReply)];
  const cases: [string, Buffer[]][] = [
    ['another server', [Buffer.from('220 mail ESMTP')]],
    ['another server that says less than a greeting', [Buffer.from('SSH')]],
    ['old style', [Buffer.from('NBDMAGIC\0\0B\x02\x81\x86\x12\x53\0\0', 'latin1')]],
    ['newstyle that is not fixed', [Buffer.from('NBDMAGICIHAVEOPT\0\x02', 'latin1')]],
    ['an answer that is none', [GREETING, Buffer.alloc(20)]],
    ['an answer to something else', [GREETING, ack(Option.go)]],
    ['a long answer', [GREETING, reply(Option.structuredReply, OptionReply.unsupported, Buffer.alloc(8192)).subarray(0, 20)]],
    ['no size', [...begin, ack(Option.go)]],
    ['a size of the wrong length', [...begin, reply(Option.go, OptionReply.info, Buffer.alloc(13))]],
    ['a size beyond all disks', [...begin, sizeInfo(2n ** 63n, FLAGS)]],
    ['no flags', [...begin, sizeInfo(4096n, sendFlush)]],
    ['an information without a kind', [...begin, reply(Option.go, OptionReply.info, Buffer.alloc(1))]],
    ['blocks that are no power of two', [...begin, blockInfo(513, 4096, 65_536)]],
    ['blocks of nothing', [...begin, blockInfo(0, 4096, 65_536)]],
    ['blocks too large', [...begin, blockInfo(131_072, 131_072, 131_072)]],
    ['a payload smaller than a block', [...begin, blockInfo(512, 4096, 512)]],
    ['another kind of answer', [...begin, reply(Option.go, 77)]],
    ['informations without end', [...begin, ...Array.from({ length: 65 }, () => sizeInfo(4096n, FLAGS))]],
    ['words before a question', [...begin, Buffer.concat([sizeInfo(4096n, FLAGS), ack(Option.go), Buffer.from('x')])]],
  ];
  for (const [what, replies] of cases) assert.throws(() => shakeHands(...replies), { code: 'protocol' }, what);
});

test('whatever comes in whatever pieces gives the same, or ends as a NetbusError', () => {
  const whole = Buffer.concat([
    GREETING,
    ack(Option.structuredReply),
    blockInfo(1, 4096, 2 ** 25),
    sizeInfo(8192n, FLAGS),
    ack(Option.go),
  ]);
  const cuts = fc.array(fc.nat(whole.length), { maxLength: 10 });
  fc.assert(
    fc.property(cuts, fc.option(fc.tuple(fc.nat(whole.length - 1), fc.nat(255))), (places, damage) => {
      const bytes = Buffer.from(whole);
      if (damage !== null) bytes[damage[0]] = damage[1];
      const negotiation = new Negotiation('data');
      let from = 0;
      try {
        for (const to of [...places, whole.length].sort((a, b) => a - b)) {
          negotiation.receive(bytes.subarray(from, to));
          from = to;
        }
      } catch (thrown) {
        assert.ok(damage !== null && thrown instanceof NetbusError, String(thrown));
        return;
      }
      if (damage === null) assert.equal(negotiation.result?.sizeBytes, 8192);
    }),
  );
});

test('a server cannot write on the terminal', () => {
  assert.equal(serverText(Buffer.from('a\x1b[2Jb\r\n\tc\x7f')), 'a [2Jb c');
  assert.equal(serverText(Buffer.from('x'.repeat(1000))).length, 200);
});
