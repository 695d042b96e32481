/** The devices of the contract itself, above the null disk and above one that can be made to hang. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NativeRegion } from '../../native/region.ts';
import { openNullSource } from '../../src/backends/null/null.ts';
import { DiskStatus } from '../../src/device/disk.ts';
import { DiskReplay } from '../../src/device/disk-replay.ts';
import { NetbusError } from '../../src/device/errors.ts';
import { FailedDevice } from '../../src/device/failed-device.ts';
import { Lease } from '../../src/device/lease.ts';
import { Slot } from '../../src/device/slot.ts';
import { VirtualDevice } from '../../src/device/virtual-device.ts';
import { UnloggedWrites } from '../../src/filters/write-log/unlogged-writes.ts';
import { WriteLog } from '../../src/filters/write-log/write-log.ts';
import { ManualClock } from '../../src/lib/clock.ts';
import { HeldDevice } from '../support/held-device.ts';
import { MemoryRecord } from '../support/lease-record.ts';
import { MemoryRegion } from '../support/memory-region.ts';
import { deviceCompliance } from './device-compliance.ts';

const MIB = 1024 * 1024;
const source = openNullSource({ capacityBytes: 8 * MIB, depth: 64 });
const { profile } = source;
const region = new MemoryRegion(8 * MIB);
const owner = { lost: () => {}, tookBeyond: () => {}, quiesced: async () => {}, closed: async () => {} };

function held() {
  const device = new HeldDevice(profile, 16);
  return {
    inner: device,
    region,
    content: 'zeroes' as const,
    quietAt: 'cut' as const,
    stall: { begin: () => device.hold(), end: () => device.release() },
  };
}

deviceCompliance('failed', () => ({
  device: new FailedDevice(profile, 16, DiskStatus.ioError),
  region,
  content: 'failed',
  quietAt: 'cut',
}));

deviceCompliance('held (the test device)', () => {
  const { inner, ...fixture } = held();
  return {
    ...fixture,
    device: inner,
    lose: () => inner.lose(new NetbusError('ended', 'the test lost it')),
    event: () => inner.changeCapacity(16 * MIB),
  };
});

deviceCompliance('a device whose writes are flushed again and again', () => {
  const { inner, ...fixture } = held();
  const clock = new ManualClock();
  const writes = new UnloggedWrites(clock);
  writes.mayLeave = true;
  const { device } = writes.admit({ epoch: 1, bootId: 'boot', instance: 'first', device: inner });
  const event = () => inner.changeCapacity(16 * MIB);
  return { ...fixture, device, started: () => clock.advance(0), event };
});

deviceCompliance('slot', () => {
  const { inner, ...fixture } = held();
  const slot = new Slot({ profile, depth: 24, owner, policy: new DiskReplay() });
  return { ...fixture, device: slot, started: () => slot.install(inner), event: () => inner.changeCapacity(16 * MIB) };
});

deviceCompliance('slot that is shallower than its device', () => {
  const slot = new Slot({ profile, depth: 5, owner, policy: new DiskReplay() });
  return { device: slot, region, content: 'zeroes', quietAt: 'cut', started: () => slot.install(source.open()) };
});

deviceCompliance('slot whose device is lost once', () => {
  const { inner, ...fixture } = held();
  const slot = new Slot({
    profile,
    depth: 24,
    owner: { ...owner, lost: () => slot.install(source.open()) },
    policy: new DiskReplay(),
  });
  const started = () => {
    slot.install(inner);
    inner.hold();
    queueMicrotask(() => inner.lose(new NetbusError('ended', 'the test lost it')));
  };
  return { region: fixture.region, content: 'zeroes', quietAt: 'cut', device: slot, started };
});

deviceCompliance('gate of a lease', async () => {
  const { inner, ...fixture } = held();
  const lease = new Lease({
    source: { ...source, open: () => inner },
    bootId: 'boot',
    record: new MemoryRecord(),
  });
  const { device } = await lease.session('m2', () => {}).activate();
  return { ...fixture, device, event: () => inner.changeCapacity(16 * MIB) };
});

deviceCompliance('virtual device', () => {
  const { inner, ...fixture } = held();
  const lease = new Lease({
    source: { ...source, open: () => inner },
    bootId: 'boot',
    record: new MemoryRecord(),
  });
  const virtual = new VirtualDevice({
    profile,
    depth: 24,
    openSession: async (onEnded) => lease.session('m2', onEnded),
    clock: new ManualClock(),
    onState: () => {},
  });
  return { ...fixture, device: virtual.open(), event: () => inner.changeCapacity(16 * MIB), dispose: () => virtual.close() };
});

deviceCompliance('write log', () => {
  const folder = mkdtempSync(join(tmpdir(), 'netbus-log-'));
  const clock = new ManualClock();
  const path = join(folder, 'log');
  const log = new WriteLog({ path, boundBytes: 8 * MIB, owner: 'test', clock, onSent: () => {}, onTrouble: () => {} }, true);
  const { inner, ...fixture } = held();
  const memory = NativeRegion.allocate(8 * MIB);
  const { device } = log.admit({ epoch: 1, bootId: 'boot', instance: 'one', device: inner }, null);
  return {
    ...fixture,
    region: memory,
    device,
    lose: () => inner.lose(new NetbusError('ended', 'the test lost it')),
    event: () => inner.changeCapacity(16 * MIB),
    dispose: async () => {
      log.close();
      memory.release();
      rmSync(folder, { recursive: true });
    },
  };
});
