/** The calls of a hot-swap that other hosts may make to this one: docs/protocol.md, 4.5 and 7. */
import { z } from 'zod';
import { fenceAfterSchema, holdSchema, nameSchema } from '../api/types.ts';
import type { ControlHandlers } from '../bus/control-link.ts';
import { DISK_CAPACITY_BYTES_MAX, profileSchema } from '../device/profile.ts';
import { check } from './check-params.ts';
import type { Copies } from './copies.ts';

const generationSchema = z.number().int().min(1);
const targetSchema = z.object({ host: nameSchema, export: nameSchema });
const stepSchema = z.object({ attachment: z.uuid(), generation: generationSchema });
const attachmentSchema = z.object({ attachment: z.uuid() });
const beginSchema = z.object({ attachment: z.uuid(), to: targetSchema });
const fillSchema = z.object({
  export: nameSchema,
  from: targetSchema.extend({ attachment: z.uuid() }),
  generation: generationSchema,
  vm: nameSchema,
  name: nameSchema,
  profile: profileSchema,
  writeCache: z.boolean().nullable(),
  holdMs: holdSchema.optional(),
  fenceAfterMs: fenceAfterSchema.optional(),
  overwrite: z.boolean(),
});
const extentsSchema = z.object({ attachment: z.uuid(), from: z.number().int().min(0).max(DISK_CAPACITY_BYTES_MAX) });
const outcomeSchema = z.object({ export: nameSchema, attachment: z.uuid(), generation: generationSchema });

export function copyHandlers(copies: Copies): ControlHandlers {
  return {
    'copy.begin': async (peer, params) => {
      const { attachment, to } = check(beginSchema, params);
      return { ...(await copies.begin(peer, attachment, to)) };
    },
    'copy.fill': async (peer, params) => ({ ...(await copies.fill(peer, check(fillSchema, params))) }),
    'copy.complete': async (peer, params) => {
      const { attachment, generation } = check(stepSchema, params);
      await copies.complete(peer, attachment, generation);
      return {};
    },
    'copy.handOver': async (peer, params) => {
      const { attachment, generation } = check(stepSchema, params);
      await copies.handOver(peer, attachment, generation);
      return {};
    },
    'copy.supersede': async (peer, params) => {
      const { attachment, generation } = check(stepSchema, params);
      await copies.supersede(peer, attachment, generation);
      return {};
    },
    'copy.abort': async (peer, params) => {
      const { attachment, generation } = check(stepSchema, params);
      return { ...(await copies.abort(peer, attachment, generation)) };
    },
    'copy.mark': async (peer, params) => ({ mark: copies.mark(peer, check(attachmentSchema, params).attachment) }),
    'copy.extents': async (peer, params) => {
      const { attachment, from } = check(extentsSchema, params);
      return { ...(await copies.extents(peer, attachment, from)) };
    },
    'copy.outcome': async (peer, params) => ({ ...(await copies.outcome(peer, check(outcomeSchema, params))) }),
  };
}
