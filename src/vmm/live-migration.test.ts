/** A migration before a QEMU that goes through its states look by look, and fails, hangs or is cancelled at each. Real ones are in test/interop. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import {
  COMPLETE_MS_MAX,
  CONNECT_MS_DEFAULT,
  type LiveMigrationOptions,
  liveMigrate,
  type MigrationProgress,
  mayHaveGone,
  SWITCHOVER_MS_MAX,
} from './live-migration.ts';
import { CANCEL_MS_MAX, cancelMigration } from './migration-cancel.ts';
import { COMMAND_MS_DEFAULT, QmpConnection } from './qmp-connection.ts';

interface Command {
  execute: string;
  arguments: Record<string, unknown>;
  id: number;
}

const RAM = {
  transferred: 4096,
  remaining: 8192,
  total: 12288,
  mbps: 8,
  'dirty-pages-rate': 2,
  'page-size': 4096,
  'dirty-sync-count': 3,
};

/** Goes one state on with each query-migrate, and says so by an event. */
class FakeQemu {
  /** Commands that change something, in order. */
  readonly changes: string[] = [];
  capabilities: Record<string, boolean> = {
    events: false,
    'pause-before-switchover': false,
    'return-path': true,
    xbzrle: false,
  };
  status: string | undefined;
  runState = 'running';
  /** It was cancelled between the stop of the guest and the wait for `migrate-continue`. */
  sleepsOverCancel = false;
  /** Of one that is completed, as QEMU 7.2 has them. */
  looksWithoutTimes = 0;
  extra: object = {};
  /** What comes after the present state. */
  next: string[] = [];
  /** After `migrate`, after `migrate-continue`, after `migrate_cancel`. */
  afterMigrate = ['active', 'active', 'pre-switchover'];
  afterContinue = ['device', 'completed'];
  afterCancel = ['cancelled'];
  /** Run states of the following query-status, and the last one stays: QEMU is a little behind with them. */
  runStates: string[] = [];
  /** Once the migration has failed or was cancelled. */
  afterwards = ['finish-migrate', 'running'];
  /** Refusals by command. */
  refusals: Record<string, string> = {};
  /** Commands without an answer; each is told. */
  hanging: Record<string, () => void> = {};
  onStatus: (status: string) => void = () => {};
  socket: Socket | undefined;

  serve(socket: Socket): void {
    this.socket = socket;
    socket.on('error', () => {});
    this.#send({ QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: '' }, capabilities: [] } });
    let text = '';
    socket.on('data', (chunk) => {
      const lines = `${text}${chunk}`.split('\n');
      text = lines.pop()!;
      for (const line of lines) this.#run(JSON.parse(line) as Command);
    });
  }

  #run({ execute, arguments: parameters, id }: Command): void {
    if (execute === 'migrate-continue' && parameters.state === 'cancelling') {
      this.#wake(id);
      return;
    }
    if (!/^(query|qmp)/.test(execute)) this.changes.push(execute);
    const hang = this.hanging[execute];
    if (hang !== undefined) {
      hang();
      return;
    }
    const refusal = this.refusals[execute];
    if (refusal !== undefined) this.#send({ error: { class: 'GenericError', desc: refusal }, id });
    else this.#send({ return: this.#answer(execute, parameters), id });
  }

  /** It goes on only where it is in the state that it is told. */
  #wake(id: unknown): void {
    const desc = `Migration not in expected state: ${this.status}`;
    if (this.status !== 'cancelling') this.#send({ error: { class: 'GenericError', desc }, id });
    else this.#send({ return: {}, id });
    if (this.status === 'cancelling' && this.sleepsOverCancel) this.next = ['cancelled'];
  }

  #answer(execute: string, parameters: Record<string, unknown>): unknown {
    switch (execute) {
      case 'query-status':
        this.runState = this.runStates.shift() ?? this.runState;
        return { status: this.runState };
      case 'query-migrate-capabilities':
        return Object.entries(this.capabilities).map(([capability, state]) => ({ capability, state }));
      case 'migrate-set-capabilities':
        for (const { capability, state } of parameters.capabilities as { capability: string; state: boolean }[]) {
          this.capabilities[capability] = state;
        }
        return {};
      case 'query-migrate': {
        const next = this.next.shift();
        if (next !== undefined) this.become(next);
        return this.status === undefined ? this.extra : { status: this.status, ram: RAM, ...this.#times(), ...this.extra };
      }
      case 'migrate':
        this.become('setup');
        this.next = [...this.afterMigrate];
        return {};
      case 'migrate-continue':
        assert.deepEqual(parameters, { state: 'pre-switchover' });
        this.next = [...this.afterContinue];
        return {};
      case 'migrate_cancel':
        if (['completed', 'failed', undefined].includes(this.status)) return {};
        this.become('cancelling');
        this.next = this.sleepsOverCancel ? [] : [...this.afterCancel];
        return {};
      case 'cont':
        this.runState = 'running';
        return {};
      default:
        return {};
    }
  }

  become(status: string): void {
    this.status = status;
    if (status === 'pre-switchover') this.runState = 'finish-migrate';
    if (status === 'completed') this.runState = 'postmigrate';
    if ((status === 'failed' || status === 'cancelled') && this.runState === 'finish-migrate')
      this.runStates = [...this.afterwards];
    this.#send({ event: 'MIGRATION', data: { status }, timestamp: { seconds: 1, microseconds: 0 } });
    this.onStatus(status);
  }

  #times(): object {
    if (this.status !== 'completed') return {};
    return this.looksWithoutTimes-- > 0 ? { 'total-time': 0, downtime: 0 } : { 'total-time': 1200, downtime: 17 };
  }

  #send(message: object): void {
    this.socket!.write(`${JSON.stringify(message)}\r\n`);
  }
}

/** Lets the time pass that somebody waits for between two looks. QEMU's answers have all the time that they need. */
class ShortWaitsPass extends ManualClock {
  override after(delayMs: number, callback: () => void): () => void {
    if (delayMs <= 1000) setImmediate(() => this.advance(delayMs));
    return super.after(delayMs, callback);
  }
}

let folder: string;
let server: Server;
let clock: ManualClock;
let qemu: FakeQemu;
let qmp: QmpConnection;
let phases: string[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nb-migrate-'));
  clock = new ShortWaitsPass();
  qemu = new FakeQemu();
  phases = [];
  server = createServer((socket) => qemu.serve(socket));
  const path = join(folder, 'qmp');
  server.listen(path);
  await once(server, 'listening');
  qmp = await QmpConnection.open({ path, clock });
});
afterEach(async () => {
  qmp.close();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true });
});

function migrate(options: Partial<LiveMigrationOptions> = {}) {
  const onProgress = ({ phase }: MigrationProgress) => {
    if (phases.at(-1) !== phase) phases.push(phase);
  };
  return liveMigrate(qmp, { uri: 'tcp:192.0.2.2:4444', clock, atSwitchover: async () => {}, onProgress, ...options });
}

/** The changes without the capabilities, which are set first and put back last. */
function steps(): string[] {
  assert.deepEqual([qemu.changes[0], qemu.changes.at(-1)], ['migrate-set-capabilities', 'migrate-set-capabilities']);
  assert.deepEqual(qemu.capabilities, { events: false, 'pause-before-switchover': false, 'return-path': true, xbzrle: false });
  return qemu.changes.slice(1, -1);
}

describe('a migration', () => {
  test('waits at the switch-over for the devices, and tells how it went', async () => {
    const seen: object[] = [];
    const result = await migrate({
      atSwitchover: async () => {
        assert.equal(qemu.status, 'pre-switchover');
        assert.deepEqual(qemu.capabilities, {
          events: true,
          'pause-before-switchover': true,
          'return-path': true,
          xbzrle: false,
        });
        seen.push(qemu.changes.slice());
      },
    });
    assert.deepEqual(result, { totalMs: 1200, downtimeMs: 17, transferredBytes: 4096, passes: 3 });
    assert.deepEqual(seen, [['migrate-set-capabilities', 'migrate']]);
    assert.deepEqual(phases, ['copying', 'switching-over', 'completing']);
    assert.deepEqual(steps(), ['migrate', 'migrate-continue']);
    assert.equal(qemu.runState, 'postmigrate');
  });

  test('a migration that is completed says how long it took a moment later', async () => {
    qemu.looksWithoutTimes = 3;
    assert.equal((await migrate()).totalMs, 1200);
    qemu.looksWithoutTimes = 0;
  });

  test('tells how far the memory has come', async () => {
    const told: MigrationProgress[] = [];
    await migrate({ onProgress: (progress) => told.push(progress) });
    assert.deepEqual(told[0], {
      phase: 'copying',
      ram: {
        ...{ transferredBytes: 4096, remainingBytes: 8192, totalBytes: 12288 },
        ...{ bytesPerSecond: 1_000_000, dirtyBytesPerSecond: 8192, passes: 3 },
      },
    });
  });

  test('knows states that this release has no name for as being under way', async () => {
    qemu.afterMigrate = ['wait-unplug', 'active', 'something-new', 'pre-switchover'];
    assert.equal((await migrate()).totalMs, 1200);
  });

  test('tries again while the destination is not listening', async () => {
    let attempts = 0;
    qemu.afterMigrate = ['failed'];
    qemu.extra = { 'error-desc': "Failed to connect to '192.0.2.2:4444': Connection refused" };
    qemu.onStatus = (status) => {
      if (status === 'failed' && ++attempts === 3) qemu.afterMigrate = ['active', 'pre-switchover'];
    };
    await migrate();
    assert.deepEqual(steps(), ['migrate', 'migrate', 'migrate', 'migrate', 'migrate-continue']);
  });
});

describe('nothing is begun', () => {
  for (const [what, prepare, code, message] of [
    [
      'while another one is under way',
      () => (qemu.status = 'active'),
      'in_use',
      /migrated already \(query-migrate: "active"\)/,
    ],
    [
      'where QEMU does not migrate the VM',
      () => (qemu.extra = { 'blocked-reasons': ['0000:00:03.0/virtio-9p\n does not', 'more'] }),
      'device',
      /QEMU does not migrate this VM: 0000:00:03\.0\/virtio-9p does not; more/,
    ],
    ['in a state that is an end', () => (qemu.runState = 'guest-panicked'), 'device', /its state is "guest-panicked"/],
    [
      'with a QEMU that cannot pause',
      () => delete qemu.capabilities['pause-before-switchover'],
      'device',
      /QEMU 7\.2\.22 cannot migrate with pause-before-switchover/,
    ],
    [
      'with a QEMU that does not say what it can',
      () => (qemu.refusals['query-migrate-capabilities'] = 'unknown'),
      'device',
      /cannot migrate with events and pause-before-switchover and return-path/,
    ],
    ['where query-migrate is nonsense', () => (qemu.extra = []), 'protocol', /something else than an object/],
  ] as const) {
    test(what, async () => {
      prepare();
      await assert.rejects(migrate(), { code, message });
      assert.deepEqual(qemu.changes, []);
    });
  }

  test('by a signal that has aborted', async () => {
    await assert.rejects(migrate({ signal: AbortSignal.abort() }), { code: 'ended', message: /before it began/ });
    assert.deepEqual(qemu.changes, []);
  });

  test('where QEMU does not take the place', async () => {
    qemu.refusals.migrate = 'unknown migration protocol: x';
    await assert.rejects(migrate(), { code: 'device', message: /unknown migration protocol/ });
    assert.deepEqual(steps(), ['migrate']);
  });
});

describe('given up', () => {
  for (const status of ['setup', 'active', 'pre-switchover']) {
    test(`at "${status}": the guest goes on here`, async () => {
      const controller = new AbortController();
      qemu.onStatus = (now) => {
        if (now === status) controller.abort();
      };
      await assert.rejects(migrate({ signal: controller.signal }), {
        code: 'ended',
        message: 'the migration was cancelled; the VM goes on here',
      });
      assert.deepEqual(steps(), ['migrate', 'migrate_cancel']);
      assert.equal(qemu.runState, 'running');
    });
  }

  test('in the moment before "pre-switchover": QEMU is told to look', async () => {
    const controller = new AbortController();
    qemu.sleepsOverCancel = true;
    qemu.onStatus = (now) => {
      if (now === 'active') controller.abort();
    };
    await assert.rejects(migrate({ signal: controller.signal }), { code: 'ended', message: /goes on here/ });
    qemu.sleepsOverCancel = false;
  });

  test('while the devices are looked at', async () => {
    const controller = new AbortController();
    const atSwitchover = () => new Promise<void>(() => controller.abort());
    await assert.rejects(migrate({ signal: controller.signal, atSwitchover }), { code: 'ended', message: /goes on here/ });
    assert.deepEqual(steps(), ['migrate', 'migrate_cancel']);
  });

  test('at "device": too late, it is completed', async () => {
    const controller = new AbortController();
    qemu.onStatus = (now) => {
      if (now === 'device') controller.abort();
    };
    assert.equal((await migrate({ signal: controller.signal })).totalMs, 1200);
    assert.deepEqual(steps(), ['migrate', 'migrate-continue']);
  });

  test('while it waits for the destination', async () => {
    const controller = new AbortController();
    qemu.afterMigrate = ['failed'];
    let attempts = 0;
    qemu.onStatus = (now) => {
      if (now === 'failed' && ++attempts === 2) controller.abort();
    };
    await assert.rejects(migrate({ signal: controller.signal }), { code: 'ended' });
    assert.deepEqual(steps(), ['migrate', 'migrate', 'migrate_cancel']);
  });

  test('and QEMU does not come to an end with it', async () => {
    const controller = new AbortController();
    qemu.afterCancel = [];
    qemu.onStatus = (now) => {
      if (now === 'active') controller.abort();
    };
    await assert.rejects(migrate({ signal: controller.signal }), {
      code: 'timeout',
      message: `the migration was cancelled; QEMU did not cancel the migration within ${CANCEL_MS_MAX / 1000} s`,
    });
  });

  test('by somebody else at the monitor', async () => {
    qemu.afterMigrate = ['active', 'cancelling', 'cancelled'];
    await assert.rejects(migrate(), { code: 'ended', message: /was cancelled at its QMP monitor; the VM goes on here/ });
    assert.deepEqual(steps(), ['migrate']);
  });
});

describe('devices that are not ready at the switch-over', () => {
  test('are a reason to cancel', async () => {
    const atSwitchover = async () => {
      throw new NetbusError('device', 'web/data was not stopped');
    };
    await assert.rejects(migrate({ atSwitchover }), {
      code: 'device',
      message: 'web/data was not stopped; the VM goes on here',
    });
    assert.deepEqual(steps(), ['migrate', 'migrate_cancel']);
    assert.equal(qemu.runState, 'running');
  });

  test('have no longer than their bound', async () => {
    const atSwitchover = () =>
      new Promise<void>(() => {
        setImmediate(() => clock.advance(SWITCHOVER_MS_MAX));
      });
    await assert.rejects(migrate({ atSwitchover }), { code: 'timeout', message: /took longer than 5 s; the VM goes on here/ });
  });
});

describe('a failure', () => {
  test('at "setup": the destination was not there in time', async () => {
    qemu.afterMigrate = ['failed'];
    qemu.extra = { 'error-desc': 'Connection refused' };
    await assert.rejects(migrate(), {
      code: 'unreachable',
      message: 'the destination could not be reached at tcp:192.0.2.2:4444: Connection refused; the VM goes on here',
    });
    assert.ok(clock.now() >= CONNECT_MS_DEFAULT);
  });

  test('at "setup": the destination does not take the connection', async () => {
    qemu.afterMigrate = [];
    await assert.rejects(migrate(), {
      code: 'timeout',
      message: /did not take the connection .* within 30 s; the VM goes on here/,
    });
    assert.deepEqual(steps(), ['migrate', 'migrate_cancel']);
  });

  test('at "active", also between two looks: it is not tried again', async () => {
    qemu.afterMigrate = [];
    qemu.onStatus = (status) => {
      if (status !== 'setup') return;
      qemu.onStatus = () => {};
      setImmediate(() => {
        qemu.become('active');
        qemu.become('failed');
      });
    };
    qemu.extra = { 'error-desc': 'Unable to write to socket: Broken pipe' };
    await assert.rejects(migrate(), {
      code: 'device',
      message: /the migration failed: Unable to write .*; the VM goes on here/,
    });
    assert.deepEqual(steps(), ['migrate']);
  });

  test('at "pre-switchover", before it is let go', async () => {
    qemu.refusals['migrate-continue'] = 'Migration not in expected state: failed';
    const atSwitchover = async () => qemu.become('failed');
    await assert.rejects(migrate({ atSwitchover }), {
      code: 'device',
      message: /the migration failed: .*; the VM goes on here/,
    });
    assert.equal(qemu.runState, 'running');
  });

  test('at "device": QEMU lets the guest go on', async () => {
    qemu.afterContinue = ['device', 'failed'];
    await assert.rejects(migrate(), (thrown: NetbusError) => {
      assert.equal(mayHaveGone(thrown), false);
      return thrown.code === 'device' && /; the VM goes on here/.test(thrown.message);
    });
    assert.deepEqual(steps(), ['migrate', 'migrate-continue']);
  });

  test('after which QEMU leaves the guest stopped: it is let go on', async () => {
    qemu.afterContinue = ['device', 'failed'];
    qemu.afterwards = ['finish-migrate', 'postmigrate'];
    await assert.rejects(migrate(), { code: 'device', message: /; the VM goes on here/ });
    assert.deepEqual(steps(), ['migrate', 'migrate-continue', 'cont']);
  });

  test('of a guest that somebody stopped meanwhile: it stays so', async () => {
    qemu.afterMigrate = ['active', 'failed'];
    qemu.onStatus = (status) => {
      if (status === 'failed') qemu.runState = 'paused';
    };
    await assert.rejects(migrate(), { message: /; the VM does not run here: it was stopped meanwhile \("paused"\)/ });
    assert.deepEqual(steps(), ['migrate']);
  });

  test('of a guest that was stopped before: it stays so', async () => {
    qemu.runState = 'paused';
    qemu.afterContinue = ['device', 'failed'];
    await assert.rejects(migrate(), { message: /; the VM is here, stopped as before/ });
    assert.deepEqual(steps(), ['migrate', 'migrate-continue']);
  });

  test('of a guest that has come to its end', async () => {
    qemu.afterMigrate = ['active', 'failed'];
    qemu.onStatus = (status) => {
      if (status === 'failed') qemu.runState = 'shutdown';
    };
    await assert.rejects(migrate(), { message: /; the VM does not run here: its state is "shutdown"/ });
  });

  test('to come to an end after the switch-over', async () => {
    qemu.afterContinue = ['device'];
    await assert.rejects(migrate(), {
      code: 'timeout',
      message: /not completed within 120 s .*end the QEMU at the destination/,
    });
    assert.ok(clock.now() >= COMPLETE_MS_MAX);
    assert.deepEqual(qemu.changes.includes('migrate_cancel'), false);
  });
});

describe('a QEMU that does not answer any more', () => {
  test('while it copies: it is told to cancel', async () => {
    qemu.onStatus = (status) => {
      if (status !== 'active') return;
      const passes = () => setImmediate(() => clock.advance(COMMAND_MS_DEFAULT));
      for (const command of ['query-migrate', 'migrate-set-capabilities', 'migrate_cancel']) qemu.hanging[command] = passes;
    };
    await assert.rejects(migrate(), { code: 'timeout', message: /answer to query-migrate took longer than 30 s/ });
    assert.ok(qemu.changes.includes('migrate_cancel'));
  });

  test('after the switch-over: the destination may have the VM', async () => {
    qemu.onStatus = (status) => {
      if (status !== 'device') return;
      const passes = () => setImmediate(() => clock.advance(COMMAND_MS_DEFAULT));
      for (const command of ['query-migrate', 'migrate-set-capabilities']) qemu.hanging[command] = passes;
    };
    await assert.rejects(migrate(), (thrown: NetbusError) => {
      assert.equal(mayHaveGone(thrown), true);
      assert.equal(thrown.code, 'timeout');
      return /; the VM may run at the destination: look there/.test(thrown.message);
    });
    assert.equal(qemu.changes.includes('migrate_cancel'), false);
  });

  for (const [status, message] of [
    ['active', /closed its QMP socket .*: it has ended$/],
    ['device', /it has ended; the VM may run at the destination/],
  ] as const) {
    test(`because it has ended, at "${status}"`, async () => {
      qemu.onStatus = (now) => {
        if (now === status) qemu.hanging['query-migrate'] = () => qemu.socket!.destroy();
      };
      await assert.rejects(migrate(), { code: 'ended', message });
    });
  }
});

describe('cancelling what nobody watches any more', () => {
  test('brings the guest back from the switch-over', async () => {
    qemu.become('pre-switchover');
    qemu.afterwards = ['finish-migrate', 'paused'];
    await cancelMigration(qmp, clock);
    assert.deepEqual(qemu.changes, ['migrate_cancel', 'cont']);
    assert.equal(qemu.runState, 'running');
  });

  test('is refused where there is nothing to cancel, or it is too late', async () => {
    await assert.rejects(cancelMigration(qmp, clock), { code: 'not_found' });
    qemu.become('device');
    await assert.rejects(cancelMigration(qmp, clock), { code: 'in_use', message: /is being completed/ });
    assert.deepEqual(qemu.changes, []);
  });
});
