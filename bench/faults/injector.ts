/** How each fault is done, and undone. */
import { CLEAR_WIRE, type WireConditions } from '../../test/support/tcp-proxy.ts';
import { waitFor } from '../../test/support/wait.ts';
import { pathBetween } from '../../test/support/wired-cluster.ts';
import type { PlannedFault } from './schedule.ts';
import { DEVICE_HOST, MACHINE_HOST, type SmallDisk, type Stage, VM_HOST } from './stage.ts';

/** Ends a fault's cause; resolves when it is gone. */
export type EndFault = () => Promise<void>;

const DELAY_MS = [20, 200] as const;
const BYTES_PER_SECOND = [128 * 1024, 2 * 1024 * 1024] as const;
/** A full disk has to say so within this time, which other faults may lengthen. */
const EXPECTED_ERROR_MS_MAX = 60_000;

export class Injector {
  readonly #stage: Stage;
  /** Faults of the wire that go on, by path. */
  readonly #onWire = new Map<string, Set<Partial<WireConditions>>>();
  /** Starts and ends of a host's daemon go one after the other. */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  /** Does the fault. `durationMs` is the caller's. */
  async begin({ kind, dice }: PlannedFault): Promise<EndFault> {
    switch (kind) {
      case 'cut':
        return this.#wire({ cut: true });
      case 'half-open':
        return this.#wire({ halfOpen: true });
      case 'stall':
        return this.#wire({ stalled: true });
      case 'delay':
        return this.#wire({ delayMs: between(DELAY_MS, dice) });
      case 'throttle':
        return this.#wire({ bytesPerSecond: between(BYTES_PER_SECOND, dice) });
      case 'kill-vm-side':
        return this.#kill(VM_HOST);
      case 'kill-device-side':
        return this.#kill(DEVICE_HOST);
      case 'stop-continue':
        return this.#stop(dice < 0.5 ? VM_HOST : DEVICE_HOST);
      case 'device-host-power-loss':
        return this.#losePower(dice < 0.5 ? { cut: true } : { halfOpen: true });
      case 'disk-full':
      case 'io-error':
        return this.#fill(this.#stage.smallDisks.get(kind)!);
    }
  }

  async #wire(
    conditions: Partial<WireConditions>,
    path = pathBetween(DEVICE_HOST, VM_HOST),
    begun: () => Promise<void> = async () => {},
  ): Promise<EndFault> {
    const faults = this.#onWire.get(path) ?? new Set();
    this.#onWire.set(path, faults);
    faults.add(conditions);
    await this.#stage.wire.set(path, combine(faults));
    await begun();
    return async () => {
      faults.delete(conditions);
      await this.#stage.wire.set(path, combine(faults));
    };
  }

  async #kill(host: string): Promise<EndFault> {
    const turn = this.#turns.get(host) ?? Promise.resolve();
    let done = (): void => {};
    this.#turns.set(
      host,
      turn.then(() => new Promise<void>((resolve) => (done = resolve))),
    );
    await turn;
    const daemon = this.#stage.cluster.daemon(host);
    daemon.signal('SIGKILL');
    await daemon.exited;
    return async () => {
      await this.#stage.startDaemon(host);
      done();
    };
  }

  async #stop(host: string): Promise<EndFault> {
    const daemon = this.#stage.cluster.daemon(host);
    daemon.signal('SIGSTOP');
    return async () => daemon.signal('SIGCONT');
  }

  /** A host without power answers nobody: its network is cut, or silent, until its daemon is back. */
  async #losePower(silence: Partial<WireConditions>): Promise<EndFault> {
    const machine = this.#stage.machine!;
    const endSilence = await this.#wire(silence, pathBetween(MACHINE_HOST, VM_HOST));
    const endOther = await this.#wire(silence, pathBetween(MACHINE_HOST, DEVICE_HOST));
    await machine.losePower();
    return async () => {
      await machine.boot();
      await endOther();
      await endSilence();
    };
  }

  /** Half of the disk gets holes again, and no room to fill them: writes there have to fail. */
  async #fill(disk: SmallDisk): Promise<EndFault> {
    const { writer } = disk;
    if (!(await writer.pause(EXPECTED_ERROR_MS_MAX))) throw new Error(`${writer.name} cannot be paused before it is filled`);
    await writer.discardFrom(writer.ledger.blocks / 2);
    await disk.fill();
    const before = writer.errorCount;
    writer.resume();
    await waitFor('an error of the full disk', () => writer.errorCount > before, EXPECTED_ERROR_MS_MAX);
    return () => disk.clear();
  }
}

function combine(faults: ReadonlySet<Partial<WireConditions>>): WireConditions {
  let conditions = CLEAR_WIRE;
  for (const fault of faults) conditions = { ...conditions, ...fault };
  return conditions;
}

function between([least, most]: readonly [number, number], dice: number): number {
  return Math.round(least + (most - least) * dice);
}
