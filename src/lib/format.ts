/** How text output shows values: sizes, times, tables, colours. Programs use --json, which has bytes and ISO times. */
import type { WriteStream } from 'node:tty';

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** A size for people: `512 bytes`, `64 MiB`, `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  // Rounding can reach the next unit: 1023.99 KiB is shown as 1 MiB.
  let digits = unit === 0 ? value : Number(value.toFixed(value < 100 ? 1 : 0));
  if (digits === 1024 && unit < UNITS.length - 1) {
    digits = 1;
    unit++;
  }
  return `${digits} ${UNITS[unit]}`;
}

/** Time since an ISO time, for people: `12 s`, `5 min`, `3 h`, `2 d`. */
export function formatSince(iso: string, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((nowMs - Date.parse(iso)) / 1000));
  if (Number.isNaN(seconds)) return '-';
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** A span for people: `12 ms`, `3.5 s`, `4 min 10 s`, `3 h 5 min`, `2 d 4 h`. */
export function formatDuration(milliseconds: number): string {
  const ms = Math.max(0, Math.round(milliseconds));
  if (ms < 1000) return `${ms} ms`;
  if (ms < 10_000) return `${Number((ms / 1000).toFixed(1))} s`;
  const seconds = Math.round(ms / 1000);
  const spans: [string, number][] = [
    ['d', 86_400],
    ['h', 3600],
    ['min', 60],
    ['s', 1],
  ];
  const first = spans.findIndex(([, size]) => seconds >= size);
  let left = seconds;
  const words: string[] = [];
  for (const [unit, size] of spans.slice(first, first + 2)) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0) words.push(`${count} ${unit}`);
  }
  return words.join(' ');
}

/** Columns aligned by spaces, headings first; cells that are empty show a dash, columns that are empty everywhere go away. */
export function formatTable(headings: readonly string[], rows: readonly (readonly string[])[], style: Style = plain): string {
  const used = headings.map((_, column) => rows.some((row) => visible(row[column] ?? '') !== ''));
  const cells = rows.map((row) => headings.map((_, column) => row[column] || '-'));
  const lines = [headings.map((heading) => style.dim(heading)), ...cells].map((line) =>
    line.filter((_, column) => used[column]),
  );
  const widths = (lines[0] ?? []).map((_, column) => Math.max(...lines.map((line) => visible(line[column]).length)));
  return lines
    .map((line) => line.map((cell, column) => cell + ' '.repeat(widths[column] - visible(cell).length)).join('  '))
    .map((line) => `${line.trimEnd()}\n`)
    .join('');
}

/** The colours that we use, or none. */
export interface Style {
  bold(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  warn(text: string): string;
  bad(text: string): string;
}

const same = (text: string): string => text;
export const plain: Style = { bold: same, dim: same, good: same, warn: same, bad: same };

const sgr = (code: number) => (text: string) => (text === '' ? '' : `\x1b[${code}m${text}\x1b[0m`);
const colours: Style = { bold: sgr(1), dim: sgr(2), good: sgr(32), warn: sgr(33), bad: sgr(31) };

/** Colours on a terminal that has them; node's own rules know NO_COLOR, FORCE_COLOR and TERM=dumb. */
export function styleFor(stream: NodeJS.WriteStream): Style {
  return stream.isTTY && (stream as WriteStream).hasColors() ? colours : plain;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: a colour begins with the escape character.
const SGR = /\x1b\[\d+m/g;

function visible(text: string): string {
  return text.replace(SGR, '');
}

/** An argument as a shell takes it. */
export function shellQuote(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", "'\\''")}'`;
}
