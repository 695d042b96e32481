/** The control API's paths. Each answers with what the parts of the daemon say; a NetbusError becomes its HTTP status. */
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import {
  attachRequestSchema,
  type BusAttachments,
  type Devices,
  type ErrorBody,
  exportRequestSchema,
  type FenceCheck,
  type FenceResult,
  type MemberProbe,
  preparationRequestSchema,
  type Status,
} from '../api/types.ts';
import { type ErrorCode, errorCodes, NetbusError } from '../device/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Attachments } from './attachments.ts';
import { answerEvents } from './event-routes.ts';
import type { Events } from './events.ts';
import type { Exports } from './exports.ts';
import type { Follows } from './follow.ts';
import type { IssuingDesk } from './issuing-desk.ts';
import { addJobRoutes } from './job-routes.ts';
import type { Jobs } from './jobs.ts';
import { addMemberRoutes } from './members-api.ts';
import type { Membership } from './membership.ts';
import type { Metrics } from './metrics.ts';
import type { MigrationDesk } from './migration-desk.ts';
import { addMigrationRoutes } from './migration-routes.ts';
import type { Preparation } from './preparation.ts';
import { body } from './request-body.ts';

const REQUEST_BYTES_MAX = 256 * 1024;

export interface RoutesOptions {
  readonly exports: Exports;
  readonly attachments: Attachments;
  readonly preparation: Preparation;
  readonly membership: Membership;
  readonly desk: IssuingDesk;
  readonly migrations: MigrationDesk;
  readonly jobs: Jobs;
  readonly follows: Follows;
  readonly metrics: Metrics;
  readonly status: () => Promise<Status>;
  readonly devices: (query: { details: boolean; withinMs?: number }) => Promise<Devices>;
  readonly busAttachments: () => Promise<BusAttachments>;
  readonly checkFence: (host: string) => FenceCheck;
  readonly fence: (host: string) => Promise<FenceResult>;
  readonly events: Events;
  readonly probe: () => Promise<MemberProbe[]>;
  /** Why the daemon is not ready for work; undefined = it is. */
  readonly notReady: () => string | undefined;
  readonly log: Log;
}

export function createRoutes(options: RoutesOptions): Hono {
  const { exports, attachments, preparation, metrics, log } = options;
  const app = new Hono();
  const tooLong = (context: Context) => failure(context, 'limit', `a request has at most ${REQUEST_BYTES_MAX} bytes`);
  app.use(bodyLimit({ maxSize: REQUEST_BYTES_MAX, onError: tooLong }));

  app.get('/v1/status', async (context) => context.json(await options.status()));
  app.get('/v1/devices', async (context) => {
    const withinMs = Number(context.req.query('withinMs'));
    const details = context.req.query('details') === 'true';
    return context.json(await options.devices({ details, ...(withinMs > 0 && { withinMs }) }));
  });
  app.get('/v1/events', (context) => answerEvents(context, options.events));
  app.get('/v1/probe', async (context) => context.json({ members: await options.probe() }));

  app.post('/v1/exports', async (context) => context.json(await exports.add(await body(context, exportRequestSchema))));
  app.post('/v1/exports/:name/reopen', async (context) => context.json(await exports.reopen(context.req.param('name'))));
  app.delete('/v1/exports/:name', async (context) => {
    await exports.remove(context.req.param('name'));
    return context.json({});
  });

  app.get('/v1/attachments', async (context) => context.json(await options.busAttachments()));
  app.post('/v1/attachments', async (context) =>
    context.json(await attachments.attach(await body(context, attachRequestSchema))),
  );
  app.delete('/v1/attachments/:vm/:name', async (context) => {
    const { vm, name } = context.req.param();
    const force = context.req.query('force') === 'true';
    return context.json({ warnings: await attachments.detach(vm, name, force) });
  });
  app.post('/v1/attachments/:vm/:name/grow', async (context) => {
    const { vm, name } = context.req.param();
    return context.json(await attachments.grow(vm, name));
  });

  app.post('/v1/vms/:vm/preparation', async (context) => {
    const { from } = await body(context, preparationRequestSchema);
    return context.json({ attachments: await preparation.prepare(context.req.param('vm'), from) });
  });
  app.delete('/v1/vms/:vm/preparation', async (context) => {
    await preparation.unprepare(context.req.param('vm'));
    return context.json({});
  });

  app.get('/v1/hosts/:host/fence', (context) => context.json(options.checkFence(context.req.param('host'))));
  app.post('/v1/hosts/:host/fence', async (context) => context.json(await options.fence(context.req.param('host'))));

  addJobRoutes(app, options.jobs);
  addMigrationRoutes(app, options.migrations, options.follows);
  addMemberRoutes(app, options.membership, options.desk);

  app.get('/metrics', async (context) => context.text(await metrics.text(), 200, { 'content-type': metrics.contentType }));
  app.get('/healthz', (context) => context.text('alive\n'));
  app.get('/readyz', (context) => {
    const reason = options.notReady();
    return reason === undefined ? context.text('ready\n') : context.text(`not ready: ${reason}\n`, 503);
  });

  app.notFound((context) => {
    const request = `${context.req.method} ${context.req.path}`;
    const message = `the daemon does not know ${request}: it is of another release than the command; restart it ("netbus doctor" compares the two)`;
    return failure(context, 'protocol', message);
  });
  app.onError((thrown, context) => {
    const error = NetbusError.from(thrown);
    const request = `${context.req.method} ${context.req.path}`;
    if (error.code === 'internal') log.error({ request, error: error.cause ?? error }, 'a request failed by a bug');
    else log.info({ request, code: error.code, reason: error.message }, 'request refused');
    return failure(context, error.code, error.message);
  });
  return app;
}

function failure(context: Context, code: ErrorCode, message: string): Response {
  const answer: ErrorBody = { error: { code, message } };
  return context.json(answer, errorCodes[code].http as ContentfulStatusCode);
}
