/** The control API's paths about live migrations. */
import type { Hono } from 'hono';
import { type FollowResult, followRequestSchema, migrationProgressSchema, migrationRequestSchema } from '../api/migration.ts';
import { nameSchema } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import type { Follows } from './follow.ts';
import type { MigrationDesk } from './migration-desk.ts';
import { body } from './request-body.ts';

export function addMigrationRoutes(app: Hono, desk: MigrationDesk, follows: Follows): void {
  app.post('/v1/vms/:vm/migration', async (context) => {
    const vm = context.req.param('vm');
    const { to, check, follow } = await body(context, migrationRequestSchema);
    if (follow.length > 0) await follows.check(vm, to, follow);
    return context.json(await desk.begin(vm, { to, check }));
  });
  app.get('/v1/vms/:vm/migration', async (context) => {
    return context.json(await desk.report(context.req.param('vm'), destination(context.req.query('to'))));
  });
  app.delete('/v1/vms/:vm/migration', async (context) => {
    const to = destination(context.req.query('to'));
    await desk.end(context.req.param('vm'), { to, undo: context.req.query('undo') !== 'false' });
    return context.json({});
  });
  app.post('/v1/vms/:vm/migration/follow', async (context) => {
    const { to, follow } = await body(context, followRequestSchema);
    const result: FollowResult = { follows: await follows.start(context.req.param('vm'), to, follow) };
    return context.json(result);
  });
  app.get('/v1/vms/:vm/migration/progress', (context) => context.json(desk.progress(context.req.param('vm'))));
  app.put('/v1/vms/:vm/migration/progress', async (context) => {
    const { phase } = await body(context, migrationProgressSchema);
    return context.json(desk.progress(context.req.param('vm'), phase));
  });
  app.post('/v1/vms/:vm/migration/cancellation', (context) => context.json(desk.cancel(context.req.param('vm'))));
  app.get('/v1/vms/:vm/switchover', (context) => context.json(desk.switchover(context.req.param('vm'))));
}

function destination(value: string | undefined): string {
  const result = nameSchema.safeParse(value);
  if (result.success) return result.data;
  throw new NetbusError('usage', 'say the destination: ?to=HOST');
}
