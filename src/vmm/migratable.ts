/** Whether a running QEMU can be migrated now, looked at before anything is changed; and the capabilities that we migrate with. */
import { NetbusError } from '../device/errors.ts';
import { isObject } from '../protocols/qmp/message.ts';
import { runState } from './machine.ts';
import { isUnderWay, migrationState } from './migration-state.ts';
import { type QmpConnection, refusalOf } from './qmp-connection.ts';

/** What QEMU has to do differently from its defaults. */
const CAPABILITIES = [
  /** It tells each step. */
  'events',
  /** It stops between the guest's stop and the rest, so that the devices can be looked at. */
  'pause-before-switchover',
  /** The destination says how it went: without it a guest that could not be loaded there would count as migrated. */
  'return-path',
] as const;

/** Capabilities by name, and whether each is on. */
export type Capabilities = ReadonlyMap<string, boolean>;

export interface Migratable {
  /** The guest runs; it is let go on where the migration does not happen. */
  readonly running: boolean;
  readonly capabilities: Capabilities;
}

/** Throws `device` or `in_use` with the reason where it cannot be migrated. Changes nothing. */
export async function checkMigratable(qmp: QmpConnection): Promise<Migratable> {
  const migration = await migrationState(qmp);
  if (isUnderWay(migration)) {
    throw new NetbusError(
      'in_use',
      `this VM is being migrated already (query-migrate: "${migration.status}"): wait for its end, or cancel it with --cancel`,
    );
  }
  const { state, word } = await runState(qmp);
  if (state === 'ended') throw new NetbusError('device', `the VM cannot be migrated: its state is "${word}" (query-status)`);
  if (migration.blockers.length > 0) {
    throw new NetbusError('device', `QEMU does not migrate this VM: ${migration.blockers.join('; ')}`);
  }
  const capabilities = await readCapabilities(qmp);
  const missing = CAPABILITIES.filter((name) => !capabilities.has(name));
  if (missing.length > 0) {
    const { major, minor, micro } = qmp.greeting.version;
    throw new NetbusError(
      'device',
      `QEMU ${major}.${minor}.${micro} cannot migrate with ${missing.join(' and ')}: use a later one`,
    );
  }
  return { running: state === 'running', capabilities };
}

export async function setCapabilities(qmp: QmpConnection): Promise<void> {
  await change(
    qmp,
    CAPABILITIES.map((capability) => ({ capability, state: true })),
  );
}

/** As it was before, for whoever migrates this VM next: a QEMU that pauses at the switch-over would wait there for ever. Never rejects. */
export async function restoreCapabilities(qmp: QmpConnection, before: Capabilities): Promise<void> {
  const states = CAPABILITIES.map((capability) => ({ capability, state: before.get(capability) ?? false }));
  await change(qmp, states).catch(() => undefined);
}

async function change(qmp: QmpConnection, capabilities: readonly { capability: string; state: boolean }[]): Promise<void> {
  await qmp.execute('migrate-set-capabilities', { capabilities });
}

async function readCapabilities(qmp: QmpConnection): Promise<Capabilities> {
  let answer: unknown;
  try {
    answer = await qmp.execute('query-migrate-capabilities');
  } catch (thrown) {
    if (refusalOf(thrown) === undefined) throw thrown;
  }
  const list = Array.isArray(answer) ? answer.filter(isObject) : [];
  return new Map(
    list.flatMap(({ capability, state }) => (typeof capability === 'string' ? [[capability, state === true]] : [])),
  );
}
