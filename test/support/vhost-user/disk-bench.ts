/** The disk frontend on its real socket before a disk in memory, with a VMM and a driver of our own. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { native } from '../../../native/index.ts';
import { openDescriptors } from '../../../native/testing.ts';
import {
  createDiskFrontend,
  type DiskFrontend,
  type DiskFrontendOptions,
} from '../../../src/frontends/vhost-user/disk-frontend.ts';
import { type Clock, ManualClock, systemClock } from '../../../src/lib/clock.ts';
import { MemoryDisk } from '../memory-disk.ts';
import { waitFor, withDeadline } from '../wait.ts';
import { type FrontendOptions, VhostUserFrontend } from './frontend.ts';

const DEPTH = 64;

/** A clock of which a test can tell that somebody waits for it. */
export class TestClock extends ManualClock {
  waiting = 0;

  override after(delayMs: number, callback: () => void): () => void {
    this.waiting++;
    return super.after(delayMs, callback);
  }
}

export const clockHasTimer = (clock: TestClock) => clock.waiting > 0;

export interface DiskBench {
  readonly disk: MemoryDisk;
  /** The present one: see `restart`. */
  readonly frontend: DiskFrontend;
  readonly path: string;
  readonly inflightPath: string;
  /** Lines of the log at warn and error. */
  readonly complaints: string[];
  readonly connections: boolean[];
  connect(options?: FrontendOptions): Promise<VhostUserFrontend>;
  open(options?: FrontendOptions): VhostUserFrontend;
  /**
   * Ends the frontend, with what is in flight unanswered where the disk holds it and the clock is a manual one, and puts another in its place that
   * knows no more than `changes` say.
   */
  restart(changes?: Partial<DiskFrontendOptions>): Promise<void>;
}

/** Runs `body` with a frontend, then checks that nothing is left over: device, mappings, descriptors, socket. */
export async function withFrontend(
  body: (bench: DiskBench) => Promise<void>,
  options: Partial<DiskFrontendOptions> & { disk?: MemoryDisk; clock?: Clock } = {},
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'netbus-frontend-'));
  const path = join(directory, 'disk0');
  const inflightPath = `${path}.inflight`;
  const disk = options.disk ?? new MemoryDisk();
  const complaints: string[] = [];
  const connections: boolean[] = [];
  const complain = (_fields: object, message: string) => void complaints.push(message);
  const regions = native.regionCount();
  const descriptors = openDescriptors();
  const create = (changes: Partial<DiskFrontendOptions> = {}) =>
    createDiskFrontend({
      path,
      inflightPath,
      source: disk,
      depth: DEPTH,
      clock: systemClock,
      log: { debug() {}, info() {}, warn: complain, error: complain },
      onConnection: (connected) => connections.push(connected),
      ...options,
      ...changes,
    });
  let frontend = create();
  const vms: VhostUserFrontend[] = [];
  const keep = (vm: VhostUserFrontend) => {
    vms.push(vm);
    return vm;
  };
  try {
    await body({
      disk,
      get frontend() {
        return frontend;
      },
      path,
      inflightPath,
      complaints,
      connections,
      connect: async (vmOptions) => keep(await VhostUserFrontend.connect(path, vmOptions)),
      open: (vmOptions) => keep(VhostUserFrontend.open(path, vmOptions)),
      restart: async (changes) => {
        let closed = false;
        const closing = frontend.close().then(() => {
          closed = true;
        });
        await waitFor('the frontend to end', () => {
          if (options.clock instanceof ManualClock) options.clock.advance(1_000);
          return closed;
        });
        await closing;
        frontend = create(changes);
      },
    });
  } finally {
    for (const vm of vms) vm.close();
    await withDeadline('the frontend to close', 5_000, frontend.close());
    rmSync(directory, { recursive: true });
  }
  assert.equal(disk.openNow, 0, 'a device was left open');
  assert.equal(native.regionCount(), regions, 'guest memory was left mapped');
  // A socket of the VMM's side is closed a turn after its `close`. Fewer than before: the program that loads the tests has closed one of its own.
  await waitFor('all descriptors to be closed', () => openDescriptors() <= descriptors);
  assert.equal(existsSync(path), false);
}

export const pattern = (length: number, seed: number) => Uint8Array.from({ length }, (_, i) => (i * 31 + seed) & 0xff);
