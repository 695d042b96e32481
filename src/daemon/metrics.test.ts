import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JOB } from '../../test/support/answers.ts';
import { Metrics } from './metrics.ts';

test('jobs by state, and how far those are that run', async () => {
  const metrics = new Metrics('1.2.3');
  const jobs = [JOB, { ...JOB, id: 'j4', state: 'paused' }, { ...JOB, id: 'j2', state: 'failed' }] as const;
  metrics.watch({ links: () => [], attachments: () => [], exports: () => [], jobs: () => jobs });
  const text = await metrics.text();
  for (const line of [
    'netbus_jobs{state="running"} 1',
    'netbus_jobs{state="failed"} 1',
    'netbus_jobs{state="done"} 0',
    `netbus_job_copied_bytes{job="j3",attachment="web/data"} ${42 * 1024 ** 2}`,
    `netbus_job_total_bytes{job="j4",attachment="web/data"} ${100 * 1024 ** 2}`,
    `netbus_job_dirty_bytes{job="j3",attachment="web/data"} ${2 * 1024 ** 2}`,
  ]) {
    assert.ok(text.includes(`${line}\n`), line);
  }
  assert.doesNotMatch(text, /job="j2"/);
  metrics.clear();
});
