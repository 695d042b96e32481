/** Times as people type them: a span (`90s`, `15min`, `1h`, `2d`), or for `--since` a time, too. */
import { NetbusError } from '../device/errors.ts';

const unitMs: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

/** Milliseconds of a span; undefined where it is none. */
export function parseSpan(text: string): number | undefined {
  const span = /^(\d{1,9})\s*([a-z]+)$/.exec(text);
  return span !== null && Object.hasOwn(unitMs, span[2]) ? Number(span[1]) * unitMs[span[2]] : undefined;
}

/** Milliseconds since 1970. A time without a zone is local; one without a day is of today. Throws `usage`. */
export function parseSince(text: string, nowMs: number): number {
  const spanMs = parseSpan(text);
  if (spanMs !== undefined) return Math.max(0, nowMs - spanMs);
  const found = parseTime(text, new Date(nowMs));
  if (found !== undefined && !Number.isNaN(found)) return Math.max(0, found);
  throw new NetbusError(
    'usage',
    `--since "${text}": say how long ago (90s, 15min, 1h, 2d) or when (14:03, 2030-01-31, "2030-01-31 14:03:12", 2030-01-31T14:03:12Z)`,
  );
}

function parseTime(text: string, now: Date): number | undefined {
  const time = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(text);
  if (time !== null) {
    const [hours, minutes, seconds] = [Number(time[1]), Number(time[2]), Number(time[3] ?? 0)];
    if (hours > 23 || minutes > 59 || seconds > 59) return undefined;
    return new Date(now.getFullYear(), now.getMonth(), now.getDate(), hours, minutes, seconds).getTime();
  }
  // A day alone would be one of UTC.
  if (/^\d{4}-\d{2}-\d{2}$/.test(text)) return Date.parse(`${text}T00:00:00`);
  if (/^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?$/.test(text))
    return Date.parse(text.replace(' ', 'T'));
  return undefined;
}
