/**
 * A hostile VMM against the vhost-user frontend on its socket: messages in any order, many nearly right, with descriptors that do not belong there,
 * with rings of noise, and connections that break anywhere. Whatever comes, the frontend serves the next VMM, and keeps no memory mapped and
 * no descriptor open. NETBUS_FUZZ_SECONDS sets how long (default 2), NETBUS_FUZZ_SEED which VMM.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { native } from '../../native/index.ts';
import { openDescriptors } from '../../native/testing.ts';
import { createDiskFrontend } from '../../src/frontends/vhost-user/disk-frontend.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { encodeFrontendMessage, type FrontendMessage, featureBits } from '../../src/protocols/vhost-user/index.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { type SeededRandom, seededRandom } from '../support/random.ts';
import { VhostUserFrontend } from '../support/vhost-user/frontend.ts';
import { waitFor, withDeadline } from '../support/wait.ts';

const seconds = Number(process.env.NETBUS_FUZZ_SECONDS ?? 2);
const seed = Number(process.env.NETBUS_FUZZ_SEED ?? Date.now() % 2 ** 31);

/** A message whose values are near those that mean something. */
function message(random: SeededRandom, vm: VhostUserFrontend): FrontendMessage {
  const index = random.below(20) === 0 ? random.below(256) : random.below(3);
  const [region] = vm.memory.regions;
  const place = () =>
    random.below(4) === 0 ? random.below(2 ** 31) * 2 ** random.below(20) : region.userAddress + 64 * random.below(1024);
  const regionOf = (i: number) => {
    const { guestAddress, userAddress, sizeBytes, fileOffset } = vm.memory.regions[i % 2];
    const bend = random.below(6) === 0 ? 4096 * random.below(100) : 0;
    return { guestAddress, userAddress: userAddress + bend, size: sizeBytes + bend, mmapOffset: fileOffset };
  };
  const hasFd = random.below(5) > 0;
  const inflight = {
    mmapSize: random.below(3) === 0 ? random.below(9000) : place(),
    mmapOffset: random.below(9) === 0 ? 4096 : 0,
    queues: random.below(9) === 0 ? random.below(65536) : 1 + random.below(2),
    queueSize: random.below(5) === 0 ? random.below(65536) : 64 << random.below(3),
  };
  const window = { offset: random.below(60), flags: random.below(2), data: random.bytes(random.below(70)) };
  const queue = vm.queues[index % 2];
  const addresses = {
    index,
    flags: random.below(2),
    descriptors: random.below(3) === 0 ? place() : vm.memory.userAddress(queue.descriptorAddress),
    available: random.below(9) === 0 ? place() : vm.memory.userAddress(queue.availableAddress),
    used: random.below(9) === 0 ? place() : vm.memory.userAddress(queue.usedAddress),
    logAddress: place(),
  };
  const messages: FrontendMessage[] = [
    { name: 'getFeatures' },
    { name: 'getProtocolFeatures' },
    { name: 'setOwner' },
    { name: 'resetOwner' },
    { name: 'getQueueNum' },
    { name: 'setFeatures', features: random.below(9) === 0 ? BigInt(random.below(2 ** 31)) : featureBits(9, 28, 29, 32) },
    { name: 'setProtocolFeatures', features: random.below(9) === 0 ? 1n << 13n : featureBits(0, 3, 5, 9, 12, 15) },
    { name: 'setMemTable', regions: [regionOf(0), regionOf(1)].slice(random.below(3)) },
    { name: 'addMemReg', region: regionOf(random.below(2)) },
    { name: 'remMemReg', region: regionOf(random.below(2)) },
    { name: 'setVringNum', index, size: random.below(4) === 0 ? random.below(32769) : queue.size },
    { name: 'setVringBase', index, base: random.below(3) === 0 ? random.below(65536) : 0 },
    { name: 'setVringAddr', addresses },
    { name: 'setVringKick', index, hasFd },
    { name: 'setVringCall', index, hasFd },
    { name: 'setVringErr', index, hasFd },
    { name: 'setVringEnable', index, enabled: random.below(4) > 0 },
    { name: 'getVringBase', index },
    { name: 'getConfig', window },
    { name: 'setConfig', window: random.below(2) === 0 ? window : { offset: 32, flags: 0, data: random.bytes(1) } },
    { name: 'setBackendReqFd' },
    { name: 'setLogBase', logSize: 4096n, logOffset: 0n },
    { name: 'getInflightFd', inflight },
    { name: 'setInflightFd', inflight },
    { name: 'getMaxMemSlots' },
    { name: 'unsupported', request: random.below(60), payload: random.bytes(random.below(80)) },
  ];
  return messages[random.below(messages.length)];
}

/** As many descriptors as the message should have, most often; of the right kind, most often. */
function descriptorsFor(said: FrontendMessage, random: SeededRandom, vm: VhostUserFrontend): number[] {
  const kinds = [vm.memory.regions[0].fd, vm.queues[0].kickFd, vm.queues[1].callFd];
  const pick = (usual: number) => (random.below(10) === 0 ? kinds[random.below(3)] : usual);
  const index = 'index' in said ? said.index % 2 : 0;
  if (random.below(30) === 0) return Array.from({ length: random.below(9) }, () => pick(kinds[0]));
  switch (said.name) {
    case 'setMemTable':
      return said.regions.map(() => pick(kinds[0]));
    case 'addMemReg':
    case 'setInflightFd':
    case 'setBackendReqFd':
      return [pick(kinds[0])];
    case 'setVringKick':
      return said.hasFd ? [pick(vm.queues[index].kickFd)] : [];
    case 'setVringCall':
    case 'setVringErr':
      return said.hasFd ? [pick(vm.queues[index].callFd)] : [];
    default:
      return [];
  }
}

/** Noise, or nearly a request, in the rings. */
function disturb(random: SeededRandom, vm: VhostUserFrontend): void {
  const queue = vm.queues[random.below(2)];
  const address = vm.memory.allocate(64);
  vm.memory
    .bytes(address, 16)
    .set([random.below(16), 0, 0, 0, 0, 0, 0, 0, random.below(256), random.below(4), 0, 0, 0, 0, 0, 0]);
  queue.writeDescriptor(0, address, 16, 1, random.below(8));
  for (let i = 1; i < 8; i++)
    queue.writeDescriptor(
      i,
      address + random.below(4096) - 64 * random.below(2),
      random.below(1024),
      random.below(4),
      random.below(8),
    );
  queue.offer(random.below(10) === 0 ? random.below(300) : random.below(8));
  if (random.below(40) === 0) queue.forceAvailableIndex(random.below(65536));
  queue.publish();
  queue.kick();
}

test(`vhost-user, a hostile VMM (seed ${seed})`, { timeout: (seconds + 30) * 1000 }, async (t) => {
  const random = seededRandom(seed);
  const folder = mkdtempSync(join(tmpdir(), 'nb-fuzz-'));
  const path = join(folder, 'disk');
  const disk = new MemoryDisk({}, 16);
  let ended = 0;
  const frontend = createDiskFrontend({
    path,
    inflightPath: join(folder, 'disk.inflight'),
    source: disk,
    depth: 16,
    clock: systemClock,
    log: silentLog,
    quiesceMsMax: 50,
    onConnection: (connected) => {
      if (!connected) ended++;
    },
  });
  const settled = () => ended > connections && disk.openNow === 0;
  const end = performance.now() + seconds * 1000;
  let [connections, messages] = [0, 0];
  let before: { regions: number; descriptors: number } | undefined;
  try {
    for (; performance.now() < end || connections < 2; connections++) {
      const vm = VhostUserFrontend.open(path, { queues: 2, queueSize: 64, memoryBytes: 2 ** 20 });
      vm.control.closed.catch(() => {});
      const steps = vm.handshake();
      for (const step of steps.slice(0, random.below(steps.length + 1))) await withDeadline(step.name, 5_000, step.run());
      for (let i = random.below(40); i > 0 && vm.control.open; i--, messages++) {
        const said = message(random, vm);
        const bytes = encodeFrontendMessage(said, random.below(2) === 0);
        if (random.below(40) === 0) bytes[random.below(bytes.length)] = random.below(256);
        vm.control.sendBytes(
          random.below(60) === 0 ? bytes.subarray(0, 1 + random.below(bytes.length)) : bytes,
          descriptorsFor(said, random, vm),
        );
        if (random.below(3) === 0) disturb(random, vm);
        if (random.below(6) === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      vm.close();
      await waitFor('the frontend to have put that VMM in order', settled);
      const now = { regions: native.regionCount(), descriptors: openDescriptors() };
      before ??= now;
      assert.deepEqual(now, before, 'something was left open');
    }
    const good = await withDeadline(
      'a good VMM to be served',
      10_000,
      VhostUserFrontend.connect(path, { queues: 2, memoryBytes: 2 ** 20 }),
    );
    await good.write(0, new Uint8Array(512).fill(7));
    assert.equal((await good.read(0, 512))[511], 7);
    good.close();
  } finally {
    await frontend.close();
    rmSync(folder, { recursive: true });
  }
  t.diagnostic(`${connections} connections, ${messages} messages`);
});
