/** Hosts that are broken on purpose, one for each invariant: the simulation must find out. */
import { IO_OPERATION_WORDS, IO_SEGMENT_WORDS, IoOp } from '../../native/index.ts';
import type { IoCalls } from '../../src/backends/disk/engine.ts';
import type { DeviceHost } from '../../src/daemon/device-host.ts';
import type { RecordFiles } from '../../src/daemon/record-files.ts';
import { DiskStatus } from '../../src/device/disk.ts';
import { FailedDevice } from '../../src/device/failed-device.ts';
import { InFlightWrites } from '../../src/filters/write-log/in-flight-writes.ts';
import { brokenLogs } from './broken-logs.ts';
import { brokenMoves, withSessions } from './broken-moves.ts';
import { brokenSwaps } from './broken-swaps.ts';
import type { Wrappers } from './host.ts';

/** Heartbeats and everything slower. */
const LONG_MS = 3_000;

/** A write that is lost shows as one of these, whichever is looked at first. */
const LOSSES = ['acknowledged', 'replay', 'flushed'];

export interface Broken {
  readonly what: string;
  /** One of these is found. */
  readonly invariants: readonly string[];
  readonly wrappers: Wrappers;
  /** The seed that the test begins with, so that it is short: the ones before it do not find it. 0 where it is left out. */
  readonly from?: number;
}

export const brokenHosts: readonly Broken[] = [
  {
    what: 'a device is closed while its I/O is under way',
    invariants: ['one writer', 'memory'],
    wrappers: {
      calls: (calls) => ({ ...calls, ioPending: () => 0, ioDestroy: () => {} }),
      faults: ['reset', 'stallDisk', 'cut'],
    },
  },
  {
    what: 'an image is opened while I/O of a killed daemon is under way',
    invariants: ['one writer'],
    from: 25,
    wrappers: { ignoresLock: true, faults: ['killDaemon'] },
  },
  {
    what: 'a flush does nothing',
    invariants: LOSSES,
    wrappers: { calls: withoutFlush },
  },
  {
    what: 'a host has the same boot id after each boot',
    invariants: LOSSES,
    wrappers: { bootId: () => 'the-same' },
  },
  {
    what: 'a request that was answered goes again',
    invariants: LOSSES,
    wrappers: { repeatsAnswered: true },
  },
  {
    what: 'records are not synced',
    invariants: ['epoch', 'records'],
    wrappers: { files: (files) => ({ ...files, syncFolder: async () => {} }) },
  },
  {
    what: 'staging is not given back',
    invariants: ['bounded'],
    wrappers: { memory: (allocate) => (bytes) => ({ ...allocate(bytes), release: () => {} }) },
  },
  {
    what: 'nobody notices that the other end is silent',
    invariants: ['every hold ends', 'hold'],
    wrappers: {
      clock: (clock) => ({ ...clock, after: (ms, callback) => (ms >= LONG_MS ? () => {} : clock.after(ms, callback)) }),
    },
  },
  {
    what: 'a second session answers with errors',
    invariants: ['no surprise'],
    wrappers: { deviceHost: failingSecond },
  },
  {
    what: 'records are renamed before their content is on the disk',
    invariants: ['epoch', 'records'],
    from: 20,
    wrappers: { files: writtenLater, faults: ['losePower', 'restartVm'] },
  },
  {
    what: 'a write log has not all that was acknowledged',
    invariants: LOSSES,
    wrappers: { createLog: brokenLogs.droppingEntries() },
  },
  {
    what: 'a write log sends not the newest content',
    invariants: LOSSES,
    wrappers: { createLog: brokenLogs.keepingTheFirst() },
  },
  {
    what: 'a write log sends what a durable write came after',
    invariants: LOSSES,
    wrappers: { createLog: brokenLogs.keepingTheOvertaken(), faults: ['losePower'] },
  },
  {
    what: 'the writes of a log may be under way when they overlap',
    invariants: LOSSES,
    from: 155,
    wrappers: { during: overlappingWrites, faults: ['losePower'], guests: { blocks: 4, flushPercent: 0 } },
  },
  {
    what: 'a flush releases what was acknowledged after it was sent',
    invariants: LOSSES,
    from: 18,
    wrappers: { createLog: brokenLogs.releasingTooMuch(), faults: ['losePower'] },
  },
  {
    what: 'a write log is not sent again',
    invariants: LOSSES,
    wrappers: { createLog: brokenLogs.neverSent() },
  },
  {
    what: 'a write log says that it has what an earlier guest wrote',
    invariants: LOSSES,
    from: 60,
    wrappers: { createLog: brokenLogs.alwaysComplete(), faults: ['losePower', 'killDaemon', 'restartVm'] },
  },
  {
    what: 'a write log forgets that it has everything',
    invariants: ['no surprise'],
    wrappers: { createLog: brokenLogs.neverComplete() },
  },
  {
    what: 'a write log ends with its daemon',
    invariants: LOSSES,
    from: 50,
    wrappers: { createLog: brokenLogs.endingWithTheDaemon(), faults: ['losePower', 'killDaemon'] },
  },
  {
    what: 'a hold time never ends',
    invariants: ['hold'],
    wrappers: { forgetsHold: true },
  },
  {
    what: 'a hold time ends, and the guest is told that its requests are done',
    invariants: ['acknowledged', 'data'],
    wrappers: { frontend: { hidesErrors: true } },
  },
  {
    what: 'a new disk is taken although it was not flushed',
    invariants: ['one copy'],
    wrappers: { swaps: true, calls: withoutFlush },
  },
  ...brokenMoves,
  ...brokenSwaps,
];

function writtenLater(files: RecordFiles): RecordFiles {
  return {
    ...files,
    write: async (path, content, mode) => {
      void files.write(path, content, mode);
    },
    overwrite: async (path, position, content) => {
      void files.overwrite(path, position, content);
    },
  };
}

function overlappingWrites(): () => void {
  const { overlaps } = InFlightWrites.prototype;
  InFlightWrites.prototype.overlaps = () => false;
  return () => {
    InFlightWrites.prototype.overlaps = overlaps;
  };
}

function withoutFlush(calls: IoCalls): IoCalls {
  return {
    ...calls,
    ioSubmit: (engine, operations, count) => {
      let at = 0;
      for (let i = 0; i < count; i++) {
        // A read of nothing.
        if (operations[at] === IoOp.flush) operations[at] = IoOp.read;
        at += IO_OPERATION_WORDS + operations[at + IO_OPERATION_WORDS - 1] * IO_SEGMENT_WORDS;
      }
      return calls.ioSubmit(engine, operations, count);
    },
  };
}

function failingSecond(host: DeviceHost): DeviceHost {
  let granted = 0;
  return withSessions(host, (open) => async (onEnded) => {
    const session = await open(onEnded);
    return {
      activate: async () => {
        const grant = await session.activate();
        if (++granted === 1) return grant;
        await grant.device.close();
        return { ...grant, device: new FailedDevice(grant.device.profile, grant.device.depth, DiskStatus.ioError) };
      },
      quiesced: (left) => session.quiesced(left),
      close: () => session.close(),
    };
  });
}
