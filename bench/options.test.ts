import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDiskBenchOptions, UsageError } from './options.ts';

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
