import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLoad } from './disk-loads.ts';
import { jsonLine, type Measurement, median, type Row, summarize, table } from './disk-report.ts';

function measurement(kind: Measurement['kind'], name: string, iops: number, errors = 0): Measurement {
  return { kind, name, iops, p50Us: 10, p99Us: 20.04, p999Us: 30, errors, cpuUs: 3.25, driverBusy: 0.5 };
}

function row(...summaries: Measurement[]): Row {
  const load = parseLoad('randread-4k-qd32');
  return { load, transport: 'tls', queues: 1, storage: 'cache', summaries: summaries.map((one) => summarize([one])) };
}

test('the median counts, and every error', () => {
  const rounds = [100, 900, 200].map((iops) => measurement('local', 'local', iops, 1));
  assert.equal(summarize(rounds).iops, 200);
  assert.equal(summarize(rounds).errors, 3);
  assert.equal(median([1, 2]), 1.5);
});

test('the best peer is the one that Netbus is compared with', () => {
  const peers = [measurement('peer', 'peer -t 1', 100), measurement('peer', 'peer -t 16', 50, 2)];
  const line = JSON.parse(jsonLine([row(measurement('netbus', 'netbus', 150), ...peers)]));
  assert.deepEqual(line, {
    bench: 'disk',
    rows: [
      {
        load: 'randread-4k-qd32',
        transport: 'tls',
        queues: 1,
        storage: 'cache',
        netbus: { iops: 150, p50Us: 10, p99Us: 20, p999Us: 30, errors: 0, cpuUs: 3.3 },
        peer: { iops: 100, p50Us: 10, p99Us: 20, p999Us: 30, errors: 2, cpuUs: 3.3, name: 'peer -t 1' },
        ratioToPeer: 1.5,
      },
    ],
  });
});

test('what did not run is left out', () => {
  const line = JSON.parse(jsonLine([row(measurement('local', 'local', 150))]));
  assert.deepEqual(Object.keys(line.rows[0]), ['load', 'transport', 'queues', 'storage', 'local']);
});

test('the table has a line for each candidate', () => {
  const text = table([row(measurement('local', 'local', 200), measurement('peer', 'peer -t 1', 100))]);
  assert.match(text, /randread-4k-qd32 {2}local +200 .* 2\.00x\n +peer -t 1 +100 .* 1\.00x$/m);
});
