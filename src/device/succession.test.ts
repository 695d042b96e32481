import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { NetbusError } from './errors.ts';
import type { HandOver } from './hand-over.ts';
import {
  checkTakesPart,
  FENCED_HOSTS_MAX,
  fenced,
  granted,
  isFenced,
  type Place,
  prepared,
  quiesced,
  type Succession,
  settled,
  takenOver,
  unprepared,
} from './succession.ts';

const left: HandOver = { queues: [{ fetched: 9, usedIndex: 7, heads: [3, 1], lastBatch: [] }] };
const other: HandOver = { queues: [{ fetched: 12, usedIndex: 12, heads: [], lastBatch: [] }] };
const nothing: HandOver = { queues: [] };

/** The VM is at m1, which holds nothing. */
const idle: Succession = { host: 'm1', lease: { epoch: 4, holder: null } };
const running: Succession = { host: 'm1', lease: { epoch: 4, holder: 'm1' } };
/** Every way that a VM goes from m1 to m2, step by step. */
const expected: Succession = { ...running, standby: { host: 'm2' } };
const stopped: Succession = { ...expected, lease: { epoch: 4, holder: null }, handOver: left, leftBy: 'm1' };
const arrived: Succession = {
  host: 'm2',
  lease: { epoch: 5, holder: 'm2' },
  previous: { host: 'm1' },
  handOver: left,
  leftBy: 'm1',
};
/** It took nothing at m2 yet, and m1 has given up the way back. */
const stays: Succession = { host: 'm2', lease: { epoch: 5, holder: 'm2' }, handOver: left, leftBy: 'm1' };
/** It took nothing at m2 and was stopped there, and m3 expects it. */
const undecided: Succession = { ...arrived, lease: { epoch: 5, holder: null }, standby: { host: 'm3' } };
const there: Succession = { host: 'm2', lease: { epoch: 5, holder: 'm2' } };

type Step = (state: Succession) => Succession;
const grant =
  (host: string): Step =>
  (state) =>
    granted(state, host);
const quiesce =
  (host: string, what: HandOver | 'unchanged'): Step =>
  (state) =>
    quiesced(state, host, what);
const prepare = (host: string, membership?: string): Step => {
  const place = membership === undefined ? { host } : { host, membership };
  return (state) => prepared(state, place);
};
const unprepare =
  (host: string): Step =>
  (state) =>
    unprepared(state, host);
const takeOver =
  (host: string): Step =>
  (state) =>
    takenOver(state, { host });
const settle =
  (host: string, epoch: number): Step =>
  (state) =>
    settled(state, host, epoch);
const fence =
  (host: string): Step =>
  (state) =>
    fenced(state, host);

/** What is expected: a state, the very same object, or a code and the words that say what to do. */
type Expected = Succession | 'same' | readonly [code: string, message: RegExp];

const table: readonly [what: string, state: Succession, step: Step, expected: Expected][] = [
  ['a first grant', idle, grant('m1'), { ...idle, lease: { epoch: 5, holder: 'm1' } }],
  ['a grant to the holder again', running, grant('m1'), { ...running, lease: { epoch: 5, holder: 'm1' } }],
  ['a grant to a stranger', idle, grant('m3'), ['denied', /not one of host m3: the VM is at host m1/]],
  ['a grant to a stranger while it is held', running, grant('m3'), ['in_use', /the VM runs at host m1/]],
  ['a grant to the standby while it is held', expected, grant('m2'), ['in_use', /host m1 holds the lease; it is free once/]],
  ['a grant to the standby', stopped, grant('m2'), arrived],
  [
    'a grant to the standby of a VM that was never started',
    { ...idle, standby: { host: 'm2' } },
    grant('m2'),
    { host: 'm2', lease: { epoch: 5, holder: 'm2' }, previous: { host: 'm1' } },
  ],
  [
    'a grant where it was stopped: the hand-over is void, the standby stays',
    stopped,
    grant('m1'),
    { ...expected, lease: { epoch: 5, holder: 'm1' } },
  ],
  [
    'a grant to the previous host',
    arrived,
    grant('m1'),
    ['in_use', /the VM runs at host m2.*only if it is stopped there before/],
  ],
  [
    'a grant to the previous host, after a fence of the next one',
    fenced(arrived, 'm2'),
    grant('m1'),
    ['in_use', /start it anew, attached with --takeover/],
  ],
  [
    'a grant again where it went, before that was made good',
    arrived,
    grant('m2'),
    { ...arrived, lease: { epoch: 6, holder: 'm2' } },
  ],
  ['a grant to a fenced host', fenced(running, 'm1'), grant('m1'), ['fenced', /taken from host m1.*detach it there/]],
  [
    'a grant to the standby of a host that was fenced',
    fenced(expected, 'm1'),
    grant('m2'),
    { host: 'm2', lease: { epoch: 5, holder: 'm2' }, previous: { host: 'm1' }, fenced: ['m1'] },
  ],

  ['given back with what is left', expected, quiesce('m1', left), stopped],
  [
    'given back, with nothing that would help',
    expected,
    quiesce('m1', nothing),
    { ...stopped, handOver: undefined, leftBy: undefined },
  ],
  ['given back twice', stopped, quiesce('m1', left), stopped],
  ['given back, and corrected before anybody had it', stopped, quiesce('m1', other), { ...stopped, handOver: other }],
  ['given back once more when it has moved', arrived, quiesce('m1', left), 'same'],
  [
    'told late by a host that was never granted it',
    { ...arrived, handOver: undefined, leftBy: undefined },
    quiesce('m1', left),
    arrived,
  ],
  ['told late that nothing was left, by a new start of the VM', arrived, quiesce('m1', { queues: [] }), 'same'],
  [
    'a new start of the VM where it arrived',
    arrived,
    quiesce('m2', { queues: [] }),
    { ...there, lease: { epoch: 5, holder: null } },
  ],
  ['told late, and the guest is there for good', there, quiesce('m1', left), ['denied', /the VM is at host m2/]],
  [
    'given back by the next host: the one before it is out',
    arrived,
    quiesce('m2', other),
    {
      ...{ host: 'm2', lease: { epoch: 5, holder: null }, handOver: other, leftBy: 'm2' },
    },
  ],
  ['given back unchanged', arrived, quiesce('m2', 'unchanged'), { ...stopped, lease: { epoch: 5, holder: null } }],
  [
    'given back unchanged while it is expected at yet another host',
    prepare('m3')(arrived),
    quiesce('m2', 'unchanged'),
    undecided,
  ],
  ['given back unchanged twice, while it is expected elsewhere', undecided, quiesce('m2', 'unchanged'), 'same'],
  [
    'given back unchanged: the host before goes on',
    undecided,
    grant('m1'),
    { host: 'm1', lease: { epoch: 6, holder: 'm1' }, standby: { host: 'm3' } },
  ],
  [
    'given back unchanged: the next host goes on, with what the guest left where it took something last',
    undecided,
    grant('m3'),
    { host: 'm3', lease: { epoch: 6, holder: 'm3' }, previous: { host: 'm2' }, handOver: left, leftBy: 'm1' },
  ],
  [
    'given back unchanged: it goes on there after all',
    undecided,
    grant('m2'),
    { ...prepare('m3')(arrived), lease: { epoch: 6, holder: 'm2' } },
  ],
  ['given back unchanged, and the host before gives up', undecided, unprepare('m1'), 'same'],
  [
    'given back unchanged, then fenced: the host before is not heard',
    fenced(undecided, 'm2'),
    grant('m1'),
    ['in_use', /start it anew, attached with --takeover/],
  ],
  [
    'given back unchanged, then fenced, and the host before gives up',
    fenced(undecided, 'm2'),
    unprepare('m1'),
    { ...fenced(undecided, 'm2'), previous: undefined },
  ],
  ['given back unchanged twice', stopped, quiesce('m2', 'unchanged'), 'same'],
  ['unchanged where it was stopped', stopped, quiesce('m1', 'unchanged'), 'same'],
  ['unchanged where it has been made good', there, quiesce('m2', 'unchanged'), { ...there, lease: { epoch: 5, holder: null } }],
  ['given up by the host before', arrived, unprepare('m1'), stays],
  [
    'given back unchanged where it cannot go back',
    stays,
    quiesce('m2', 'unchanged'),
    { ...stays, lease: { epoch: 5, holder: null } },
  ],
  [
    'given back unchanged where it cannot go back: it goes on there, with what it left before',
    quiesce('m2', 'unchanged')(stays),
    grant('m2'),
    { ...stays, lease: { epoch: 6, holder: 'm2' } },
  ],
  [
    'given back unchanged by a third host: the one that it comes back to has taken nothing either',
    quiesce('m3', 'unchanged')(grant('m3')(undecided)),
    grant('m2'),
    { ...stays, lease: { epoch: 7, holder: 'm2' }, standby: { host: 'm3' } },
  ],
  [
    'given back by an earlier release, which did not say who left what: it goes on where it was stopped',
    { ...stopped, leftBy: undefined },
    grant('m1'),
    { ...expected, lease: { epoch: 5, holder: 'm1' } },
  ],
  ['something left by the standby', stopped, quiesce('m2', other), ['denied', /the VM is at host m1: host m2 has nothing/]],
  ['something left by a stranger', running, quiesce('m3', left), ['denied', /not one of host m3/]],
  ['something left by a fenced host', fenced(running, 'm1'), quiesce('m1', left), ['fenced', /taken from host m1/]],
  ['unchanged by a fenced host', fenced(arrived, 'm2'), quiesce('m2', 'unchanged'), ['fenced', /taken from host m2/]],

  ['prepared', running, prepare('m2'), expected],
  ['prepared with a membership', running, prepare('m2', 'a'), { ...running, standby: { host: 'm2', membership: 'a' } }],
  ['prepared elsewhere', expected, prepare('m3'), { ...running, standby: { host: 'm3' } }],
  ['prepared where it is', running, prepare('m1'), ['in_use', /at host m1 already/]],
  ['prepared where it was', arrived, prepare('m1'), { ...arrived, standby: { host: 'm1' } }],
  ['prepared by a host that was fenced once', { ...running, fenced: ['m2'] }, prepare('m2'), expected],
  ['unprepared', expected, unprepare('m2'), running],
  ['unprepared by another host', expected, unprepare('m3'), 'same'],
  ['unprepared after it has arrived', arrived, unprepare('m2'), 'same'],
  ['unprepared where it was: it does not go back', arrived, unprepare('m1'), { ...arrived, previous: undefined }],

  ['settled', arrived, settle('m2', 5), there],
  ['settled twice', there, settle('m2', 5), there],
  ['settled under an earlier epoch', arrived, settle('m2', 4), ['ended', /under epoch 4: flush under the present one/]],
  ['settled by the host before', arrived, settle('m1', 5), ['denied', /not one of host m1/]],
  ['settled after it was given back', quiesced(arrived, 'm2', other), settle('m2', 5), ['ended', /does not hold the lease/]],
  ['settled by a fenced host', fenced(arrived, 'm2'), settle('m2', 5), ['fenced', /taken from host m2/]],

  ['a fence of the holder', expected, fence('m1'), { ...expected, lease: { epoch: 4, holder: null }, fenced: ['m1'] }],
  ['a fence of the standby', expected, fence('m2'), { ...running, fenced: ['m2'] }],
  ['a fence of the host before', arrived, fence('m1'), { ...arrived, fenced: ['m1'] }],
  ['a fence of a stranger', expected, fence('m3'), 'same'],
  ['a fence twice', fenced(running, 'm1'), fence('m1'), 'same'],

  ['taken over while it is held', running, takeOver('m3'), ['in_use', /host m1 holds the lease.*netbus fence m1$/]],
  ['taken over by the standby while it is held', expected, takeOver('m2'), ['in_use', /netbus fence m1$/]],
  [
    'taken over after a fence',
    fenced(expected, 'm1'),
    takeOver('m3'),
    { host: 'm3', lease: { epoch: 4, holder: null }, fenced: ['m1', 'm2'] },
  ],
  [
    'taken over while nobody holds it: what was left is void',
    stopped,
    takeOver('m2'),
    { host: 'm2', lease: { epoch: 4, holder: null }, fenced: ['m1'] },
  ],
  [
    'taken over by the host that had it, and was fenced',
    fenced(arrived, 'm2'),
    takeOver('m2'),
    { host: 'm2', lease: { epoch: 5, holder: null }, fenced: ['m1'] },
  ],
  ['taken over by the host that holds it', arrived, takeOver('m2'), { ...there, fenced: ['m1'] }],
];

describe('succession', () => {
  for (const [what, state, step, wanted] of table) {
    test(what, () => {
      const before = structuredClone(state);
      if (Array.isArray(wanted)) {
        const [code, message] = wanted as readonly [string, RegExp];
        assert.throws(() => step(state), { code, message });
      } else if (wanted === 'same') {
        assert.equal(step(state), state);
      } else {
        assert.deepEqual(step(state), JSON.parse(JSON.stringify(wanted)));
      }
      assert.deepEqual(state, before, 'the state itself is never changed');
    });
  }

  test('what else is in a record stays, and a membership goes with its host', () => {
    const record = {
      ...stopped,
      membership: 'of m1',
      standby: { host: 'm2', membership: 'of m2' },
      vm: 'web',
      lease: stopped.lease,
    };
    const moved = granted(record, 'm2');
    assert.deepEqual([moved.vm, moved.membership, moved.previous], ['web', 'of m2', { host: 'm1', membership: 'of m1' }]);
    const back = quiesced(moved, 'm2', 'unchanged');
    assert.deepEqual(back, { ...record, lease: { epoch: 5, holder: null } });
    const taken = takenOver(fenced(record, 'm1'), { host: 'm3' });
    assert.equal('membership' in taken, false);
  });

  test('the hosts that are remembered to be fenced are bounded', () => {
    let state = running;
    for (let i = 0; i < 3 * FENCED_HOSTS_MAX; i++) state = takenOver(fenced(state, state.host), { host: `host${i}` });
    assert.equal(state.fenced?.length, FENCED_HOSTS_MAX);
    assert.throws(() => granted(state, 'host3'), { code: 'denied' });
    assert.throws(() => granted(state, `host${3 * FENCED_HOSTS_MAX - 2}`), { code: 'fenced' });
  });

  test('who takes part may look', () => {
    for (const host of ['m1', 'm2']) checkTakesPart(arrived, host);
    assert.throws(() => checkTakesPart(arrived, 'm3'), { code: 'denied' });
    assert.throws(() => checkTakesPart(fenced(arrived, 'm1'), 'm1'), { code: 'fenced' });
  });

  test('in whatever order: one holder, the VM is where it is held, epochs grow with grants alone, and a fence holds', () => {
    const host = fc.constantFrom('m1', 'm2', 'm3', 'm4');
    const what = fc.constantFrom<HandOver | 'unchanged'>(left, other, nothing, 'unchanged');
    const step = fc.oneof(
      fc.record({ name: fc.constant('grant' as const), host }),
      fc.record({ name: fc.constant('quiesce' as const), host, what }),
      fc.record({ name: fc.constant('prepare' as const), host }),
      fc.record({ name: fc.constant('unprepare' as const), host }),
      fc.record({ name: fc.constant('settle' as const), host, late: fc.nat(2) }),
      fc.record({ name: fc.constant('fence' as const), host }),
      fc.record({ name: fc.constant('takeOver' as const), host }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        let state: Succession = { host: 'm1', lease: { epoch: 0, holder: null } };
        const dead = new Set<string>();
        for (const one of steps) {
          const before = state;
          try {
            state = take(before, one);
          } catch (thrown) {
            assert.ok(thrown instanceof NetbusError, String(thrown));
            assert.match(thrown.message, /^[^\n]+$/);
            continue;
          }
          check(before, state, one);
          if (one.name === 'fence' && isFenced(state, one.host)) dead.add(one.host);
          if (one.name === 'prepare' || one.name === 'takeOver') dead.delete(one.host);
          for (const gone of dead) {
            assert.notEqual(state.lease.holder, gone);
            if (state.host === gone || state.standby?.host === gone)
              assert.throws(() => granted(state, gone), { code: 'fenced' });
          }
        }
      }),
      { numRuns: 2_000 },
    );

    function take(
      state: Succession,
      one: { name: string; host: string } & Partial<{ what: HandOver | 'unchanged'; late: number }>,
    ) {
      switch (one.name) {
        case 'grant':
          return granted(state, one.host);
        case 'quiesce':
          return quiesced(state, one.host, one.what!);
        case 'prepare':
          return prepared(state, { host: one.host });
        case 'unprepare':
          return unprepared(state, one.host);
        case 'settle':
          return settled(state, one.host, state.lease.epoch - one.late!);
        case 'fence':
          return fenced(state, one.host);
        default:
          return takenOver(state, { host: one.host });
      }
    }

    function check(before: Succession, after: Succession, { name, host: asking }: { name: string; host: string }): void {
      const { holder, epoch } = after.lease;
      assert.ok(holder === null || holder === after.host, 'the holder has the VM');
      assert.equal(epoch, before.lease.epoch + (name === 'grant' ? 1 : 0));
      if (name === 'grant') {
        assert.equal(holder, asking);
        assert.ok(before.lease.holder === null || before.lease.holder === asking, 'nobody loses it to another one');
      } else if (holder !== before.lease.holder) {
        assert.equal(holder, null);
        assert.ok(name === 'quiesce' || name === 'fence');
        assert.equal(before.lease.holder, asking, 'nobody gives back what is not its own');
      }
      const places: (Place | undefined)[] = [after, after.standby];
      const named = places.flatMap((place) => (place === undefined ? [] : [place.host]));
      assert.equal(new Set(named).size, named.length, 'it is not expected where it is');
      assert.ok((after.fenced?.length ?? 0) <= FENCED_HOSTS_MAX);
    }
  });

  test('unchanged restores exactly what was', () => {
    const host = fc.constantFrom('m2', 'm3');
    fc.assert(
      fc.property(host, fc.option(fc.constantFrom(left, other)), fc.nat(5), (to, handOver, again) => {
        let state = prepared({ ...running, membership: 'a' }, { host: to, membership: 'b' });
        state = quiesced(state, 'm1', handOver ?? nothing);
        const before = state;
        for (let i = 0; i <= again; i++) state = granted(state, to);
        const after = quiesced(state, to, 'unchanged');
        assert.deepEqual(after, { ...before, lease: { epoch: before.lease.epoch + again + 1, holder: null } });
      }),
    );
  });
});
