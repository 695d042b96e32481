import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { newSlots, nextSlot, readSlots } from './record-slots.ts';

const text = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;

function overwritten(content: string, part: { content: string; position: number }): string {
  return content.slice(0, part.position) + part.content + content.slice(part.position + part.content.length);
}

describe('slots of a record', () => {
  test('the newest state counts, whatever the number of states before it', () => {
    let { content, slots } = newSlots(text(0));
    const { length } = content;
    for (let state = 1; state < 7; state++) {
      const next = nextSlot(slots, text(state))!;
      content = overwritten(content, next);
      slots = next.slots;
      assert.equal(content.length, length);
      assert.deepEqual(readSlots(content), { text: text(state), slots });
    }
  });

  test('a write that is cut at any byte, or torn at any block, leaves the state of before or its own', () => {
    // More than a block each, so that there is something to tear.
    const old = text({ state: 'old', heads: new Array(600).fill(12) });
    const present = text({ state: 'present', heads: new Array(600).fill(34) });
    const next = text({ state: 'next', heads: new Array(600).fill(56) });
    const first = newSlots(old);
    const second = nextSlot(first.slots, present)!;
    const before = overwritten(first.content, second);
    const third = nextSlot(second.slots, next)!;
    const after = overwritten(before, third);
    assert.equal(readSlots(after)!.text, next);
    for (let cut = 0; cut < third.content.length; cut++) {
      const found = readSlots(overwritten(before, { ...third, content: third.content.slice(0, cut) }));
      // The text ends with the end of a line, and what comes after it does not count.
      assert.equal(found!.text, cut < third.content.trimEnd().length + 1 ? present : next, `cut at ${cut}`);
    }
    for (let block = 0; block < third.content.length / 512; block++) {
      const [from, to] = [third.position + block * 512, third.position + (block + 1) * 512];
      const torn = after.slice(0, from) + before.slice(from, to) + after.slice(to);
      assert.equal(readSlots(torn)!.text, torn === after ? next : present, `block ${block} is old`);
    }
  });

  test('what does not fit any more needs a new file', () => {
    const { slots } = newSlots(text('short'));
    assert.equal(nextSlot(slots, text('x'.repeat(slots.bytes))), undefined);
    const longest = 'x'.repeat(slots.bytes - nextSlot(slots, '')!.content.trimEnd().length - 10);
    assert.ok(nextSlot(slots, longest));
  });

  test('any record comes back as it was, in ASCII', () => {
    fc.assert(
      fc.property(fc.array(fc.jsonValue({ noUnicodeString: false }), { minLength: 1, maxLength: 5 }), (values) => {
        let { content, slots } = newSlots(text(values[0]));
        for (const value of values.slice(1)) {
          const next = nextSlot(slots, text(value)) ?? { ...newSlots(text(value)), position: -1 };
          content = next.position < 0 ? next.content : overwritten(content, next);
          slots = next.slots;
        }
        assert.equal(Buffer.byteLength(content), content.length);
        assert.deepEqual(JSON.parse(readSlots(content)!.text), JSON.parse(JSON.stringify(values.at(-1))));
      }),
    );
  });

  test('anything else is none', () => {
    for (const content of ['', '{}', text({ a: 1 }), ' '.repeat(8192), '\0'.repeat(8192), '{"sequence":1}\n'.padEnd(8192)])
      assert.equal(readSlots(content), undefined);
    fc.assert(
      fc.property(fc.string({ maxLength: 100 }), fc.nat(8191), (noise, at) => {
        const { content } = newSlots(text('state'));
        const changed = overwritten(content, { content: noise, position: at }).slice(0, 8192);
        const found = readSlots(changed);
        assert.ok(found === undefined || found.text === text('state'));
      }),
    );
  });
});
