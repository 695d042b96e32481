/** `GET /v1/events`: the history as JSON, or with `watch=true` a line of JSON per event for as long as both sides live. */
import type { Context } from 'hono';
import { type EventEntry, type EventHistory, eventTypes } from '../api/events.ts';
import type { ErrorBody } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { EVENTS_MAX, type EventQuery, type Events, isOfType } from './events.ts';

/** Lines that a watcher may be behind; one that reads no faster is let go. */
export const WATCH_BACKLOG_MAX = 256;

/** Throws `usage`, and `limit` where too many watch already. */
export function answerEvents(context: Context, events: Events): Response {
  const query = readQuery(context);
  if (context.req.query('watch') !== 'true') return context.json({ events: events.list(query) } satisfies EventHistory);
  // Whoever watches wants what comes; what was is for those who ask for it.
  const { sinceMs, limit } = query;
  const before = sinceMs === undefined && limit === undefined ? [] : events.list(query);
  const stream = watchStream(events, before, query.type);
  return context.body(stream, 200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
}

/**
 * `before`, then what comes, a line each. It ends with the daemon; where the reader is too slow it ends with a line that says so, in the form of an
 * error.
 */
export function watchStream(events: Events, before: readonly EventEntry[], type?: string): ReadableStream<Uint8Array> {
  let unwatch = () => {};
  const strategy = new CountQueuingStrategy({ highWaterMark: before.length + WATCH_BACKLOG_MAX });
  const source = {
    start(controller: ReadableStreamDefaultController<Uint8Array>) {
      unwatch = events.watch({
        changed: (entry) => {
          if (type !== undefined && !isOfType(entry, type)) return;
          controller.enqueue(line(entry));
          if ((controller.desiredSize ?? 0) > 0) return;
          unwatch();
          controller.enqueue(line(tooSlow()));
          controller.close();
        },
        ended: () => controller.close(),
      });
      for (const entry of before) controller.enqueue(line(entry));
    },
    cancel: () => unwatch(),
  };
  return new ReadableStream(source, strategy);
}

function readQuery(context: Context): EventQuery {
  const { since, limit, type } = context.req.query();
  const query: { sinceMs?: number; limit?: number; type?: string } = {};
  if (since !== undefined) {
    query.sinceMs = Date.parse(since);
    if (Number.isNaN(query.sinceMs))
      throw new NetbusError('usage', `since: "${since}" is no time such as 2030-01-31T12:00:00Z`);
  }
  if (limit !== undefined) {
    query.limit = Number(limit);
    if (!/^\d{1,4}$/.test(limit) || query.limit > EVENTS_MAX) {
      throw new NetbusError('usage', `limit: "${limit}" is no number from 0 to ${EVENTS_MAX}`);
    }
  }
  if (type !== undefined) {
    query.type = type;
    const types = Object.keys(eventTypes);
    if (!types.some((known) => isOfType({ type: known }, type))) {
      const parts = [...new Set(types.map((known) => known.split('.')[0]))];
      throw new NetbusError(
        'usage',
        `type: there are no events "${type}": take a type, or the first part of one: ${parts.join(', ')}`,
      );
    }
  }
  return query;
}

function tooSlow(): ErrorBody {
  const message = `more than ${WATCH_BACKLOG_MAX} events were waiting to be read: watch again, and ask for those since the last one`;
  return { error: { code: 'limit', message } };
}

function line(value: object): Uint8Array {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}
