/** `netbus daemon`: a daemon as a process, with its signals and its log. */
import packageJson from '../../package.json' with { type: 'json' };
import { NetbusError } from '../device/errors.ts';
import { formatAddress } from '../lib/address.ts';
import { systemClock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { type Config, loadConfig } from './config.ts';
import { type Daemon, startDaemon } from './daemon.ts';
import { createLog } from './log.ts';
import { ServiceManager } from './notify.ts';

/** Signals that end a daemon in order; a second one ends it now. */
const endSignals = ['SIGTERM', 'SIGINT'] as const;
/** After everything was closed nothing keeps the process alive; what does is a bug, and must not keep it. */
const LINGER_MS_MAX = 2_000;

export interface RunDaemonOptions {
  /** The config file. */
  readonly config: string;
  /** Instead of the config's. */
  readonly runDir?: string;
  readonly stateDir?: string;
}

/**
 * Runs a daemon until it is told to end. Resolves when everything is closed; rejects with a NetbusError where it cannot start. Takes over the
 * process: its signals, and what is thrown past everybody.
 */
export async function runDaemon(options: RunDaemonOptions): Promise<void> {
  const loaded = loadConfig(options.config);
  const { runDir = loaded.runDir, stateDir = loaded.stateDir } = options;
  const config: Config = { ...loaded, runDir, stateDir };
  const log = createLog({ host: config.host, level: config.log.level });
  const removeHandler = endOnBug(log);
  const signals = new Signals(log);
  const serviceManager = new ServiceManager({ environment: process.env, pid: process.pid, clock: systemClock, log });
  try {
    const daemon = await startDaemon({ config, log, clock: systemClock, release: packageJson.version });
    serviceManager.ready(`host ${config.host} of cluster ${config.cluster}, listening at ${formatAddress(config.listen)}`);
    signals.onReload = () => void serviceManager.duringReload(() => reload(daemon, log));
    const signal = await signals.first;
    log.info({ signal }, 'daemon stopping');
    serviceManager.stopping('ending: requests that were taken are answered, guests wait');
    await daemon.close();
    log.info({}, 'daemon stopped');
  } catch (thrown) {
    serviceManager.status(NetbusError.from(thrown).message);
    throw thrown;
  } finally {
    serviceManager.close();
    signals.close();
    removeHandler();
  }
  const timer = setTimeout(() => {
    log.error({ resources: process.getActiveResourcesInfo() }, 'something was left open: the process is ended');
    process.exit(0);
  }, LINGER_MS_MAX);
  timer.unref();
}

/** SIGHUP: certificate and key were replaced. Nothing ends for it, and where they are wrong those of before stay. */
async function reload(daemon: Daemon, log: Log): Promise<void> {
  try {
    await daemon.reload();
  } catch (thrown) {
    log.error({ reason: NetbusError.from(thrown).message }, 'certificate and key were not taken anew: those of before stay');
  }
}

class Signals {
  /** Called for each SIGHUP. One that comes before the daemon is up asks for what happens anyway. */
  onReload: () => void = () => {};
  /** Resolves with the first one. */
  readonly first: Promise<string>;
  readonly #log: Log;
  #tell!: (signal: string) => void;
  #told = false;

  constructor(log: Log) {
    this.#log = log;
    this.first = new Promise((resolve) => {
      this.#tell = resolve;
    });
    for (const signal of endSignals) process.on(signal, this.#received);
    process.on('SIGHUP', this.#hangUp);
  }

  close(): void {
    for (const signal of endSignals) process.off(signal, this.#received);
    process.off('SIGHUP', this.#hangUp);
  }

  #hangUp = (): void => this.onReload();

  #received = (signal: string): void => {
    if (this.#told) {
      this.#log.warn({ signal }, 'second signal: the daemon ends now');
      process.exit(1);
    }
    this.#told = true;
    this.#tell(signal);
  };
}

/** A state that nobody foresaw is not one to go on in: the record and the guests' rings are where a new start finds them. */
function endOnBug(log: Log): () => void {
  const end = (error: unknown, origin: string) => {
    log.error({ error, origin }, 'a bug: the daemon ends');
    process.exit(1);
  };
  process.on('uncaughtException', end);
  return () => process.off('uncaughtException', end);
}
