/** Stays with a job until it is over. The daemon does it, so whoever stops watching stops nothing. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { JobEntry } from '../api/jobs.ts';
import { NetbusError } from '../device/errors.ts';
import { systemClock } from '../lib/clock.ts';
import type { Context } from './context.ts';
import { endText, isOver, progressText, stepOf } from './job-text.ts';

/** A short job has its answer soon, and a long one is not asked for all the time. */
const POLL_MS_FIRST = 100;
const POLL_MS_TERMINAL = 500;
const POLL_MS_PIPE = 2_000;

/** Resolves with the entry of one that is done. Throws how it ended otherwise. `onEntry` is told of each look. Ctrl-C leaves it running, and says so. */
export async function watchJob(
  context: Context,
  begun: JobEntry,
  onEntry: (entry: JobEntry) => void = () => {},
): Promise<JobEntry> {
  const { id } = begun;
  const { client } = context;
  const progress = context.progress();
  context.interruptible().addEventListener('abort', () => {
    progress?.end();
    const message = `job ${id} goes on: "netbus job ${id} --watch" shows it, "netbus job ${id} --cancel" ends it`;
    context.endInterrupted(new NetbusError('ended', message));
  });
  const pollMsMax = process.stderr.isTTY ? POLL_MS_TERMINAL : POLL_MS_PIPE;
  const beganAt = systemClock.now();
  let entry = begun;
  try {
    for (let pollMs = POLL_MS_FIRST; ; pollMs = Math.min(2 * pollMs, pollMsMax)) {
      onEntry(entry);
      if (isOver(entry)) break;
      progress?.at(stepOf(entry), progressText(entry, { bar: process.stderr.isTTY }), systemClock.now() - beganAt);
      await sleep(pollMs);
      entry = await client.job(id);
    }
  } catch (thrown) {
    const { code, message } = NetbusError.from(thrown);
    if (code !== 'unreachable') throw thrown;
    throw new NetbusError(code, `${message}; job ${id} goes on with the daemon: "netbus job ${id} --watch"`, { cause: thrown });
  } finally {
    progress?.end();
  }
  switch (entry.state) {
    case 'failed':
      throw new NetbusError(entry.code ?? 'device', `job ${id} ${endText(entry)}`);
    case 'cancelled':
      throw new NetbusError('ended', `job ${id} was ${endText(entry)}`);
    default:
      return entry;
  }
}
