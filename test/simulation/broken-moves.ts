/** Hosts that are broken where VMs move between them. */
import { AttachmentLog } from '../../src/daemon/attachment-log.ts';
import type { DeviceHost } from '../../src/daemon/device-host.ts';
import { Exports } from '../../src/daemon/exports.ts';
import { Places } from '../../src/daemon/places.ts';
import { NetbusError } from '../../src/device/errors.ts';
import type { QueueHandOver } from '../../src/device/hand-over.ts';
import type { OpenSession } from '../../src/device/source.ts';
import { UnloggedWrites } from '../../src/filters/write-log/unlogged-writes.ts';
import { WriteLog } from '../../src/filters/write-log/write-log.ts';
import type { Broken } from './broken.ts';

/** A write that is lost shows as one of these, whichever is looked at first. */
const LOSSES = ['acknowledged', 'replay', 'flushed'];

/** A guest that has much to lose, and moves while the device's host forgets. */
const FORGOTTEN = { moves: 'forgotten', faults: ['pauseRings'], guests: { blocks: 16, flushPercent: 0 } } as const;

export const brokenMoves: readonly Broken[] = [
  {
    what: 'a device host grants a standby although the holder has not given back',
    // The holder, who is not served any more, may say so to its guest.
    invariants: ['every hold ends', 'no surprise', ...LOSSES],
    from: 700,
    wrappers: { during: grantingTooEarly, moves: true },
  },
  {
    what: 'the heads of a hand-over are dropped',
    invariants: ['every hold ends', ...LOSSES],
    from: 78,
    wrappers: { frontend: { handOver: withoutHeads }, moves: true },
  },
  {
    what: 'a destination does not fetch the log of the source',
    invariants: ['no surprise'],
    from: 40,
    wrappers: { during: () => replaced(WriteLog.prototype, 'lacks', () => false), ...FORGOTTEN },
  },
  {
    what: 'a source does not keep its log',
    invariants: ['no surprise'],
    from: 40,
    wrappers: { during: () => replaced(AttachmentLog.prototype, 'readKept', keptNowhere), ...FORGOTTEN },
  },
  {
    what: 'a source does not say that it has a log',
    invariants: LOSSES,
    wrappers: { deviceHost: sayingNothing, ...FORGOTTEN },
  },
  {
    what: 'a source that has the device flushes nothing and says that all is flushed',
    invariants: LOSSES,
    wrappers: { during: flushedAlways, ...FORGOTTEN },
  },
  {
    what: 'a fence does not refuse the old host',
    invariants: ['one writer', 'every hold ends'],
    wrappers: { during: fencingNothing, faults: ['failOver'], moves: false },
  },
  {
    what: 'nobody hears that a guest has arrived for good',
    invariants: ['left over'],
    wrappers: { during: () => replaced(Places.prototype, 'settled', async () => {}), moves: true },
  },
];

/** Until it is called. */
export function replaced<Class extends object, Name extends keyof Class>(of: Class, name: Name, by: Class[Name]): () => void {
  const real = of[name];
  of[name] = by;
  return () => {
    of[name] = real;
  };
}

/** As if the ring had been served to its end. */
function withoutHeads(left: QueueHandOver): QueueHandOver {
  return { ...left, fetched: left.usedIndex, heads: [] };
}

function flushedAlways(): () => void {
  const { prototype } = UnloggedWrites;
  const real = Object.getOwnPropertyDescriptors(prototype);
  Object.defineProperty(prototype, 'areFlushed', { ...real.areFlushed, get: () => true });
  Object.defineProperty(prototype, 'mayLeave', { ...real.mayLeave, get: () => false });
  return () => {
    Object.defineProperty(prototype, 'areFlushed', real.areFlushed);
    Object.defineProperty(prototype, 'mayLeave', real.mayLeave);
  };
}

function keptNowhere(): never {
  throw new NetbusError('not_found', 'it was thrown away');
}

/** Whoever holds the lease has it no more when the host asks where the VM is expected. */
function grantingTooEarly(): () => void {
  const { openSession } = Exports.prototype;
  return replaced(Exports.prototype, 'openSession', function (this: Exports, host, id, onEnded) {
    const opened = openSession.call(this, host, id, onEnded);
    const { session } = opened;
    const activate = async () => {
      const target = [...this.all].find(({ attachments }) => attachments.some((record) => record.id === id))!;
      await target.changePlace(id, (state) =>
        state.standby?.host === host ? { ...state, lease: { ...state.lease, holder: null } } : state,
      );
      return session.activate();
    };
    return Object.assign(Object.create(opened) as typeof opened, { session: { ...session, activate } });
  });
}

/** It answers that it has done it. */
function fencingNothing(): () => void {
  const mend = [
    replaced(Places.prototype, 'fence', async () => []),
    replaced(Places.prototype, 'takeOver', async (host, { target, record }) => {
      await target.changePlace(record.id, (state) => ({ ...state, host, lease: { ...state.lease, holder: null } }));
    }),
  ];
  return () => {
    for (const each of mend) each();
  };
}

function sayingNothing(host: DeviceHost): DeviceHost {
  return withSessions(host, (open) => async (onEnded) => {
    const session = await open(onEnded);
    return {
      ...(session.ids !== undefined && { ids: session.ids }),
      activate: () => session.activate(),
      quiesced: (left) => session.quiesced(left === 'unchanged' ? left : { queues: left.queues }),
      close: () => session.close(),
    };
  });
}

/** The same host, with other sessions. */
export function withSessions(host: DeviceHost, change: (open: OpenSession) => OpenSession): DeviceHost {
  return new Proxy(host, {
    get: (target, name) => {
      const method = Reflect.get(target, name) as (...given: unknown[]) => unknown;
      if (name !== 'openSession') return method.bind(target);
      return (...given: Parameters<DeviceHost['openSession']>) => change(target.openSession(...given));
    },
  });
}
