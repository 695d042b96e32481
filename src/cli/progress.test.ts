import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Progress } from './progress.ts';

/** What is written while it lasts so many seconds, and after it. */
function written(isTTY: boolean, seconds: number): { meanwhile: string[]; after: string } {
  const meanwhile: string[] = [];
  const progress = new Progress({ isTTY, write: (text: string) => meanwhile.push(text) }, 'ls');
  for (let second = 1; second <= seconds; second++) progress.waiting(second * 1000);
  const count = meanwhile.length;
  progress.end();
  return { meanwhile: meanwhile.slice(0, count), after: meanwhile.slice(count).join('') };
}

test('in a pipe: a plain line after 15 s, 30 s, 60 s, and nothing to take away', () => {
  assert.deepEqual(written(false, 14), { meanwhile: [], after: '' });
  const { meanwhile, after } = written(false, 119);
  assert.deepEqual(
    meanwhile,
    [15, 30, 60].map((second) => `netbus: ls: the daemon is at it, for ${second} s now\n`),
  );
  assert.equal(after, '');
});

test('on a terminal: one line, each second anew, and gone at the end', () => {
  const { meanwhile, after } = written(true, 3);
  assert.deepEqual(
    meanwhile,
    [1, 2, 3].map((second) => `\r\x1b[Knetbus: ls: the daemon is at it, for ${second} s now`),
  );
  assert.equal(after, '\r\x1b[K');
  assert.deepEqual(written(true, 0), { meanwhile: [], after: '' });
});

test('on a terminal a line that is too long for it is cut', () => {
  const lines: string[] = [];
  const progress = new Progress({ isTTY: true, columns: 20, write: (text: string) => lines.push(text) }, 'ls');
  progress.at('a', 'far too long a text', 0);
  assert.deepEqual(lines, ['\r\x1b[Knetbus: ls: far too']);
});

test('steps: on a terminal on one line; in a pipe a line for each, and for one that lasts', () => {
  for (const [isTTY, expected] of [
    [true, ['a1', 'a2', 'b1', 'b2', 'b3', 'b4'].map((text) => `\r\x1b[Knetbus: ls: ${text}`)],
    [false, ['a1', 'b1', 'b2', 'b4'].map((text) => `netbus: ls: ${text}\n`)],
  ] as const) {
    const lines: string[] = [];
    const progress = new Progress({ isTTY, write: (text: string) => lines.push(text) }, 'ls');
    for (const [step, text, seconds] of [
      ['a', 'a1', 1],
      ['a', 'a2', 2],
      ['b', 'b1', 3],
      ['b', 'b2', 15],
      ['b', 'b3', 29],
      ['b', 'b4', 30],
    ] as const) {
      progress.at(step, text, seconds * 1000);
    }
    assert.deepEqual(lines, expected);
  }
});
