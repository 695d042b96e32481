import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Bits } from './bits.ts';

const LENGTH = 200;

test('does what a set of numbers does, and counts it', () => {
  const number = fc.nat(LENGTH - 1);
  const step = fc.record({
    do: fc.constantFrom('add', 'delete', 'addRange', 'addAll', 'copy', 'clear'),
    one: number,
    two: number,
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), number, number, (steps, one, two) => {
      const bits = new Bits(LENGTH);
      let model = new Set<number>();
      for (const step of steps) {
        const [first, last] = [Math.min(step.one, step.two), Math.max(step.one, step.two)];
        const other = new Bits(LENGTH);
        other.addRange(first, last);
        const range = Array.from({ length: last - first + 1 }, (_, i) => first + i);
        if (step.do === 'add') bits.add(step.one);
        if (step.do === 'delete') bits.delete(step.one);
        if (step.do === 'addRange') bits.addRange(first, last);
        if (step.do === 'addAll') bits.addAll(other);
        if (step.do === 'copy') bits.copy(other);
        if (step.do === 'clear') bits.clear();
        if (step.do === 'add') model.add(step.one);
        if (step.do === 'delete') model.delete(step.one);
        if (step.do === 'addRange' || step.do === 'addAll') for (const n of range) model.add(n);
        if (step.do === 'copy') model = new Set(range);
        if (step.do === 'clear') model.clear();
      }
      const sorted = [...model].sort((a, b) => a - b);
      assert.equal(bits.count, model.size);
      assert.equal(bits.next(one), sorted.find((n) => n >= one) ?? -1);
      const [first, last] = [Math.min(one, two), Math.max(one, two)];
      const inRange = sorted.filter((n) => n >= first && n <= last).length;
      assert.equal(bits.hasRange(first, last), inRange === last - first + 1);
      assert.equal(bits.meetsRange(first, last), inRange > 0);
    }),
    { seed: 6 },
  );
});

test('what is in the memory already is counted', () => {
  const memory = new Uint8Array(8);
  new Bits(40, memory).addRange(3, 36);
  const again = new Bits(40, memory);
  assert.equal(again.count, 34);
  assert.equal(again.next(0), 3);
  assert.equal(again.next(37), -1);
});
