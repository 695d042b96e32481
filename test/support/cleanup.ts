/**
 * What has to be undone when a test or the demo ends, however it ends. Processes, hosts and guests register here; the owner
 * calls `run` at its own end, and the signals that end a program do it too.
 */

type Undo = () => void | Promise<void>;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Longest time that the actions may take after a signal, in milliseconds; then the process ends all the same. */
const SIGNAL_CLEANUP_MS_MAX = 60_000;

export class Cleanup {
  readonly #actions: { what: string; undo: Undo }[] = [];
  #running: Promise<void> | undefined;
  #endedBy: NodeJS.Signals | undefined;

  /** Takes the signals that end a program, until `run` has ended. */
  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  /**
   * Registers an action. Returns a function that forgets it, for what was undone before its time. After a signal nothing new
   * may begin (the next test of a file, for example): then the action is run at once, and this throws.
   */
  add(what: string, undo: Undo): () => void {
    if (this.#endedBy !== undefined) {
      Promise.resolve(undo()).catch((error: unknown) => console.error(String(error)));
      throw new Error(`ending by ${this.#endedBy}`);
    }
    const action = { what, undo };
    this.#actions.push(action);
    return () => {
      const index = this.#actions.indexOf(action);
      if (index !== -1) this.#actions.splice(index, 1);
    };
  }

  /**
   * Runs all actions, the last registered first, each also where another failed. Throws an AggregateError of the failures at
   * the end. May be called twice; calls during a run wait for it.
   */
  run(): Promise<void> {
    this.#running ??= this.#runAll().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #runAll(): Promise<void> {
    const failures: unknown[] = [];
    for (let action = this.#actions.pop(); action !== undefined; action = this.#actions.pop()) {
      try {
        await action.undo();
      } catch (error) {
        failures.push(new Error(`could not clean up ${action.what}`, { cause: error }));
      }
    }
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
    if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join('; '));
  }

  /** Cleans up, then dies of the same signal, so that the parent sees how the program ended. */
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    if (this.#endedBy !== undefined) return;
    this.#endedBy = signal;
    const bound = setTimeout(() => process.exit(1), SIGNAL_CLEANUP_MS_MAX);
    this.run()
      .catch((error: unknown) => console.error(String(error)))
      .finally(() => {
        clearTimeout(bound);
        process.kill(process.pid, signal);
      });
  };
}
