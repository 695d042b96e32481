import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pauseMs, svgTimeline, type Timeline, textTimeline } from './timeline.ts';

const cut = { what: 'the network <is> cut', fromMs: 2000, toMs: 4000 };
const timeline: Timeline = { doneAtMs: [500, 1000, 1900, 4300, 5000, 9900], happenings: [cut], endMs: 10_000 };

test('the longest gap of a happening is the one around it, not any other', () => {
  assert.equal(pauseMs(timeline, cut), 2400);
  assert.equal(pauseMs(timeline, { what: '', fromMs: 6000, toMs: 6000 }), 4900);
});

test('text: bars where there was work, a line where something happened', () => {
  const [bars, lane, scale] = textTimeline(timeline).split('\n');
  assert.match(bars!, /^│ +█.* files copied and verified$/);
  assert.match(lane!, /^│ {19}━{20} +│ the network <is> cut$/);
  assert.match(scale!, /^0 s +10 s$/);
  // Nothing was done while it was cut.
  assert.equal(bars!.slice(21, 39).trim(), '');
});

test('the slowest piece at each time is shown where that is wanted', () => {
  const [, slowest] = textTimeline({ ...timeline, showsSlowest: true }).split('\n');
  // It is the last one, which takes half of the time.
  assert.match(slowest!, /^│ +.*█{48}│ the slowest of them, up to 4900 ms$/u);
  const svg = svgTimeline({ ...timeline, showsSlowest: true }, 'A');
  assert.match(svg, />the slowest file, up to 4900 ms<\/text>/);
  assert.equal(svg.match(/<(rect|text)/g)!.length, svg.match(/\/>|<\/text>/g)!.length);
});

test('SVG: well-formed, with what happened in it', () => {
  const svg = svgTimeline(timeline, 'A & B');
  assert.match(svg, /^<svg xmlns="http:\/\/www.w3.org\/2000\/svg" viewBox="0 0 1200 \d+"/);
  assert.match(svg, />the network &lt;is&gt; cut<\/text>/);
  assert.match(svg, />A &amp; B<\/text>/);
  assert.equal(svg.match(/<(rect|text)/g)!.length, svg.match(/\/>|<\/text>/g)!.length);
});
