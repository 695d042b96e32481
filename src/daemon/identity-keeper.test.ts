import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { TestLog } from '../../test/support/bus-host.ts';
import { NetbusError } from '../device/errors.ts';
import { newAdmission } from '../directory/admission.ts';
import { type Identity, loadIdentity } from '../directory/identity.ts';
import { writeAuthority, writeIdentity } from '../directory/identity-files.ts';
import { type IssuedIdentity, issueForRequest, issueHost, issueIssuing, issueRoot } from '../directory/identity-issue.ts';
import { ManualClock } from '../lib/clock.ts';
import { IdentityKeeper, LOOK_MS_MAX, RETRY_FIRST_MS, RETRY_MAX_MS } from './identity-keeper.ts';

const DAY_MS = 24 * 60 * 60 * 1000;

describe('the certificate of a host over time', () => {
  const folder = mkdtempSync(join(tmpdir(), 'netbus-identity-'));
  const files = { ca: join(folder, 'ca.crt'), certificate: join(folder, 'host.crt'), key: join(folder, 'host.key') };
  const names = { cluster: 'lab', host: 'm1' };
  const admission = newAdmission();
  const start = new ManualClock();
  let root: IssuedIdentity;
  let issuing: IssuedIdentity;
  let clock: ManualClock;
  let log: TestLog;
  let used: Identity[];
  let asked: number;
  /** Set = the issuing host does not answer. */
  let away: NetbusError | undefined;

  before(async () => {
    root = await issueRoot({ cluster: 'lab', clock: start });
    issuing = await issueIssuing({ root, cluster: 'lab', clock: start });
  });
  after(() => rmSync(folder, { recursive: true }));
  beforeEach(async () => {
    [clock, log, used, asked, away] = [new ManualClock(), new TestLog(), [], 0, undefined];
    await writeAuthority(files.ca, root.certificate);
    await writeIdentity(files, await issueHost({ authority: issuing, ...names, admission, clock }));
  });

  const issue = (request: string) => issueForRequest({ authority: issuing, request, ...names, admission, clock });

  const recorded: string[] = [];

  async function keep(renew: (request: string) => Promise<string> = issue): Promise<IdentityKeeper> {
    const counted = async (request: string) => {
      asked++;
      if (away !== undefined) throw away;
      return renew(request);
    };
    const keeper = new IdentityKeeper({
      ...{ files, identity: await loadIdentity(files, clock), use: (identity: Identity) => used.push(identity), clock, log },
      events: { record: ({ type }) => void recorded.push(type) },
      renew: counted,
    });
    keeper.start();
    return keeper;
  }

  /** Lets time pass, and each look at the certificate come to its end. */
  async function pass(keeper: IdentityKeeper, milliseconds: number): Promise<void> {
    for (let left = milliseconds; left > 0; left -= LOOK_MS_MAX) {
      clock.advance(Math.min(left, LOOK_MS_MAX));
      await keeper.idle();
    }
  }

  test('is renewed when a third of its life is left, with the same key', async () => {
    const keeper = await keep();
    const { expiresAt, key } = keeper.identity;
    await pass(keeper, 19 * DAY_MS);
    assert.equal(asked, 0);
    await pass(keeper, 1.1 * DAY_MS);
    assert.equal(asked, 1);
    assert.equal(used.length, 1);
    assert.deepEqual(recorded.splice(0), ['certificate.renewed']);
    assert.ok(keeper.identity.expiresAt > expiresAt + 19 * DAY_MS);
    assert.equal(keeper.identity.key, key);
    assert.equal(readFileSync(files.certificate, 'utf8').trim(), keeper.identity.certificate.trim());
    assert.equal(existsSync(`${files.certificate}.renewed`), false);
    assert.deepEqual(keeper.warnings, []);
    await keeper.close();
  });

  test('is asked for again, at growing distances, and warned of 10 days before the end', async () => {
    away = new NetbusError('unreachable', 'm0 does not answer');
    const keeper = await keep();
    await pass(keeper, 20 * DAY_MS);
    assert.equal(asked, 1);
    assert.match(
      keeper.warnings.join(),
      /^this host's certificate expires on 2026-01-31; it was not renewed: m0 does not answer$/,
    );
    const before = asked;
    clock.advance(RETRY_FIRST_MS);
    await keeper.idle();
    assert.equal(asked, before + 1);
    await pass(keeper, DAY_MS);
    assert.ok(
      asked - before >= 23 && asked - before < 40,
      `${asked - before} tries in a day, at most one in ${RETRY_MAX_MS} ms in the end`,
    );
    await pass(keeper, 10 * DAY_MS);
    assert.match(keeper.warnings.join(), /expired on 2026-01-31: other hosts refuse new sessions/);
    away = undefined;
    await pass(keeper, 2 * LOOK_MS_MAX);
    assert.deepEqual(keeper.warnings, []);
    assert.equal(used.length, 1);
    await keeper.close();
  });

  test('is kept where what comes is of another host, of another key, or no certificate', async () => {
    const own = readFileSync(files.certificate, 'utf8');
    const others = [
      async () => (await issueHost({ authority: issuing, cluster: 'lab', host: 'm2', admission, clock })).certificate,
      async () => (await issueHost({ authority: issuing, ...names, admission, clock })).certificate,
      async () => 'nonsense',
    ];
    for (const other of others) {
      asked = 0;
      clock = new ManualClock();
      const keeper = await keep(other);
      await pass(keeper, 20.1 * DAY_MS);
      assert.ok(asked >= 1);
      assert.match(keeper.warnings.join(), /it was not renewed: /);
      assert.deepEqual(used, []);
      assert.equal(readFileSync(files.certificate, 'utf8'), own);
      await keeper.close();
    }
  });

  test('people with certificates of their own are told to replace them, and nothing is asked for', async () => {
    const identity = await loadIdentity(files, clock);
    const plain = new IdentityKeeper({
      files,
      identity,
      use: (renewed) => used.push(renewed),
      clock,
      log,
      events: { record() {} },
    });
    plain.start();
    clock.advance(21 * DAY_MS);
    assert.match(plain.warnings.join(), /expires on .*; put a new one into .*host\.crt and send the daemon SIGHUP/);
    await writeIdentity(files, await issueHost({ authority: issuing, ...names, admission, clock }));
    await plain.reload();
    assert.equal(used.length, 1);
    assert.deepEqual(plain.warnings, []);
    await plain.close();
  });

  test('a reload of files that are wrong changes nothing', async () => {
    const keeper = await keep();
    const { identity } = keeper;
    await writeIdentity(files, await issueHost({ authority: issuing, cluster: 'lab', host: 'm2', admission, clock }));
    await assert.rejects(keeper.reload(), {
      code: 'config',
      message: /they are of host m2 of cluster lab, and this is m1 of lab/,
    });
    const otherRoot = await issueRoot({ cluster: 'lab', clock });
    await writeAuthority(files.ca, otherRoot.certificate);
    await writeIdentity(files, await issueHost({ authority: otherRoot, ...names, admission, clock }));
    await assert.rejects(keeper.reload(), { code: 'config', message: /another root/ });
    assert.equal(keeper.identity, identity);
    assert.deepEqual(used, []);
    await keeper.close();
  });
});
