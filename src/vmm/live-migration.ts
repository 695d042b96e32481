/**
 * Drives one live migration of a running QEMU from its source's side.
 *
 *   connecting ──▶ copying ──▶ switching-over (the guest is stopped, the caller looks at its devices) ──▶ completing ──▶ the result
 *        └────────────┴───────────────┴──▶ cancelling ──▶ the guest runs here, as before
 *
 * Until `completing` whatever fails, or is given up, leaves the guest at the source. From then on the destination may have it: only QEMU knows.
 */
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { bounded, pause } from './bounded.ts';
import { checkMigratable, type Migratable, restoreCapabilities, setCapabilities } from './migratable.ts';
import { CANCEL_MS_MAX, CANCEL_PAUSE_MS, END_THE_DESTINATION, resume, wakeCancelled } from './migration-cancel.ts';
import { isUnderWay, type MigratedRam, type MigrationState, migrationState, statusOf } from './migration-state.ts';
import { type QmpConnection, refusalOf } from './qmp-connection.ts';
import type { QmpEvents } from './qmp-events.ts';

/** How long the destination may not be listening yet. */
export const CONNECT_MS_DEFAULT = 30_000;
/** Looks at a migration that is completed until it says how long it took. */
const TIMES_TRIES_MAX = 20;
const CONNECT_PAUSE_MS = 250;
/** Between looks where no event comes. */
const LOOK_MS = 500;
/** The guest is stopped meanwhile. */
export const SWITCHOVER_MS_MAX = 5_000;
/** From the switch-over to the end: what is left of the memory, the devices' states, and the destination's start. */
export const COMPLETE_MS_MAX = 120_000;

export interface MigrationProgress {
  readonly phase: 'connecting' | 'copying' | 'switching-over' | 'completing' | 'cancelling';
  readonly ram?: MigratedRam;
}

export interface LiveMigrationOptions {
  /** Where the destination's QEMU listens (-incoming). */
  readonly uri: string;
  readonly clock: Clock;
  /** Cancels it; without effect from `completing` on. */
  readonly signal?: AbortSignal;
  readonly connectMs?: number;
  /** At each change of phase, and at least every LOOK_MS. */
  readonly onProgress?: (progress: MigrationProgress) => void;
  /**
   * The guest is stopped, and its devices with it. The migration goes on when this resolves, and is cancelled where it rejects or takes longer than
   * SWITCHOVER_MS_MAX.
   */
  readonly atSwitchover: () => Promise<void>;
}

export interface MigrationResult {
  readonly totalMs: number;
  /** From the guest's stop to the end, by QEMU. */
  readonly downtimeMs: number;
  readonly transferredBytes: number;
  readonly passes: number;
}

/**
 * Resolves when the destination has the guest. Rejects with `in_use` or `device` where nothing was begun; with `ended` where it was given up; with
 * the reason of `atSwitchover`; with `device` where QEMU failed. Each says in its message whether the guest goes on here.
 */
export async function liveMigrate(qmp: QmpConnection, options: LiveMigrationOptions): Promise<MigrationResult> {
  const before = await checkMigratable(qmp);
  if (options.signal?.aborted) throw new NetbusError('ended', 'the migration was cancelled before it began; the VM stays here');
  await setCapabilities(qmp);
  const events = qmp.events();
  const migration = new LiveMigration(qmp, events, before, options);
  try {
    return await migration.run();
  } catch (thrown) {
    throw migration.atDestination ? new GuestMayHaveGone(NetbusError.from(thrown)) : thrown;
  } finally {
    events.close();
    await restoreCapabilities(qmp, before.capabilities);
  }
}

/** True where the guest may be at the destination all the same: nothing there may be taken back. */
export function mayHaveGone(thrown: unknown): boolean {
  return thrown instanceof GuestMayHaveGone;
}

class GuestMayHaveGone extends NetbusError {
  constructor({ code, message, cause }: NetbusError) {
    super(code, message, { cause });
  }
}

class LiveMigration {
  readonly #qmp: QmpConnection;
  readonly #events: QmpEvents;
  readonly #before: Migratable;
  readonly #options: LiveMigrationOptions;
  /** The destination took the connection. */
  #connected = false;
  /** QEMU stopped the guest for the switch-over. */
  #stopped = false;
  /** `migrate-continue` was sent, and when. */
  #continuedAt: number | undefined;

  /** It failed, or was cancelled, and QEMU says so. */
  #isOver = false;

  constructor(qmp: QmpConnection, events: QmpEvents, before: Migratable, options: LiveMigrationOptions) {
    this.#qmp = qmp;
    this.#events = events;
    this.#before = before;
    this.#options = options;
  }

  /** It was let go, and nothing is known of its end. */
  get atDestination(): boolean {
    return this.#continuedAt !== undefined && !this.#isOver;
  }

  async run(): Promise<MigrationResult> {
    const { clock, connectMs = CONNECT_MS_DEFAULT, signal } = this.#options;
    const connectEnd = clock.now() + connectMs;
    await this.#begin();
    for (;;) {
      const state = await this.#look();
      if (signal?.aborted && this.#continuedAt === undefined) return this.#cancel(givenUp());
      switch (state.status) {
        case 'completed':
          return resultOf(await this.#withTimes(state));
        case 'pre-switchover': {
          // Where `migrate-continue` is on its way it is not asked for again.
          const refusal = this.#continuedAt === undefined ? await this.#switchOver(state) : undefined;
          if (refusal !== undefined) return this.#cancel(refusal);
          break;
        }
        case 'none':
        case 'failed':
          await this.#heardOfFailure();
          if (this.#connected || clock.now() >= connectEnd) return this.#failed(state);
          await pause(clock, CONNECT_PAUSE_MS, signal).catch(() => undefined);
          // The guest has not noticed anything, and QEMU forgets the attempt.
          if (!signal?.aborted) await this.#begin();
          continue;
        case 'cancelled':
          throw await this.#over(new NetbusError('ended', 'the migration was cancelled at its QMP monitor'));
        case 'setup':
          if (clock.now() >= connectEnd) {
            return this.#cancel(
              new NetbusError(
                'timeout',
                `the destination did not take the connection to ${this.#options.uri} within ${connectMs / 1000} s`,
              ),
            );
          }
          break;
        case 'active':
        case 'device':
        case 'cancelling':
          break;
      }
      if (this.#continuedAt !== undefined && clock.now() - this.#continuedAt >= COMPLETE_MS_MAX) throw tooLong(state);
      await this.#change();
    }
  }

  async #begin(): Promise<void> {
    await this.#qmp.execute('migrate', { uri: this.#options.uri });
  }

  /** QEMU's state. Where QEMU does not answer it is asked to cancel, which it does when it answers again. */
  async #look(): Promise<MigrationState> {
    let state: MigrationState;
    try {
      state = await migrationState(this.#qmp);
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      if (this.#continuedAt !== undefined) {
        const advice = 'the VM may run at the destination: look there before it is started anywhere';
        throw new NetbusError(code, `${message}; ${advice}`, { cause: thrown });
      }
      if (code === 'timeout') void this.#qmp.execute('migrate_cancel').catch(() => undefined);
      throw thrown;
    }
    const { status, ram } = state;
    if (['active', 'pre-switchover', 'device'].includes(status)) this.#connected = true;
    if (['pre-switchover', 'device'].includes(status)) this.#stopped = true;
    const phase = phaseOf(status);
    if (phase !== undefined) this.#options.onProgress?.({ phase, ...(ram !== undefined && { ram }) });
    return state;
  }

  /** QEMU says that something has changed, or it is time to look. */
  async #change(): Promise<void> {
    const { signal } = this.#options;
    const cancellable = this.#continuedAt === undefined && signal !== undefined;
    try {
      await this.#nextStatus(LOOK_MS, cancellable ? signal : undefined);
    } catch (thrown) {
      const { code } = NetbusError.from(thrown);
      // The end of the connection is told by the next look.
      if (code !== 'timeout' && code !== 'ended') throw thrown;
    }
  }

  async #nextStatus(timeoutMs: number, signal?: AbortSignal): Promise<string> {
    const { data } = await this.#events.find(({ name }) => name === 'MIGRATION', { timeoutMs, ...(signal && { signal }) });
    const status = statusOf(data.status);
    if (status === 'active') this.#connected = true;
    return status;
  }

  /** What came before the failure tells whether the destination was there; its event may be a moment behind. */
  async #heardOfFailure(): Promise<void> {
    try {
      while ((await this.#nextStatus(LOOK_MS)) !== 'failed');
    } catch (thrown) {
      if (NetbusError.from(thrown).code !== 'timeout') throw thrown;
    }
  }

  /** Returns why it must not go on. */
  async #switchOver({ ram }: MigrationState): Promise<NetbusError | undefined> {
    const { atSwitchover, clock, onProgress, signal } = this.#options;
    const bounds = { timeoutMs: SWITCHOVER_MS_MAX, ...(signal && { signal }) };
    try {
      await bounded(clock, atSwitchover(), 'the look at the devices at the switch-over', bounds);
    } catch (thrown) {
      return signal?.aborted ? givenUp() : NetbusError.from(thrown);
    }
    this.#continuedAt = clock.now();
    onProgress?.({ phase: 'completing', ...(ram !== undefined && { ram }) });
    try {
      await this.#qmp.execute('migrate-continue', { state: 'pre-switchover' });
    } catch (thrown) {
      // It has failed or was cancelled meanwhile: the next look tells.
      if (refusalOf(thrown) === undefined) throw thrown;
    }
    return undefined;
  }

  async #failed({ error, status }: MigrationState): Promise<never> {
    const { uri } = this.#options;
    const what = this.#connected ? 'the migration failed' : `the destination could not be reached at ${uri}`;
    const why =
      error ?? (status === 'none' ? 'QEMU forgot it' : 'QEMU does not say why; see the log of the QEMU at the destination');
    throw await this.#over(new NetbusError(this.#connected ? 'device' : 'unreachable', `${what}: ${why}`));
  }

  async #cancel(reason: NetbusError): Promise<MigrationResult> {
    const { clock, onProgress } = this.#options;
    onProgress?.({ phase: 'cancelling' });
    await this.#qmp.execute('migrate_cancel');
    const end = clock.now() + CANCEL_MS_MAX;
    for (;;) {
      const state = await migrationState(this.#qmp);
      // Another client let it go on.
      if (state.status === 'completed') return resultOf(state);
      if (!isUnderWay(state)) throw await this.#over(reason);
      if (clock.now() >= end) {
        throw new NetbusError(
          'timeout',
          `${reason.message}; QEMU did not cancel the migration within ${CANCEL_MS_MAX / 1000} s`,
        );
      }
      await pause(clock, CANCEL_PAUSE_MS);
      if (state.status === 'cancelling') await wakeCancelled(this.#qmp);
    }
  }

  /** QEMU says that it is completed a moment before it knows how long it took. */
  async #withTimes(completed: MigrationState): Promise<MigrationState> {
    let state = completed;
    for (let tries = 0; !state.totalMs && tries < TIMES_TRIES_MAX; tries++) {
      await pause(this.#options.clock, CANCEL_PAUSE_MS);
      state = await migrationState(this.#qmp);
    }
    return state;
  }

  /** It did not happen: the guest goes on here. Returns the error with what became of it. */
  async #over(reason: NetbusError): Promise<NetbusError> {
    this.#isOver = true;
    if (!this.#before.running)
      return new NetbusError(reason.code, `${reason.message}; the VM is here, stopped as before`, { cause: reason });
    try {
      await resume(this.#qmp, this.#options.clock, this.#stopped);
      return new NetbusError(reason.code, `${reason.message}; the VM goes on here`, { cause: reason });
    } catch (thrown) {
      const { message } = NetbusError.from(thrown);
      return new NetbusError(reason.code, `${reason.message}; the VM does not run here: ${message}`, { cause: thrown });
    }
  }
}

function phaseOf(status: MigrationState['status']): MigrationProgress['phase'] | undefined {
  switch (status) {
    case 'setup':
      return 'connecting';
    case 'active':
      return 'copying';
    case 'pre-switchover':
      return 'switching-over';
    case 'device':
      return 'completing';
    case 'cancelling':
      return 'cancelling';
    default:
      return undefined;
  }
}

function resultOf({ totalMs = 0, downtimeMs = 0, ram }: MigrationState): MigrationResult {
  return { totalMs, downtimeMs, transferredBytes: ram?.transferredBytes ?? 0, passes: ram?.passes ?? 0 };
}

function givenUp(): NetbusError {
  return new NetbusError('ended', 'the migration was cancelled');
}

function tooLong({ status }: MigrationState): NetbusError {
  return new NetbusError(
    'timeout',
    `the migration was not completed within ${COMPLETE_MS_MAX / 1000} s of the switch-over ("${status}"): ${END_THE_DESTINATION}`,
  );
}
