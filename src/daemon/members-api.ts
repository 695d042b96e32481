/** The control API's paths about members. */
import type { Hono } from 'hono';
import { invitationRequestSchema } from '../api/types.ts';
import type { Membership } from './membership.ts';
import { body } from './request-body.ts';

export function addMemberRoutes(app: Hono, membership: Membership): void {
  app.get('/v1/members', (context) => context.json(membership.members()));
  app.post('/v1/invitations', async (context) => {
    const { host, address } = await body(context, invitationRequestSchema);
    return context.json(await membership.invite(host, address));
  });
  app.delete('/v1/members/:host', async (context) => context.json(await membership.evict(context.req.param('host'))));
}
