/** `/metrics`: what the daemon knows, put into Prometheus' words when somebody asks. Nothing is counted twice. */
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { JobEntry, JobProgress } from '../api/jobs.ts';
import type { LinkEntry, WriteLogEntry } from '../api/types.ts';
import type { VirtualDeviceState } from '../device/virtual-device.ts';
import { type DiskStatistics, DURATION_BOUNDS_SECONDS, diskOperations } from '../frontends/vhost-user/disk-statistics.ts';
import type { ExportState } from './export.ts';

const attachmentStates: VirtualDeviceState['name'][] = ['idle', 'connecting', 'active', 'failed', 'closed'];
const jobStates: JobEntry['state'][] = ['running', 'paused', 'done', 'failed', 'cancelled'];
const exportStates: ExportState['name'][] = ['opening', 'waiting', 'ready', 'failed', 'closed'];

/** Each look at the event loop's delay is a wake-up, also of a daemon that has nothing to do. */
const LOOP_DELAY_SAMPLE_MS = 1_000;

export interface MeasuredAttachment {
  readonly record: { readonly vm: string; readonly name: string };
  readonly state: VirtualDeviceState;
  readonly writeLog: WriteLogEntry | undefined;
  readonly statistics: DiskStatistics | undefined;
}

/** Where the numbers are. */
export interface Measured {
  links(): readonly LinkEntry[];
  attachments(): Iterable<MeasuredAttachment>;
  jobs(): readonly JobEntry[];
  exports(): Iterable<{ readonly name: string; readonly state: ExportState }>;
}

export class Metrics {
  readonly #registry = new Registry();

  constructor(release: string) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: LOOP_DELAY_SAMPLE_MS });
    const build = new Gauge({
      name: 'netbus_build_info',
      help: 'The release that runs; always 1.',
      labelNames: ['release'],
      registers,
    });
    build.set({ release }, 1);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Numbers that are read where they are, when somebody asks. */
  watch(measured: Measured): void {
    this.#watchRequests(measured);
    this.#watchJobs(measured);
    const registers = [this.#registry];
    new Gauge({
      name: 'netbus_link_up',
      help: 'Whether the control link to a host is up.',
      labelNames: ['peer'],
      registers,
      collect() {
        this.reset();
        for (const { host, state } of measured.links()) this.set({ peer: host }, state === 'up' ? 1 : 0);
      },
    });
    new Gauge({
      name: 'netbus_attachment_state',
      help: 'The state that an attachment is in: 1 for that one, 0 for the others.',
      labelNames: ['attachment', 'state'],
      registers,
      collect() {
        this.reset();
        for (const { record, state } of measured.attachments()) {
          const attachment = `${record.vm}/${record.name}`;
          for (const name of attachmentStates) this.set({ attachment, state: name }, name === state.name ? 1 : 0);
        }
      },
    });
    const ofLogs = (name: string, help: string, pick: (writeLog: WriteLogEntry) => number) =>
      new Gauge({
        name,
        help,
        labelNames: ['attachment'],
        registers,
        collect() {
          this.reset();
          for (const { record, writeLog } of measured.attachments()) {
            if (writeLog !== undefined) this.set({ attachment: `${record.vm}/${record.name}` }, pick(writeLog));
          }
        },
      });
    ofLogs('netbus_write_log_used_bytes', 'Writes that no flush covers yet.', ({ usedBytes }) => usedBytes);
    ofLogs('netbus_write_log_bound_bytes', 'Most of them; at it writes wait for a flush.', ({ boundBytes }) => boundBytes);
    ofLogs('netbus_write_log_flushes', 'Flushes in the background, since the start.', (entry) => entry.backgroundFlushes);
    new Gauge({
      name: 'netbus_export_state',
      help: 'The state that an export is in: 1 for that one, 0 for the others.',
      labelNames: ['export', 'state'],
      registers,
      collect() {
        this.reset();
        for (const exported of measured.exports()) {
          for (const name of exportStates)
            this.set({ export: exported.name, state: name }, name === exported.state.name ? 1 : 0);
        }
      },
    });
  }

  #watchJobs({ jobs }: Measured): void {
    const registers = [this.#registry];
    new Gauge({
      name: 'netbus_jobs',
      help: 'Jobs in a state; those that are over as far as they are kept.',
      labelNames: ['state'],
      registers,
      collect() {
        for (const state of jobStates) this.set({ state }, jobs().filter((job) => job.state === state).length);
      },
    });
    const ofRunning = (name: string, help: string, pick: (progress: JobProgress) => number) =>
      new Gauge({
        name,
        help,
        labelNames: ['job', 'attachment'],
        registers,
        collect() {
          this.reset();
          for (const { id: job, vm, name: device, state, progress } of jobs()) {
            if ((state !== 'running' && state !== 'paused') || progress === undefined) continue;
            this.set({ job, attachment: `${vm}/${device}` }, pick(progress));
          }
        },
      });
    ofRunning('netbus_job_total_bytes', 'All that a job is to copy, as far as it is known.', ({ totalBytes }) => totalBytes);
    ofRunning('netbus_job_copied_bytes', 'What it has copied of that.', ({ doneBytes }) => doneBytes);
    ofRunning('netbus_job_dirty_bytes', 'What the guest has written behind it.', ({ dirtyBytes }) => dirtyBytes);
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  clear(): void {
    this.#registry.clear();
  }

  #watchRequests(measured: Measured): void {
    const registers = [this.#registry];
    const labelNames = ['attachment', 'op'] as const;
    const total = (name: string, help: string, pick: 'requests' | 'errors' | 'bytes') =>
      new Counter({
        name,
        help,
        labelNames,
        registers,
        collect() {
          this.reset();
          for (const { attachment, op, index, statistics } of usedOperations(measured)) {
            this.inc({ attachment, op }, statistics[pick][index]);
          }
        },
      });
    total('netbus_block_requests_total', 'Requests of the guest that were answered.', 'requests');
    total('netbus_block_request_errors_total', 'Requests of the guest that were answered with an error.', 'errors');
    total('netbus_block_bytes_total', 'Bytes of the requests that succeeded.', 'bytes');
    this.#registry.registerMetric(new DurationHistogram(measured) as never);
  }
}

interface UsedOperation {
  readonly attachment: string;
  readonly op: (typeof diskOperations)[number];
  readonly index: number;
  readonly statistics: DiskStatistics;
}

/** What was never asked for is left out: most attachments see three kinds. */
function usedOperations(measured: Measured): UsedOperation[] {
  const used: UsedOperation[] = [];
  for (const { record, statistics } of measured.attachments()) {
    if (statistics === undefined) continue;
    const attachment = `${record.vm}/${record.name}`;
    diskOperations.forEach((op, index) => {
      if (statistics.requests[index] > 0) used.push({ attachment, op, index, statistics });
    });
  }
  return used;
}

/**
 * A histogram that is kept elsewhere. prom-client's own takes one observation at a time, which the data path cannot afford; what the registry asks of a metric is
 * a name and `get`.
 */
class DurationHistogram {
  readonly name = 'netbus_block_request_duration_seconds';
  readonly #measured: Measured;

  constructor(measured: Measured) {
    this.#measured = measured;
  }

  reset(): void {}

  async get(): Promise<object> {
    const values: object[] = [];
    for (const { attachment, op, index, statistics } of usedOperations(this.#measured)) {
      values.push(
        ...histogramValues(this.name, { attachment, op }, statistics.durationsOf(op), statistics.durationSums[index]),
      );
    }
    const help = "From taking a request out of the guest's queue to its reply.";
    return { name: this.name, help, type: 'histogram', values, aggregator: 'sum' };
  }
}

function histogramValues(name: string, labels: object, buckets: Float64Array, seconds: number): object[] {
  let count = 0;
  const values: object[] = [];
  buckets.forEach((bucket, i) => {
    count += bucket;
    const le = i < DURATION_BOUNDS_SECONDS.length ? DURATION_BOUNDS_SECONDS[i] : '+Inf';
    values.push({ metricName: `${name}_bucket`, labels: { le, ...labels }, value: count });
  });
  values.push({ metricName: `${name}_sum`, labels, value: seconds }, { metricName: `${name}_count`, labels, value: count });
  return values;
}
