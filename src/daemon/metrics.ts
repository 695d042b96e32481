/** `/metrics`: what the daemon knows, put into Prometheus' words when somebody asks. Nothing is counted twice. */
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { LinkEntry } from '../api/types.ts';
import type { Source } from '../device/source.ts';
import type { VirtualDeviceState } from '../device/virtual-device.ts';
import type { Clock } from '../lib/clock.ts';
import type { ExportState } from './export.ts';
import { DURATION_BUCKETS_SECONDS, RequestMeter } from './measure.ts';

const attachmentStates: VirtualDeviceState['name'][] = ['idle', 'connecting', 'active', 'failed', 'closed'];
const exportStates: ExportState['name'][] = ['opening', 'waiting', 'ready', 'failed', 'closed'];

/** Where the numbers are. */
export interface Measured {
  links(): readonly LinkEntry[];
  attachments(): Iterable<{ readonly record: { vm: string; name: string }; readonly state: VirtualDeviceState }>;
  exports(): Iterable<{ readonly name: string; readonly state: ExportState }>;
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #clock: Clock;
  readonly #meters = new Map<string, RequestMeter>();

  constructor(clock: Clock, release: string) {
    this.#clock = clock;
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    const build = new Gauge({
      name: 'netbus_build_info',
      help: 'The release that runs; always 1.',
      labelNames: ['release'],
      registers,
    });
    build.set({ release }, 1);
    this.#registerRequests();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Numbers that are read where they are, when somebody asks. */
  watch(measured: Measured): void {
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

  /** Counts an attachment's requests; the same name goes on where it was. */
  measure(attachment: string, source: Source): Source {
    const meter = this.#meters.get(attachment) ?? new RequestMeter(this.#clock);
    this.#meters.set(attachment, meter);
    return meter.measure(source);
  }

  /** The attachment is gone. */
  forget(attachment: string): void {
    this.#meters.delete(attachment);
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  clear(): void {
    this.#registry.clear();
  }

  #registerRequests(): void {
    const meters = this.#meters;
    const registers = [this.#registry];
    const labelNames = ['attachment', 'op'] as const;
    const total = (name: string, help: string, pick: 'requests' | 'errors') =>
      new Counter({
        name,
        help,
        labelNames,
        registers,
        collect() {
          this.reset();
          for (const [attachment, meter] of meters) {
            for (const totals of meter.totals()) {
              if (totals.requests > 0) this.inc({ attachment, op: totals.operation }, totals[pick]);
            }
          }
        },
      });
    total('netbus_block_requests_total', 'Requests of the guest that were answered.', 'requests');
    total('netbus_block_request_errors_total', 'Requests of the guest that were answered with an error.', 'errors');
    this.#registry.registerMetric(new DurationHistogram(meters) as never);
  }
}

/**
 * A histogram that is kept elsewhere. prom-client's own takes one observation at a time, which the data path cannot afford; what the registry asks of a metric is
 * a name and `get`.
 */
class DurationHistogram {
  readonly name = 'netbus_block_request_duration_seconds';
  readonly #meters: ReadonlyMap<string, RequestMeter>;

  constructor(meters: ReadonlyMap<string, RequestMeter>) {
    this.#meters = meters;
  }

  reset(): void {}

  async get(): Promise<object> {
    const values: object[] = [];
    for (const [attachment, meter] of this.#meters) {
      for (const { operation, requests, seconds, buckets } of meter.totals()) {
        if (requests > 0) values.push(...histogramValues(this.name, { attachment, op: operation }, buckets, seconds));
      }
    }
    return {
      name: this.name,
      help: 'From taking a request out of the queue to its reply.',
      type: 'histogram',
      values,
      aggregator: 'sum',
    };
  }
}

function histogramValues(name: string, labels: object, buckets: Float64Array, seconds: number): object[] {
  let count = 0;
  const values: object[] = [];
  buckets.forEach((bucket, i) => {
    count += bucket;
    const le = i < DURATION_BUCKETS_SECONDS.length ? DURATION_BUCKETS_SECONDS[i] : '+Inf';
    values.push({ metricName: `${name}_bucket`, labels: { le, ...labels }, value: count });
  });
  values.push({ metricName: `${name}_sum`, labels, value: seconds }, { metricName: `${name}_count`, labels, value: count });
  return values;
}
