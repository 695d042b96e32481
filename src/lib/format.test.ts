import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatBytes, formatSince, formatTable, shellQuote } from './format.ts';

test('sizes read well', () => {
  const cases: [number, string][] = [
    [0, '0 bytes'],
    [512, '512 bytes'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [64 * 1024 ** 2, '64 MiB'],
    [1024 ** 2 - 1, '1 MiB'],
    [10 * 1024 ** 3, '10 GiB'],
    [150.7 * 1024 ** 3, '151 GiB'],
    [2 ** 53, '8 PiB'],
  ];
  for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text);
});

test('times read well', () => {
  const now = Date.parse('2030-01-01T00:00:00Z');
  const ago = (seconds: number) => formatSince(new Date(now - seconds * 1000).toISOString(), now);
  assert.deepEqual([ago(0), ago(59), ago(60), ago(3600), ago(90_000)], ['0 s', '59 s', '1 min', '1 h', '1 d']);
  assert.equal(ago(-5), '0 s');
  assert.equal(formatSince('nonsense', now), '-');
});

test('a table is aligned, shows a dash for nothing, and drops columns that are empty', () => {
  assert.equal(
    formatTable(
      ['NAME', 'SIZE', 'REASON', 'USED BY'],
      [
        ['a', '10 GiB', '', ''],
        ['longer', '1 MiB', '', 'm2:vm/a'],
      ],
    ),
    ['NAME    SIZE    USED BY', 'a       10 GiB  -', 'longer  1 MiB   m2:vm/a', ''].join('\n'),
  );
});

test('a shell reads a quoted argument back as it was', () => {
  assert.equal(shellQuote('socket,id=a,path=/run/netbus/vm/a.sock'), 'socket,id=a,path=/run/netbus/vm/a.sock');
  const text = fc.string().filter((value) => !value.includes('\0') && !value.endsWith('\n'));
  fc.assert(
    fc.property(text, (value) => {
      assert.equal(execFileSync('sh', ['-c', `printf %s ${shellQuote(value)}`], { encoding: 'utf8' }), value);
    }),
    { numRuns: 30 },
  );
});
