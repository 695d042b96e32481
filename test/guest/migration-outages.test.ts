/**
 * A real guest whose hosts fail while it moves: its destination right after it was granted the disk, the disk's host before, at and after the hand-over,
 * the network at that moment, and at last its own hosts. Each write that it was told is done is looked for on the disk, beside all daemons.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync, readSync } from 'node:fs';
import { after, before, describe, type TestContext, test } from 'node:test';
import { BLOCK_BYTES, describeFinding } from '../../bench/faults/block-ledger.ts';
import { BlockRecorder, WRITER_PORT } from '../../bench/migration/recorder.ts';
import type { AttachmentEntry } from '../../src/api/types.ts';
import { Cleanup } from '../support/cleanup.ts';
import type { Cluster } from '../support/cluster.ts';
import { PoweredHost } from '../support/powered-host.ts';
import { runOk } from '../support/process.ts';
import { CLEAR_WIRE } from '../support/tcp-proxy.ts';
import { waitFor as waitForWithin } from '../support/wait.ts';
import type { Wire } from '../support/wire.ts';
import { pathBetween, wireCluster } from '../support/wired-cluster.ts';
import { exportDisk } from './attached.ts';
import { DebugPort } from './debug-port.ts';
import { type Guest, startGuest } from './guest.ts';
import { NetbusDisks } from './netbus-disks.ts';
import { makeEmptyDisk } from './root-disk.ts';
import { StepwiseVm } from './stepwise-vm.ts';

const VM = 'web';
const ATTACHMENT = `${VM}/data`;
const DISK_MIB = 8;
/** The disk's beginning is what a writer has, whose every acknowledgement is known; then there is room for what is written once. */
const WRITER_BLOCKS = 512;
const WRITER_SEED = 5;
const WRITER = `/sbin/block-writer /dev/vda 0 ${WRITER_BLOCKS} ${WRITER_SEED} 4 2000`;
const REST_AT_MIB = (WRITER_BLOCKS * BLOCK_BYTES) / 2 ** 20;
const REST_MIB = 2;
/** Writes and flushes that are answered before a guest counts as going on. */
const ANSWERS = 20;
/** Generous: it ends a test that hangs and says nothing about speed. */
const WAIT_MS_MAX = 120_000;
const waitFor = <T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>) =>
  waitForWithin(what, probe, WAIT_MS_MAX);

const cleanup = new Cleanup();
let cluster: Cluster;
let wire: Wire;
let m1: PoweredHost;
let m2: PoweredHost;
let m3: PoweredHost;
let image: string;
let vm: StepwiseVm;
const recorder = new BlockRecorder(WRITER_BLOCKS, WRITER_SEED);
/** Of what was written once, and acknowledged. */
let restSum: string;

before(async () => {
  ({ cluster, wire } = await wireCluster(['m1', 'm2', 'm3'], { cleanup }));
  const hosts = ['m1', 'm2', 'm3'].map((name) => cluster.host(name));
  [m1, m2, m3] = await Promise.all(hosts.map((host) => PoweredHost.make(cluster, host)));
  await Promise.all(hosts.map((host) => cluster.startDaemon(host)));
  const path = m1.imagePath('data.img');
  image = m1.host.path(path);
  makeEmptyDisk(image, DISK_MIB);
  await exportDisk(cluster, 'm1', 'data', path, { allow: ['m2', 'm3'] });
  const port = new DebugPort((data) => recorder.feed(data));
  const disks = new NetbusDisks(cluster, VM, 'm1/data');
  vm = await StepwiseVm.boot(m2.host, { name: VM, cleanup, disks, port: { place: WRITER_PORT, port } });
  await vm.guest.succeed(`${WRITER} </dev/null >/run/writer.log 2>&1 &`);
  await works();
});
after(() => cleanup.run());

const entryOn = ({ host }: PoweredHost, wanted: (entry: AttachmentEntry) => boolean) =>
  cluster.waitForAttachment(host.name, ATTACHMENT, wanted, WAIT_MS_MAX);
const isActive = ({ state }: AttachmentEntry) => state === 'active';

/** As the disk's host says. */
const granted = ({ host }: PoweredHost) =>
  waitFor(`the grant of ${host.name}`, async () => {
    const { attachments } = await cluster.client('m1').busAttachments();
    return attachments.some((entry) => entry.host === host.name && entry.state === 'active');
  });

async function works(): Promise<void> {
  const until = recorder.acknowledged + ANSWERS;
  await waitFor('the guest to write', () => recorder.acknowledged >= until);
  assert.deepEqual([recorder.errors, recorder.problem], [0, undefined]);
}

const rest = () => vm.guest.succeed('killall -STOP block-writer');
const writeOn = () => vm.guest.succeed('killall -CONT block-writer');

/** The writer rests, and what the guest is told is done is in no flush. */
async function writeOnce(): Promise<void> {
  await rest();
  restSum = await vm.guest.succeed(
    `dd if=/dev/urandom of=/tmp/rest bs=1M count=${REST_MIB} 2>/dev/null
    dd if=/tmp/rest of=/dev/vda bs=64k seek=${REST_AT_MIB}M oflag=direct,seek_bytes conv=notrunc 2>/dev/null || exit 1
    sha256sum </tmp/rest | cut -d' ' -f1`,
  );
}

/** What has to be on the disk, and is not. */
function missing(): string[] {
  const findings: string[] = [];
  const file = openSync(image, 'r');
  const data = new Uint8Array(BLOCK_BYTES);
  for (let block = 0; block < WRITER_BLOCKS; block++) {
    readSync(file, data, 0, BLOCK_BYTES, block * BLOCK_BYTES);
    const finding = recorder.ledger.check(block, data);
    if (finding !== undefined) findings.push(describeFinding(finding));
  }
  closeSync(file);
  return findings;
}

const sumOfRest = async () =>
  (await runOk(['sh', '-c', `dd if=${image} bs=1M skip=${REST_AT_MIB} count=${REST_MIB} 2>/dev/null | sha256sum`])).split(
    ' ',
  )[0];

/** The power of the disk's host goes and comes back. The kernel may have written anything by itself before: what was lost is told, and not asserted. */
async function losePower(t: TestContext): Promise<void> {
  await m1.losePower();
  const rest = (await sumOfRest()) === restSum ? '' : `, and what was written once`;
  t.diagnostic(`the power took ${missing().length} acknowledged writes with it${rest}`);
  await m1.boot();
}

/** The guest goes on here, and all that it was told is done is on the disk. */
async function assertNothingLost(on: PoweredHost): Promise<void> {
  assert.equal(vm.host, on.host);
  await writeOn();
  await works();
  await rest();
  await vm.guest.succeed('dd if=/dev/zero of=/dev/vda count=0 conv=notrunc,fsync 2>/dev/null');
  // The writer's last words may still be on their way to this process.
  await waitFor('the last words', () => missing().length === 0).catch(() => assert.deepEqual(missing(), []));
  assert.equal(await sumOfRest(), restSum);
  await writeOn();
}

test('the QEMU of the destination is killed right after it was granted the disk: the guest goes on where it was', async () => {
  await writeOnce();
  await vm.stop();
  const there = await vm.copyTo(m3.host);
  await there.qmp.execute('cont');
  await granted(m3);
  // It has asked for nothing there: its only program that uses the disk rests.
  await there.kill();
  await entryOn(m3, ({ connected }) => !connected);
  await vm.goOn();
  await assertNothingLost(m2);
  await cluster.ask('m3', 'prepare', VM, '--cancel');
});

test('the daemon of the destination is killed right after it was granted the disk: the guest goes on there when that is back', async () => {
  await writeOnce();
  await vm.stop();
  const there = await vm.copyTo(m3.host);
  await vm.goOn(there);
  await granted(m3);
  const daemon = cluster.daemon('m3');
  daemon.signal('SIGKILL');
  await daemon.exited;
  await cluster.startDaemon(m3.host);
  await vm.becomes(there, m3.host);
  await assertNothingLost(m3);
});

describe("the disk's host loses its power", () => {
  test('just before the hand-over', async (t) => {
    await writeOnce();
    await writeOn();
    await works();
    // Whatever is under way waits until it is back.
    await Promise.all([losePower(t), vm.stop()]);
    const there = await vm.copyTo(m2.host);
    await vm.goOn(there);
    await vm.becomes(there, m2.host);
    await assertNothingLost(m2);
  });

  test('between the stop here and the start there', async (t) => {
    await writeOnce();
    await vm.stop();
    const there = await vm.copyTo(m3.host);
    await losePower(t);
    await vm.goOn(there);
    await vm.becomes(there, m3.host);
    await assertNothingLost(m3);
  });

  test('just after the start there, and once more when the guest has written there', async (t) => {
    await writeOnce();
    await vm.stop();
    const there = await vm.copyTo(m2.host);
    await vm.goOn(there);
    await entryOn(m2, isActive);
    await losePower(t);
    await vm.becomes(there, m2.host);
    await writeOn();
    await works();
    await writeOnce();
    await losePower(t);
    await assertNothingLost(m2);
  });
});

describe("the network between a guest's host and the disk's host fails", () => {
  test('as the guest leaves: what it left goes straight to the host that it goes to, and late requests write nothing', async () => {
    const path = pathBetween('m1', 'm2');
    await wire.set(path, { ...CLEAR_WIRE, stalled: true });
    await entryOn(m2, ({ inFlight }) => inFlight > 0);
    const expected = vm.expect(m3.host);
    await vm.stop();
    const there = await vm.copyTo(m3.host, await expected);
    await vm.goOn(there);
    await entryOn(m3, isActive);
    const { events } = await cluster.client('m2').events();
    assert.equal(events.filter(({ type }) => type === 'attachment.hand-over-sent').length, 1);
    await wire.set(path, CLEAR_WIRE);
    await vm.becomes(there, m3.host);
    await assertNothingLost(m3);
  });
});

describe("a guest's host is dead", () => {
  const attach = (on: PoweredHost) => cluster.ask<AttachmentEntry>(on.host.name, 'attach', 'm1/data', '--vm', VM, '--takeover');

  /** Starts the VM anew, and has all of its disk written. Returns the sum of it. */
  async function startAnew(on: PoweredHost, sum?: string): Promise<{ guest: Guest; sum: string }> {
    const { qemuArguments } = await attach(on);
    const guest = await startGuest({ name: VM, cleanup, host: on.host, arguments: qemuArguments });
    const sumOf = () => guest.succeed(`dd if=/dev/vda bs=1M 2>/dev/null | sha256sum | cut -d' ' -f1`);
    if (sum !== undefined) assert.equal(await sumOf(), sum);
    await guest.succeed(`dd if=/dev/urandom of=/dev/vda bs=1M count=${DISK_MIB} conv=fsync 2>/dev/null`);
    return { guest, sum: await sumOf() };
  }

  const sumOfImage = async () => (await runOk(['sha256sum', image])).split(' ')[0];

  test('only as it seems: fenced, taken over, and back from the dead it writes nothing', async () => {
    const path = pathBetween('m1', 'm3');
    await wire.set(path, { ...CLEAR_WIRE, stalled: true });
    await entryOn(m3, ({ inFlight }) => inFlight > 0);
    await cluster.ask('m2', 'fence', 'm3', '--yes');
    const anew = await startAnew(m2);
    const before = recorder.errors;
    await wire.set(path, CLEAR_WIRE);
    await waitFor('its guest to have errors', () => recorder.errors > before);
    await entryOn(m3, ({ state }) => state === 'failed');
    assert.equal(await sumOfImage(), anew.sum);
    await vm.guest.kill();
    await entryOn(m3, ({ connected }) => !connected);
    await cluster.ask('m3', 'detach', ATTACHMENT);

    // And now the other one really is.
    await anew.guest.kill();
    await m2.losePower({ silently: true });
    await cluster.ask('m3', 'fence', 'm2', '--yes');
    const again = await startAnew(m3, anew.sum);
    await m2.boot();
    await entryOn(m2, ({ state }) => state === 'failed');
    assert.equal(await sumOfImage(), again.sum);
    await again.guest.kill();
  });
});
