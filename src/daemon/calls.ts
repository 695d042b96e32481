/** What other hosts may ask of this one over the control link: docs/protocol.md, 7. The peer is who its certificate says. */
import { z } from 'zod';
import { nameSchema } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import type { Exports } from './exports.ts';

/** Answers one call of `peer`; rejects with a NetbusError. */
export type CallHandler = (peer: string, params: unknown) => Promise<object>;

const attachmentSchema = z.object({ attachment: z.uuid() });
const createSchema = z.object({ export: nameSchema, vm: nameSchema, name: nameSchema });
const listSchema = z.object({ details: z.boolean().default(false) });
const writeCacheSchema = z.object({ attachment: z.uuid(), enabled: z.boolean() });

export function createCallHandlers(exports: Exports): Record<string, CallHandler> {
  return {
    'exports.list': async (peer, params) => ({ exports: await exports.list(peer, check(listSchema, params)) }),
    'attachment.create': async (peer, params) => ({ ...(await exports.attach(peer, check(createSchema, params))) }),
    'attachment.remove': async (peer, params) => {
      await exports.detach(peer, check(attachmentSchema, params).attachment);
      return {};
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

/** Unknown members are ignored, as the protocol wants it. */
function check<Schema extends z.ZodType>(schema: Schema, params: unknown): z.output<Schema> {
  const result = schema.safeParse(params);
  if (result.success) return result.data as z.output<Schema>;
  const { path, message } = result.error.issues[0];
  throw new NetbusError('usage', `${path.map(String).join('.') || 'params'}: ${message}`);
}
