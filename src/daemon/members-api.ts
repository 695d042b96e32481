/** The control API's paths about members. */
import type { Hono } from 'hono';
import { addressRequestSchema, invitationRequestSchema } from '../api/types.ts';
import type { IssuingDesk } from './issuing-desk.ts';
import type { Membership } from './membership.ts';
import { body } from './request-body.ts';

export function addMemberRoutes(app: Hono, membership: Membership, desk: IssuingDesk): void {
  app.get('/v1/members', (context) => context.json(membership.members()));
  app.post('/v1/invitations', async (context) => {
    const { host, address } = await body(context, invitationRequestSchema);
    return context.json(await desk.invite(host, address));
  });
  app.patch('/v1/members/:host', async (context) => {
    const { address } = await body(context, addressRequestSchema);
    return context.json(await desk.setAddress(context.req.param('host'), address));
  });
  app.get('/v1/members/:host/eviction', (context) => {
    desk.checkEvict(context.req.param('host'));
    return context.json({ allowed: true });
  });
  app.delete('/v1/members/:host', async (context) => context.json(await desk.evict(context.req.param('host'))));
}
