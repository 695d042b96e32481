/** Two real QEMUs, which run no guest, on one machine: what they do at each step of a migration that is driven over QMP. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import type { NetbusError } from '../../src/device/errors.ts';
import { systemClock } from '../../src/lib/clock.ts';
import {
  cancelMigration,
  type LiveMigrationOptions,
  liveMigrate,
  type MigrationProgress,
} from '../../src/vmm/live-migration.ts';
import { runState } from '../../src/vmm/machine.ts';
import { Cleanup } from '../support/cleanup.ts';
import { connectQmp, type IdleQemu, startIdleQemu } from '../support/idle-qemu.ts';
import { waitFor } from '../support/wait.ts';

const cleanup = new Cleanup();
const folder = mkdtempSync(join(tmpdir(), 'nb-pair-'));
after(async () => {
  await cleanup.run();
  rmSync(folder, { recursive: true });
});

const machines: IdleQemu[] = [];
let number = 0;
let uri: string;

async function start(...argv: readonly string[]): Promise<IdleQemu> {
  const machine = await startIdleQemu(join(folder, `qmp-${number++}`), cleanup, ...argv);
  machines.push(machine);
  return machine;
}

const startDestination = (...argv: readonly string[]) => start('-incoming', uri, ...argv);

beforeEach(() => {
  // One that was used is still there.
  uri = `unix:${join(folder, `incoming-${number++}`)}`;
});
afterEach(async () => {
  for (const { qmp, process } of machines.splice(0)) {
    qmp.close();
    await process.stop();
  }
});

function migrate({ qmp }: IdleQemu, options: Partial<LiveMigrationOptions> = {}) {
  return liveMigrate(qmp, { uri, clock: systemClock, atSwitchover: async () => {}, ...options });
}

const word = async ({ qmp }: IdleQemu) => (await runState(qmp)).word;

describe('a real pair', () => {
  test('migrates: the guest runs there and no longer here', async () => {
    const [source, destination] = await Promise.all([start(), startDestination()]);
    const phases: MigrationProgress[] = [];
    let stopped = '';
    const result = await migrate(source, {
      onProgress: (progress) => phases.push(progress),
      atSwitchover: async () => {
        stopped = `${await word(source)}, ${await word(destination)}`;
      },
    });
    assert.equal(stopped, 'finish-migrate, inmigrate');
    assert.equal(await word(source), 'postmigrate');
    assert.equal(await word(destination), 'running');
    assert.ok(result.totalMs >= result.downtimeMs && result.transferredBytes > 0 && result.passes >= 1, JSON.stringify(result));
    assert.ok(phases.some(({ ram }) => ram !== undefined && ram.totalBytes >= 32 * 1024 * 1024));
  });

  test('a destination that comes later is waited for', async () => {
    const source = await start();
    const migrated = migrate(source);
    const destination = await startDestination();
    await migrated;
    assert.equal(await word(destination), 'running');
  });

  test('a destination that never comes: the guest goes on here', async () => {
    const source = await start();
    await assert.rejects(migrate(source, { connectMs: 2_000 }), ({ code, message }: NetbusError) => {
      // A machine that is slow may not even have tried by then.
      assert.ok(['unreachable', 'timeout'].includes(code), code);
      return /^the destination .*; the VM goes on here$/.test(message);
    });
    assert.equal(await word(source), 'running');
  });

  test('cancelled at the switch-over, and migrated by the next attempt', async () => {
    const source = await start();
    const first = await startDestination();
    const atSwitchover = async () => {
      throw new Error('no');
    };
    await assert.rejects(migrate(source, { atSwitchover }), { message: /; the VM goes on here/ });
    assert.equal(await word(source), 'running');
    await first.process.stop();
    rmSync(uri.slice('unix:'.length), { force: true });
    const destination = await startDestination();
    await migrate(source);
    assert.equal(await word(destination), 'running');
  });

  test('cancelled while it copies', async () => {
    const [source] = await Promise.all([start(), startDestination()]);
    // So slow that it is still at it.
    await source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 1024 });
    const controller = new AbortController();
    const onProgress = ({ phase }: MigrationProgress) => phase === 'copying' && controller.abort();
    await assert.rejects(migrate(source, { signal: controller.signal, onProgress }), {
      code: 'ended',
      message: 'the migration was cancelled; the VM goes on here',
    });
    assert.equal(await word(source), 'running');
  });

  test('a destination that is killed at the switch-over: the guest goes on here', async () => {
    const [source, destination] = await Promise.all([start(), startDestination()]);
    const atSwitchover = async () => {
      destination.process.signal('SIGKILL');
      await destination.process.exited;
    };
    await assert.rejects(migrate(source, { atSwitchover }), {
      code: 'device',
      message: /the migration failed: .*; the VM goes on here/,
    });
    assert.equal(await word(source), 'running');
  });

  test('a destination with other devices refuses the guest, which goes on here', async () => {
    const [source] = await Promise.all([start('-device', 'virtio-rng-pci'), startDestination()]);
    await assert.rejects(migrate(source), { code: 'device', message: /; the VM goes on here/ });
    assert.equal(await word(source), 'running');
  });

  test('one whose driver was killed at the switch-over is cancelled by another', async () => {
    const [source] = await Promise.all([start(), startDestination()]);
    const atSwitchover = () => {
      // What the kernel does with the sockets of a program that was killed.
      source.qmp.close();
      return new Promise<void>(() => {});
    };
    migrate(source, { atSwitchover }).catch(() => undefined);
    const qmp = await connectQmp(source.monitor);
    machines.push({ ...source, qmp });
    await waitFor('the switch-over', async () => (await runState(qmp)).word === 'finish-migrate');
    await cancelMigration(qmp, systemClock);
    assert.equal((await runState(qmp)).word, 'running');
  });
});
