import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestLog } from '../../test/support/bus-host.ts';
import { NetbusError } from '../device/errors.ts';
import { CONTROL_PAYLOAD_BYTES_MAX, MEMBER_LIST_BYTES_MAX } from '../protocols/netbus/limits.ts';
import { MemberSpread } from './member-spread.ts';

/** Hosts whose lists are numbers: "serial" is the list's text, and one that begins with x is forged. */
class Hosts {
  readonly log = new TestLog();
  readonly calls: string[] = [];
  readonly lists = new Map<string, number>();
  readonly down = new Set<string>();
  readonly #spreads = new Map<string, MemberSpread>();

  add(name: string, serial: number): MemberSpread {
    this.lists.set(name, serial);
    const spread = new MemberSpread({
      current: () => {
        const own = this.lists.get(name)!;
        return own === 0 ? undefined : { serial: own, bytes: Buffer.from(`${own}`) };
      },
      isMember: (peer) => peer !== 'unknown',
      accept: async (bytes) => {
        const text = Buffer.from(bytes).toString();
        if (!/^\d+$/.test(text)) throw new NetbusError('denied', 'the member list is refused: it was tampered with');
        if (Number(text) < this.lists.get(name)!) throw new NetbusError('denied', 'the member list is refused: it is older');
        this.lists.set(name, Number(text));
      },
      call: async (host, method, params) => {
        this.calls.push(`${name}>${host} ${method}`);
        if (this.down.has(host)) throw new NetbusError('unreachable', `${host} is down`);
        const handler = this.#spreads.get(host)!.handlers[method];
        if (handler === undefined) throw new NetbusError('not_found', `there is no method ${method}`);
        return { ...(await handler(name, { ...params }, undefined)) };
      },
      log: this.log,
    });
    this.#spreads.set(name, spread);
    return spread;
  }
}

test('whoever has the newer list gives it, whichever side asks', async () => {
  const hosts = new Hosts();
  const m1 = hosts.add('m1', 5);
  const m2 = hosts.add('m2', 3);
  assert.equal(await m1.exchange('m2'), true);
  assert.equal(hosts.lists.get('m2'), 5);
  assert.deepEqual(hosts.calls, ['m1>m2 members.offer', 'm1>m2 members.put']);
  hosts.lists.set('m1', 9);
  assert.equal(await m2.exchange('m1'), true);
  assert.equal(hosts.lists.get('m2'), 9);
  hosts.calls.length = 0;
  assert.equal(await m1.exchange('m2'), true);
  assert.deepEqual(hosts.calls, ['m1>m2 members.offer'], 'equal lists do not travel');
});

test('a host without a list gets one', async () => {
  const hosts = new Hosts();
  const m1 = hosts.add('m1', 0);
  hosts.add('m2', 2);
  assert.equal(await m1.exchange('m2'), true);
  assert.equal(hosts.lists.get('m1'), 2);
});

test('a host that is not in the list gets none, and may give a newer one', async () => {
  const hosts = new Hosts();
  const m1 = hosts.add('m1', 5);
  const unknown = hosts.add('unknown', 3);
  assert.deepEqual(await m1.handlers['members.offer']('unknown', { serial: 3 }, undefined), { serial: 5 });
  hosts.lists.set('unknown', 7);
  assert.equal(await unknown.exchange('m1'), true);
  assert.equal(hosts.lists.get('m1'), 7);
});

test('a change during an exchange is carried as well, by one more', async () => {
  const hosts = new Hosts();
  const m1 = hosts.add('m1', 5);
  hosts.add('m2', 3);
  const first = m1.exchange('m2');
  hosts.lists.set('m1', 6);
  assert.equal(m1.exchange('m2'), first);
  assert.equal(await first, true);
  assert.equal(hosts.lists.get('m2'), 6);
});

test('a host that is away is none to wait for, and one without member lists is none to complain of', async () => {
  const hosts = new Hosts();
  const m1 = hosts.add('m1', 5);
  hosts.add('m2', 3);
  hosts.down.add('m2');
  assert.equal(await m1.exchange('m2'), false);
  assert.deepEqual(hosts.log.lines, []);
});

test('a tampered or older list is refused, said in the log, and told to who gave it', async () => {
  const hosts = new Hosts();
  const m1 = hosts.add('m1', 5);
  const put = (list: unknown) => m1.handlers['members.put']('m2', { list }, undefined);
  await assert.rejects(put('x9'), { code: 'denied', message: /tampered/ });
  await assert.rejects(put('4'), { code: 'denied', message: /older/ });
  await assert.rejects(put(''), { code: 'protocol' });
  await assert.rejects(put(7), { code: 'protocol' });
  await assert.rejects(put('9'.repeat(MEMBER_LIST_BYTES_MAX + 1)), { code: 'protocol' });
  assert.equal(hosts.lists.get('m1'), 5);
  assert.ok(
    hosts.log.lines.includes(
      'warn: the member list that host m2 gave was refused: the member list is refused: it was tampered with',
    ),
  );
  await assert.rejects(m1.handlers['members.offer']('m2', { serial: -1 }, undefined), { code: 'protocol' });
});

test('a peer that answers something else harms nobody', async () => {
  const hosts = new Hosts();
  const m1 = hosts.add('m1', 5);
  for (const answer of [{}, { serial: 'x' }, { serial: 9, list: 'x9' }, { serial: 9, list: '4' }]) {
    const evil = hosts.add('evil', 0);
    (evil.handlers as Record<string, unknown>)['members.offer'] = async () => answer;
    assert.equal(await m1.exchange('evil'), false);
    assert.equal(hosts.lists.get('m1'), 5);
  }
});

test('the longest list fits into a CALL', () => {
  assert.ok(MEMBER_LIST_BYTES_MAX + 1024 < CONTROL_PAYLOAD_BYTES_MAX);
});
