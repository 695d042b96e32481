/** How the verbs show times, spans and rates. Sizes, tables and colours are in src/lib/format.ts, which the daemon uses, too. */
import { formatBytes, formatDuration } from '../lib/format.ts';

/** Local time, in the order that sorts: `2030-01-31 14:03:12`. */
export function localTime(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? '-' : `${localDay(date)} ${clockTime(date)}`;
}

/** Local time, without the day where that is today. */
export function shortTime(iso: string, nowMs: number): string {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return '-';
  return localDay(date) === localDay(new Date(nowMs)) ? clockTime(date) : localTime(iso);
}

/** `14:03:12 (35 s)`: since when, and how long that is. */
export function sinceWhen(iso: string, nowMs: number): string {
  return `${shortTime(iso, nowMs)} (${span(iso, nowMs)})`;
}

/** From then until now: whole seconds, because a clock of another part is compared. */
export function span(iso: string, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((nowMs - Date.parse(iso)) / 1000));
  return Number.isNaN(seconds) ? '-' : seconds === 0 ? '0 s' : formatDuration(1000 * seconds);
}

/** How long a guest waits for a device that is away. */
export function holdTime(holdMs: number | undefined): string {
  if (holdMs === undefined) return 'forever';
  return holdMs === 0 ? '0' : formatDuration(holdMs);
}

/** `1200/s, 4.7 MiB/s`. */
export function perSecond(requests: number, bytes?: number): string {
  if (requests === 0) return '';
  return bytes === undefined ? `${requests}/s` : `${requests}/s, ${formatBytes(bytes)}/s`;
}

/** Half of the requests, and 99 of 100: `0.12 / 0.8 ms`. */
export function quantiles({ p50Ms, p99Ms }: { p50Ms?: number; p99Ms?: number }): string {
  return p50Ms === undefined || p99Ms === undefined ? '' : `${p50Ms} / ${p99Ms} ms`;
}

function localDay(date: Date): string {
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

function clockTime(date: Date): string {
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}
