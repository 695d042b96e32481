import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nearest } from './nearest.ts';

test('a slip of the fingers is one difference, and too many of them are another word', () => {
  assert.equal(nearest('hots', ['hosts', 'host'].slice(1)), 'host');
  assert.equal(nearest('M1/dta', ['m1/data', 'm2/data']), 'm1/data');
  assert.equal(nearest('web/data', ['web/data']), 'web/data');
  assert.equal(nearest('vm', ['am', 'data']), 'am');
  assert.equal(nearest('colour', ['cluster', 'host']), undefined);
  assert.equal(nearest('x', []), undefined);
});
