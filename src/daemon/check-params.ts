/** The parameters of a call between hosts: who sent them is outside. */
import type { z } from 'zod';
import { NetbusError } from '../device/errors.ts';

/** Unknown members are ignored, as the protocol wants it. Throws `usage`. */
export function check<Schema extends z.ZodType>(schema: Schema, params: unknown): z.output<Schema> {
  const result = schema.safeParse(params);
  if (result.success) return result.data as z.output<Schema>;
  const { path, message } = result.error.issues[0];
  throw new NetbusError('usage', `${path.map(String).join('.') || 'params'}: ${message}`);
}
