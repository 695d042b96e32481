/** The hot-swaps of this host, where the daemon makes them: each has its place in the path of its virtual device as long as it runs. */
import type { SessionFilter } from './attachment.ts';
import type { Attachments } from './attachments.ts';
import type { MakeJob } from './job.ts';
import { dirtyMapPath } from './paths.ts';
import { SwapJob, type SwapJobOptions } from './swap-job.ts';

export interface SwapsOptions
  extends Pick<SwapJobOptions, 'deviceHost' | 'membershipAt' | 'forgets' | 'bootId' | 'allocate' | 'maps' | 'clock' | 'log'> {
  readonly runDir: string;
  readonly attachments: () => Attachments;
}

export class Swaps {
  readonly #options: SwapsOptions;
  readonly #running = new Set<SwapJob>();

  constructor(options: SwapsOptions) {
    this.#options = options;
  }

  readonly makeJob: MakeJob = ({ record }) => {
    const { vm, name } = record.value;
    const { attachments, runDir, ...options } = this.#options;
    const mapPath = dirtyMapPath(runDir, vm, name);
    const job: SwapJob = new SwapJob({
      ...{ ...options, record, mapPath },
      attachment: () => attachments().find(vm, name),
      onOver: () => this.#running.delete(job),
    });
    this.#running.add(job);
    return job;
  };

  /** The one that works on a virtual device. */
  of(vm: string, name: string): { id: string; filter: SessionFilter } | undefined {
    for (const job of this.#running) {
      const { record } = job;
      if (record.vm === vm && record.name === name) return { id: record.id, filter: job.filter };
    }
    return undefined;
  }

  /** The daemon ends: none waits for an answer any more. */
  end(): void {
    for (const job of this.#running) job.endWaiting();
  }
}
