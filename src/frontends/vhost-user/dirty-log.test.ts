/** What a live migration has to copy again: the pages that were written here, all of them and no others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { native } from '../../../native/index.ts';
import { BlockRequestType, encodeHeader } from '../../../test/support/vhost-user/block-request.ts';
import { type DiskBench, withFrontend } from '../../../test/support/vhost-user/disk-bench.ts';
import type { VhostUserFrontend } from '../../../test/support/vhost-user/frontend.ts';
import { DRIVER_FEATURES, FRONTEND_PROTOCOL_FEATURES } from '../../../test/support/vhost-user/handshake.ts';
import { waitFor } from '../../../test/support/wait.ts';
import { featureBits, ProtocolFeature, VirtioFeature } from '../../protocols/vhost-user/index.ts';

const PAGE_BYTES = 4096;
const HEADER_BYTES = 16;
const LOG_ALL = featureBits(VirtioFeature.logAll);
const MIGRATABLE = { migratable: true };
const ACCEPTED = {
  features: DRIVER_FEATURES,
  protocolFeatures: FRONTEND_PROTOCOL_FEATURES | featureBits(ProtocolFeature.logShmfd),
};

interface Log {
  readonly fd: number;
  /** Pages that are noted, and no more after this. */
  take(): number[];
  close(): void;
}

/** As QEMU makes it: it covers all of guest memory. */
function makeLog(vm: VhostUserFrontend): Log & { readonly bytes: number } {
  const end = Math.max(...vm.memory.regions.map(({ guestAddress, sizeBytes }) => guestAddress + sizeBytes));
  const bytes = Math.ceil(end / PAGE_BYTES / 64) * 8;
  const fd = native.createMemoryFile('dirty-log', bytes);
  const handle = native.mapRegion(fd, 0, bytes);
  const bits = new Uint8Array(native.regionWindow(handle, 0, bytes));
  return {
    fd,
    bytes,
    take: () => {
      const pages: number[] = [];
      bits.forEach((byte, at) => {
        for (let bit = 0; bit < 8; bit++) if ((byte >> bit) & 1) pages.push(8 * at + bit);
      });
      bits.fill(0);
      return pages;
    },
    close: () => {
      native.unmapRegion(handle);
      native.close(fd);
    },
  };
}

/** SET_LOG_BASE, SET_FEATURES, SET_VRING_ADDR, in QEMU's order at a migration's beginning and at its end. */
async function setLogging(vm: VhostUserFrontend, on: boolean, log?: { fd: number; bytes: number }): Promise<void> {
  if (log !== undefined) {
    const message = { name: 'setLogBase', logSize: BigInt(log.bytes), logOffset: 0n } as const;
    assert.equal(await vm.control.askNumber(message, [log.fd]), 0n);
  }
  await vm.control.tell({ name: 'setFeatures', features: vm.negotiated.features | (on ? LOG_ALL : 0n) });
  const { queue } = vm.drivers[0]!;
  const addresses = {
    index: 0,
    flags: on ? 1 : 0,
    descriptors: vm.memory.userAddress(queue.descriptorAddress),
    used: vm.memory.userAddress(queue.usedAddress),
    available: vm.memory.userAddress(queue.availableAddress),
    logAddress: queue.usedAddress,
  };
  await vm.control.tell({ name: 'setVringAddr', addresses }, [], true);
}

/** One request whose data and status are where the test says; the pages that they are in, and those of the used ring. */
async function ask(
  vm: VhostUserFrontend,
  type: number,
  data: readonly [at: number, length: number][],
  writable: boolean,
): Promise<number[]> {
  const header = vm.memory.allocate(PAGE_BYTES);
  const room = vm.memory.allocate(16 * PAGE_BYTES);
  const status = vm.memory.allocate(PAGE_BYTES) + 4000;
  encodeHeader(vm.memory.bytes(header, HEADER_BYTES), type, 0);
  await vm.drivers[0]!.submitChain([
    { address: header, length: HEADER_BYTES, writable: false },
    ...data.map(([at, length]) => ({ address: room + at, length, writable })),
    { address: status, length: 1, writable: true },
  ]);
  assert.equal(vm.memory.bytes(status, 1)[0], 0);
  const { usedAddress, size } = vm.queues[0]!;
  const written: [number, number][] = [
    [status, 1],
    [usedAddress, 6 + 8 * size],
  ];
  if (writable) written.push(...data.map(([at, length]): [number, number] => [room + at, length]));
  return pagesOf(written);
}

function pagesOf(ranges: readonly (readonly [number, number])[]): number[] {
  const pages = new Set<number>();
  for (const [address, length] of ranges)
    for (let page = Math.floor(address / PAGE_BYTES); page * PAGE_BYTES < address + length; page++) pages.add(page);
  return [...pages].sort((a, b) => a - b);
}

const migrating = (body: (vm: VhostUserFrontend, log: ReturnType<typeof makeLog>, bench: DiskBench) => Promise<void>) =>
  withFrontend(async (bench) => {
    const vm = await bench.connect(ACCEPTED);
    const log = makeLog(vm);
    try {
      await body(vm, log, bench);
    } finally {
      log.close();
    }
  }, MIGRATABLE);

test('what requests write is noted, on all pages that it touches, and nothing else', () =>
  migrating(async (vm, log) => {
    await vm.read(0, 4096);
    await setLogging(vm, true, log);
    log.take();
    const scattered: [number, number][] = [
      [100, 512],
      [4096 - 512, 1024],
      [5 * 4096 + 8, 3 * 4096],
    ];
    assert.deepEqual(log.take(), []);
    for (const [type, data, writable] of [
      [BlockRequestType.read, scattered, true],
      [BlockRequestType.write, scattered, false],
      [BlockRequestType.flush, [], false],
      [BlockRequestType.getId, [[4090, 20]], true],
    ] as const) {
      const expected = await ask(vm, type, [...data] as [number, number][], writable);
      assert.deepEqual(log.take(), expected, `request type ${type}`);
    }
    await setLogging(vm, false);
    log.take();
    await ask(vm, BlockRequestType.read, scattered, true);
    assert.deepEqual(log.take(), []);
  }));

test('a request that was asked before the log began is noted when it is answered', () =>
  migrating(async (vm, log, { disk }) => {
    disk.holding = true;
    const asked = ask(vm, BlockRequestType.read, [[0, 4096]], true);
    await waitFor('it is held', () => disk.device?.held === 1);
    await setLogging(vm, true, log);
    disk.holding = false;
    disk.device!.release(1);
    const expected = await asked;
    const noted = log.take();
    for (const page of expected) assert.ok(noted.includes(page), `page ${page}`);
  }));

test('the log is replaced by another, and a smaller one harms nobody', () =>
  migrating(async (vm, log) => {
    const small = { ...log, bytes: 8 };
    await setLogging(vm, true, log);
    await setLogging(vm, true, small);
    log.take();
    await vm.read(0, 4096);
    assert.ok(log.take().every((page) => page < 64));
  }));

test('a log that cannot be ends the connection, or is refused', () =>
  migrating(async (vm, log, { complaints, frontend }) => {
    const message = { name: 'setLogBase', logSize: BigInt(log.bytes) + 4096n * 4096n, logOffset: 0n } as const;
    await assert.rejects(vm.control.tell(message, [log.fd], true), /refused/);
    assert.match(complaints.join(), /the dirty log cannot be mapped/);
    await assert.rejects(vm.control.tell({ ...message, logSize: 2n ** 60n }, [log.fd], true), /refused/);
    await vm.read(0, 512);
    await vm.control.tell({ ...message, logOffset: 2n ** 63n }, [log.fd]);
    await waitFor('the end', () => !frontend.status().connected);
  }));

test('without it no migration is offered', () =>
  withFrontend(async ({ connect }) => {
    const vm = await connect(ACCEPTED);
    assert.equal(vm.negotiated.offeredFeatures & LOG_ALL, 0n);
    assert.equal(vm.negotiated.offeredProtocolFeatures & featureBits(ProtocolFeature.logShmfd), 0n);
  }));
