/** Jobs in words: how far one is, how it ended, and the list of all. */
import type { JobEntry, JobProgress } from '../api/jobs.ts';
import { formatBytes, formatDuration, formatTable, type Style } from '../lib/format.ts';
import { shortTime, sinceWhen } from './words.ts';

const BAR_CHARACTERS = 20;

export function isOver({ state }: JobEntry): boolean {
  return state === 'done' || state === 'failed' || state === 'cancelled';
}

/** Of one that runs, in one line: `copying [========>           ] 42 %, 5.8 GiB left, 120 MiB/s, 12 MiB dirty, 50 s to go`. */
export function progressText(entry: JobEntry, { bar }: { bar: boolean }): string {
  const { progress } = entry;
  const what = stepOf(entry);
  if (progress === undefined) return what;
  const { totalBytes, doneBytes, dirtyBytes, bytesPerSecond, secondsLeft, reason } = progress;
  const goes = entry.state === 'running' && bytesPerSecond > 0;
  const parts =
    totalBytes === 0 || progress.phase === 'releasing'
      ? []
      : [
          `${bar ? `${barText(progress)} ` : ''}${percent(progress)} %`,
          `${formatBytes(Math.max(0, totalBytes - doneBytes))} left`,
          ...(goes ? [`${formatBytes(bytesPerSecond)}/s`] : []),
          ...(dirtyBytes > 0 ? [`${formatBytes(dirtyBytes)} dirty`] : []),
          ...(goes && secondsLeft !== undefined ? [`${formatDuration(1000 * Math.ceil(secondsLeft))} to go`] : []),
        ];
  const numbers = parts.length === 0 ? '' : `${bar ? ' ' : ': '}${parts.join(', ')}`;
  return `${what}${numbers}${reason === undefined ? '' : `${numbers === '' ? ': ' : '; '}${reason}`}`;
}

/** In a word or two. */
export function stepOf({ state, cancelling, progress }: JobEntry): string {
  if (cancelling) return 'cancelling';
  if (state !== 'running') return state;
  return progress?.phase ?? 'waiting';
}

/** Of one that is over. */
export function endText({ state, vm, name, from, to, reason, progress, createdAt, endedAt }: JobEntry): string {
  const stays = `${vm}/${name} stays ${from === undefined ? 'where it is' : `at ${from}`}`;
  switch (state) {
    case 'done': {
      const took = endedAt === undefined ? '' : ` in ${formatDuration(Date.parse(endedAt) - Date.parse(createdAt))}`;
      const copied = progress === undefined ? '' : `: ${formatBytes(progress.doneBytes)} copied${took}`;
      const stall = progress?.stallMs === undefined ? '' : `, its guest stood still for ${stallText(progress.stallMs)}`;
      return `${vm}/${name} is ${to} now${copied}${stall}`;
    }
    case 'cancelled':
      return `cancelled: ${stays}`;
    default:
      return `failed${reason === undefined ? '' : `: ${reason}`}; ${stays}`;
  }
}

/** The whole of one. */
export function describeJob(entry: JobEntry, style: Style, nowMs: number): string {
  const { id, vm, name, from, to, bytesPerSecondMax, createdAt, endedAt } = entry;
  const source = from === undefined ? '' : ` from ${from}`;
  const begun = `${style.bold(id)}: ${vm}/${name}${source} to ${to}, since ${isOver(entry) ? shortTime(createdAt, nowMs) : sinceWhen(createdAt, nowMs)}`;
  if (isOver(entry)) return `${begun}\n${shortTime(endedAt ?? '', nowMs)}: ${endText(entry)}\n`;
  const limit = bytesPerSecondMax === undefined ? '' : `at most ${formatBytes(bytesPerSecondMax)}/s\n`;
  return `${begun}\n${progressText(entry, { bar: true })}\n${limit}`;
}

export function jobTable(jobs: readonly JobEntry[], style: Style, nowMs: number): string {
  if (jobs.length === 0) return 'no jobs\n';
  return formatTable(
    ['JOB', 'ATTACHMENT', 'FROM', 'TO', 'STATE', 'DONE', 'LEFT', 'RATE', 'DIRTY', 'TO GO', 'BEGUN', 'ENDED', 'REASON'],
    jobs.map((entry) => {
      const { id, vm, name, from, to, createdAt, endedAt, progress, reason = progress?.reason } = entry;
      return [
        ...[style.bold(id), `${vm}/${name}`, from ?? '', to, stateColour(entry, style)],
        ...(isOver(entry) || progress === undefined ? ['', '', '', '', ''] : numbers(progress)),
        ...[shortTime(createdAt, nowMs), endedAt === undefined ? '' : shortTime(endedAt, nowMs), reason ?? ''],
      ];
    }),
    style,
  );
}

function numbers(progress: JobProgress): string[] {
  const { totalBytes, doneBytes, bytesPerSecond, dirtyBytes, secondsLeft } = progress;
  return [
    totalBytes === 0 ? '' : `${percent(progress)} %`,
    totalBytes === 0 ? '' : formatBytes(Math.max(0, totalBytes - doneBytes)),
    bytesPerSecond === 0 ? '' : `${formatBytes(bytesPerSecond)}/s`,
    dirtyBytes === 0 ? '' : formatBytes(dirtyBytes),
    secondsLeft === undefined ? '' : formatDuration(1000 * Math.ceil(secondsLeft)),
  ];
}

function stateColour(entry: JobEntry, style: Style): string {
  const step = stepOf(entry);
  switch (step) {
    case 'done':
      return style.good(step);
    case 'failed':
      return style.bad(step);
    case 'waiting':
    case 'paused':
      return style.warn(step);
    default:
      return step;
  }
}

/** Never 100 before it is all. */
function percent({ totalBytes, doneBytes }: JobProgress): number {
  return Math.min(100, Math.floor((100 * doneBytes) / totalBytes));
}

function barText(progress: JobProgress): string {
  const full = Math.floor((BAR_CHARACTERS * percent(progress)) / 100);
  const head = full < BAR_CHARACTERS ? '>' : '';
  return `[${`${'='.repeat(full)}${head}`.padEnd(BAR_CHARACTERS)}]`;
}

/** Short ones are what this is about. */
function stallText(ms: number): string {
  return ms < 10 ? `${Number(ms.toFixed(1))} ms` : formatDuration(ms);
}
