/** The control API's paths about jobs. */
import type { Hono } from 'hono';
import { type JobList, jobChangeSchema, swapRequestSchema } from '../api/jobs.ts';
import { parseDevice } from './job-record.ts';
import type { Jobs } from './jobs.ts';
import { body } from './request-body.ts';

export function addJobRoutes(app: Hono, jobs: Jobs): void {
  app.post('/v1/attachments/:vm/:name/swap', async (context) => {
    const { to, ...rest } = await body(context, swapRequestSchema);
    const { vm, name } = context.req.param();
    return context.json(await jobs.start({ vm, name, to: parseDevice(to), ...rest }));
  });
  app.get('/v1/jobs', (context) => context.json({ jobs: jobs.entries() } satisfies JobList));
  app.get('/v1/jobs/:id', (context) => context.json(jobs.find(context.req.param('id'))));
  app.patch('/v1/jobs/:id', async (context) => {
    const id = context.req.param('id');
    const { paused, bytesPerSecondMax } = await body(context, jobChangeSchema);
    if (bytesPerSecondMax !== undefined) await jobs.setSpeed(id, bytesPerSecondMax ?? undefined);
    if (paused !== undefined) await (paused ? jobs.pause(id) : jobs.resume(id));
    return context.json(jobs.find(id));
  });
  app.post('/v1/jobs/:id/cancellation', async (context) => context.json(await jobs.cancel(context.req.param('id'))));
}
