/**
 * The process that plays the virtual machine of the benchmark: one for each candidate, the same for all. It connects once and
 * then does what its parent says (see `load-process.ts`), one thing after the other.
 */
import { once } from 'node:events';
import { RingFeature } from '../test/support/vhost-user/block-request.ts';
import { VhostUserFrontend } from '../test/support/vhost-user/frontend.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import { LoadLoop } from './load-loop.ts';
import type { LoadCommand, LoadReply, LoadResult, RunOptions } from './load-process.ts';
import { verifyDisk } from './verify.ts';

/** Buffers of a few queues at depth 16 with 1 MiB blocks fit the upper half. */
const MEMORY_BYTES = 512 * 1024 * 1024;

let vm: VhostUserFrontend | undefined;
/** Rejects when the back-end goes away: its requests would be waited for without end. */
let closed: Promise<never> = new Promise(() => {});

async function execute(command: LoadCommand): Promise<LoadResult | undefined> {
  switch (command.what) {
    case 'connect':
      vm = await VhostUserFrontend.connect(command.socketPath, { queues: command.queues, memoryBytes: MEMORY_BYTES });
      closed = once(vm.events, 'closed').then(([cause]) => Promise.reject(cause));
      closed.catch(() => {});
      if ((vm.negotiated.features & RingFeature.indirect) === 0n) throw new Error('the back-end has no indirect descriptors');
      return undefined;
    case 'verify':
      await Promise.race([verifyDisk(connected(), command.imagePath, command.bytes, command.seed), closed]);
      return undefined;
    case 'run':
      return await Promise.race([runLoad(connected(), command.options), closed]);
  }
}

async function runLoad(vm: VhostUserFrontend, options: RunOptions): Promise<LoadResult> {
  const { load, workingSetBytes, warmupMs, measureMs, seed } = options;
  for (const driver of vm.drivers) driver.stop();
  const histogram = new LatencyHistogram();
  const loops = vm.queues.map(
    (queue, i) => new LoadLoop({ memory: vm.memory, queue, load, workingSetBytes, seed: seed + i, histogram }),
  );
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  const totals = await Promise.all(loops.map((loop) => loop.run(warmupMs, measureMs)));
  const elapsedMs = performance.now() - startedAt;
  const cpu = process.cpuUsage(cpuBefore);
  for (const driver of vm.drivers) driver.start();
  const sum = (pick: (totals: { completed: number; total: number; errors: number }) => number) =>
    totals.reduce((before, one) => before + pick(one), 0);
  return {
    iops: sum(({ completed }) => completed) / (measureMs / 1000),
    p50Us: histogram.percentileUs(50),
    p99Us: histogram.percentileUs(99),
    p999Us: histogram.percentileUs(99.9),
    errors: sum(({ errors }) => errors),
    total: sum(({ total }) => total),
    driverBusy: (cpu.user + cpu.system) / 1000 / elapsedMs,
  };
}

function connected(): VhostUserFrontend {
  if (vm === undefined) throw new Error('not connected');
  return vm;
}

process.on('message', (command: LoadCommand) => {
  const answer = (reply: LoadReply) => process.send?.(reply);
  execute(command).then(
    (result) => answer({ ok: true, ...(result === undefined ? {} : { result }) }),
    (error: Error) => answer({ ok: false, error: error.message }),
  );
});
process.on('disconnect', () => process.exit());
// Ctrl-C reaches the whole process group; the parent decides.
process.on('SIGINT', () => {});
