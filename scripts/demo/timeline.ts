/** What a guest got done over time, and what happened meanwhile: as text, and as a picture (SVG). */

import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { longestGapMs } from '../../test/support/gaps.ts';

/** Something that happened, on the demo's clock. */
export interface Happening {
  readonly what: string;
  readonly fromMs: number;
  readonly toMs: number;
}

export interface Timeline {
  /** When the guest finished each piece of work, in order. */
  readonly doneAtMs: readonly number[];
  readonly happenings: readonly Happening[];
  readonly endMs: number;
  /** One piece is done after the other, and how long the slowest took at each time is shown, too. */
  readonly showsSlowest?: true;
}

/** Columns of the text. */
const COLUMNS = 96;
const LEVELS = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const WIDTH = 1200;
const CHART_HEIGHT = 220;
const SLOWEST_HEIGHT = 110;
const MARGIN = 40;
const LANE_HEIGHT = 22;
const COLOURS = ['#c0392b', '#d68910', '#7d3c98', '#2471a3', '#117a65'];

/** The longest time without a finished piece that overlaps a happening, or begins within `afterMs` of its end. */
export function pauseMs({ doneAtMs, endMs }: Timeline, { fromMs, toMs }: Happening, afterMs = 0): number {
  return longestGapMs([0, ...doneAtMs, endMs], { fromMs, toMs: toMs + afterMs });
}

/** One line of bars, as high as the work that was done in each column's time, and a line for each happening below. */
export function textTimeline(timeline: Timeline): string {
  const { happenings, endMs } = timeline;
  const charts = [`│${textBars(histogram(timeline, COLUMNS))}│ files copied and verified`];
  if (timeline.showsSlowest) {
    const times = slowest(timeline, COLUMNS);
    charts.push(`│${textBars(times)}│ the slowest of them, up to ${Math.round(Math.max(...times))} ms`);
  }
  const column = (ms: number) => Math.min(COLUMNS - 1, Math.floor((ms / endMs) * COLUMNS));
  const lanes = happenings.map((happening) => {
    const [from, to] = [column(happening.fromMs), column(happening.toMs)];
    return `│${' '.repeat(from)}${'━'.repeat(to - from + 1)}${' '.repeat(COLUMNS - 1 - to)}│ ${happening.what}`;
  });
  const scale = `0 s${`${(endMs / 1000).toFixed(0)} s`.padStart(COLUMNS - 1)}`;
  return [...charts, ...lanes, scale].join('\n');
}

function textBars(values: readonly number[]): string {
  const most = Math.max(1, ...values);
  const level = (value: number) => (value === 0 ? 0 : Math.max(1, Math.round((value / most) * (LEVELS.length - 1))));
  return values.map((value) => LEVELS[level(value)]).join('');
}

/** The same as a picture that needs nothing else. */
export function svgTimeline(timeline: Timeline, title: string): string {
  const { happenings, endMs } = timeline;
  const inner = WIDTH - 2 * MARGIN;
  const x = (ms: number) => MARGIN + (ms / endMs) * inner;
  const charts = [{ values: histogram(timeline, inner / 4), heightPx: CHART_HEIGHT, what: '' }];
  if (timeline.showsSlowest) {
    const values = slowest(timeline, inner / 4);
    charts.push({ values, heightPx: SLOWEST_HEIGHT, what: `the slowest file, up to ${Math.round(Math.max(...values))} ms` });
  }
  const bottom = charts.reduce((y, { heightPx }) => y + heightPx + MARGIN, 0);
  const height = bottom + MARGIN + happenings.length * LANE_HEIGHT + MARGIN;
  const parts: string[] = [];
  for (const [i, { what, fromMs, toMs }] of happenings.entries()) {
    const colour = COLOURS[i % COLOURS.length]!;
    const width = Math.max(2, x(toMs) - x(fromMs));
    const lane = bottom + MARGIN + i * LANE_HEIGHT;
    parts.push(rectangle(x(fromMs), MARGIN, width, bottom - MARGIN, colour, 0.15));
    parts.push(rectangle(x(fromMs), lane, width, LANE_HEIGHT - 6, colour, 1));
    parts.push(
      label(x(fromMs) > WIDTH / 2 ? x(fromMs) - 6 : x(toMs) + 6, lane + 13, what, x(fromMs) > WIDTH / 2 ? 'end' : 'start'),
    );
  }
  let base = 0;
  for (const { values, heightPx, what } of charts) {
    base += MARGIN + heightPx;
    const most = Math.max(1, ...values);
    for (const [i, value] of values.entries()) {
      const bar = (value / most) * heightPx;
      if (value > 0) parts.push(rectangle(MARGIN + i * 4, base - bar, 3, bar, '#2e4053', 1));
    }
    if (what !== '') parts.push(label(MARGIN, base - heightPx - 6, what, 'start'));
  }
  for (let ms = 0; ms <= endMs; ms += 10_000) parts.push(label(x(ms), bottom + 16, `${ms / 1000} s`, 'middle'));
  parts.push(label(MARGIN, MARGIN - 14, title, 'start'));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="13">`,
    rectangle(0, 0, WIDTH, height, '#ffffff', 1),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

/** Puts a timeline into a file of its own, which stays. Returns its path. */
export function writePicture(name: string, timeline: Timeline, title: string): string {
  const path = join(mkdtempSync(join(tmpdir(), `netbus-${name}-`)), `${name}.svg`);
  writeFileSync(path, svgTimeline(timeline, title));
  return path;
}

/** How much was finished in each of `columns` equal parts of the time. */
function histogram({ doneAtMs, endMs }: Timeline, columns: number): number[] {
  const counts = new Array<number>(columns).fill(0);
  for (const at of doneAtMs) {
    const column = Math.min(columns - 1, Math.floor((at / endMs) * columns));
    counts[column] = counts[column]! + 1;
  }
  return counts;
}

/** How long the slowest piece took that was under way in each of `columns` equal parts of the time, in milliseconds. */
function slowest({ doneAtMs, endMs }: Timeline, columns: number): number[] {
  const longest = new Array<number>(columns).fill(0);
  const column = (ms: number) => Math.min(columns - 1, Math.floor((ms / endMs) * columns));
  for (const [i, at] of doneAtMs.entries()) {
    const begunAt = doneAtMs[i - 1] ?? at;
    for (let place = column(begunAt); place <= column(at); place++) longest[place] = Math.max(longest[place]!, at - begunAt);
  }
  return longest;
}

function rectangle(x: number, y: number, width: number, height: number, colour: string, opacity: number): string {
  const numbers = `x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}"`;
  return `<rect ${numbers} fill="${colour}" fill-opacity="${opacity}"/>`;
}

function label(x: number, y: number, text: string, anchor: 'start' | 'middle' | 'end'): string {
  return `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}">${escaped(text)}</text>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
