import assert from 'node:assert/strict';
import { test } from 'node:test';
import { faultKinds } from './faults/kinds.ts';
import {
  parseDiskBenchOptions,
  parseFaultBenchOptions,
  parseMigrationBenchOptions,
  parseSwapBenchOptions,
  UsageError,
} from './options.ts';

test('without options it is the smoke benchmark', () => {
  const options = parseDiskBenchOptions([]);
  assert.equal(options.loads.length, 5);
  assert.deepEqual(
    [options.only, options.queues, options.transport, options.json],
    [['netbus', 'local', 'peer'], 1, 'tls', false],
  );
});

test('options replace the defaults', () => {
  const argv = [
    '--load',
    'read-4k-qd1',
    '--seconds',
    '0.5',
    '--rounds',
    '1',
    '--only',
    'local,peer',
    '--transport',
    'plain',
    '--json',
  ];
  const options = parseDiskBenchOptions(argv);
  assert.deepEqual(
    options.loads.map(({ name }) => name),
    ['read-4k-qd1'],
  );
  assert.deepEqual([options.seconds, options.rounds, options.only, options.json], [0.5, 1, ['local', 'peer'], true]);
});

test('a mistake says what is wrong and what is allowed', () => {
  const mistakes: [string[], RegExp][] = [
    [['--only', 'nobody'], /--only: "nobody" is none of netbus, local, peer, null/],
    [['--seconds', '0'], /--seconds: "0" is no number above 0/],
    [['--rounds', '1.5'], /--rounds: "1.5" is no whole number/],
    [['--load', 'x'], /--load: unknown load "x"/],
    [['--transport', 'rdma'], /neither tls nor plain/],
    [['--fast'], /--fast/],
  ];
  for (const [argv, message] of mistakes) {
    assert.throws(
      () => parseDiskBenchOptions(argv),
      (error) => error instanceof UsageError && message.test(error.message),
      argv.join(' '),
    );
  }
});

test('faults: 20 of each kind without options; with a time, as many as it allows', () => {
  const options = parseFaultBenchOptions([]);
  assert.deepEqual([options.seed, options.faults, options.kinds], [undefined, 20 * faultKinds.length, faultKinds]);
  const short = parseFaultBenchOptions(['--minutes', '2', '--seed', '0', '--kinds', 'cut,stall,cut', '--json']);
  assert.deepEqual([short.seed, short.minutes, short.kinds, short.json], [0, 2, ['cut', 'stall'], true]);
  assert.ok(short.faults > 10_000);
  assert.equal(parseFaultBenchOptions(['--faults', '7', '--minutes', '2']).faults, 7);
});

test('faults: mistakes are one line each', () => {
  const mistakes: [string[], RegExp][] = [
    [['--kinds', 'cut,flood'], /--kinds: "flood" is none of cut, /],
    [['--seed', 'x'], /--seed: "x" is no whole number/],
    [['--seed', '-1'], /--seed/],
    [['--minutes', '0'], /--minutes: "0"/],
    [['--faults', '1.5'], /--faults: "1.5" is no whole number/],
  ];
  for (const [argv, message] of mistakes) {
    assert.throws(
      () => parseFaultBenchOptions(argv),
      (error) => error instanceof UsageError && message.test(error.message),
    );
  }
});

test('migration: a round for each placement and more, and mistakes in one line each', () => {
  assert.deepEqual(parseMigrationBenchOptions([]), { seed: undefined, migrations: 51, json: false });
  const options = parseMigrationBenchOptions(['--migrations', '6', '--seed', '9', '--json']);
  assert.deepEqual(options, { seed: 9, migrations: 6, json: true });
  for (const argv of [['--migrations', '0'], ['--migrations', '1.5'], ['--seed', 'x'], ['--fast']]) {
    assert.throws(() => parseMigrationBenchOptions(argv), UsageError, argv.join(' '));
  }
});

test('swap: both sizes by default, and mistakes in one line each', () => {
  assert.deepEqual(parseSwapBenchOptions([]), { seed: undefined, swaps: 100, sizesGiB: [1, 8], json: false });
  const options = parseSwapBenchOptions(['--swaps', '2', '--sizes', '0.25', '--seed', '9', '--json']);
  assert.deepEqual(options, { seed: 9, swaps: 2, sizesGiB: [0.25], json: true });
  for (const argv of [['--swaps', '0'], ['--sizes', '0.01'], ['--sizes', '1,'], ['--seed', 'x'], ['--fast']]) {
    assert.throws(() => parseSwapBenchOptions(argv), UsageError, argv.join(' '));
  }
});
