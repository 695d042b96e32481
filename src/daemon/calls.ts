/** What other hosts may ask of this one over the control link: docs/protocol.md, 7. The peer is who its certificate says. */
import { z } from 'zod';
import { fenceAfterSchema, holdSchema, nameSchema } from '../api/types.ts';
import type { ControlHandlers } from '../bus/control-link.ts';
import { NetbusError } from '../device/errors.ts';
import { signedHandOverSchema } from '../directory/signed-hand-over.ts';
import { check } from './check-params.ts';
import { copyHandlers } from './copy-calls.ts';
import { fencedNames } from './device-host.ts';
import type { Exports } from './exports.ts';

const attachmentSchema = z.object({ attachment: z.uuid() });
const createSchema = z.object({
  export: nameSchema,
  vm: nameSchema,
  name: nameSchema,
  holdMs: holdSchema.optional(),
  takeover: z.boolean().optional(),
  forceStale: z.boolean().optional(),
  fenceAfterMs: fenceAfterSchema.optional(),
});
const expectedSchema = z.object({ vm: nameSchema, from: nameSchema });
const prepareSchema = z.object({
  attachment: z.uuid(),
  vm: nameSchema,
  name: nameSchema,
  from: nameSchema,
  check: z.boolean().optional(),
});
const settledSchema = z.object({ attachment: z.uuid(), epoch: z.number().int().min(1) });
const presentSchema = z.object({ attachment: z.uuid(), signed: signedHandOverSchema });
const fenceSchema = z.object({ host: nameSchema });
const listSchema = z.object({ details: z.boolean().default(false) });
const writeCacheSchema = z.object({ attachment: z.uuid(), enabled: z.boolean() });

export function createCallHandlers(exports: Exports): ControlHandlers {
  const { places } = exports;
  return {
    ...copyHandlers(exports.copies),
    'exports.list': async (peer, params) => ({ exports: await exports.list(peer, check(listSchema, params)) }),
    'attachment.create': async (peer, params) => ({ ...(await exports.attach(peer, check(createSchema, params))) }),
    'attachment.remove': async (peer, params) => {
      await exports.detach(peer, check(attachmentSchema, params).attachment);
      return {};
    },
    'attachment.expected': async (peer, params) => ({ devices: places.expected(peer, check(expectedSchema, params)) }),
    'attachment.prepare': async (peer, params) => ({ ...(await places.prepare(peer, check(prepareSchema, params))) }),
    'attachment.unprepare': async (peer, params) => {
      await places.unprepare(peer, check(attachmentSchema, params).attachment);
      return {};
    },
    'attachment.whereabouts': async (peer, params) => ({
      ...places.whereabouts(peer, check(attachmentSchema, params).attachment),
    }),
    'attachment.present': async (peer, params) => {
      await places.present(peer, check(presentSchema, params));
      return {};
    },
    'attachment.settled': async (peer, params) => {
      const { attachment, epoch } = check(settledSchema, params);
      await places.settled(peer, attachment, epoch);
      return {};
    },
    'host.fence': async (peer, params) => {
      const { host } = check(fenceSchema, params);
      return { fenced: fencedNames(await places.fence(peer, host), host) };
    },
    'attachment.grow': (peer, params) => exports.grow(peer, check(attachmentSchema, params).attachment),
    'attachment.writeCache': async (peer, params) => {
      const { attachment, enabled } = check(writeCacheSchema, params);
      await exports.setWriteCache(peer, attachment, enabled);
      return {};
    },
    'attachment.describe': async (peer, params) => {
      return exports.describeAttachment(peer, check(attachmentSchema, params).attachment);
    },
  };
}

/** A host that the member list does not name (yet) may give and get that list, and nothing else: docs/protocol.md, 1. */
export function forMembersAlone(handlers: ControlHandlers, isMember: (host: string) => boolean): ControlHandlers {
  const guarded = Object.entries(handlers).map(([method, handler]): [string, ControlHandlers[string]] => {
    if (method === 'members.offer' || method === 'members.put') return [method, handler];
    return [
      method,
      async (peer, ...given) => {
        if (isMember(peer)) return handler(peer, ...given);
        throw new NetbusError('denied', `${method}: host ${peer} is not in the member list`);
      },
    ];
  });
  return Object.fromEntries(guarded);
}
