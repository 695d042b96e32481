/** The body of a request of the control API. */
import type { Context } from 'hono';
import type { z } from 'zod';
import { NetbusError } from '../device/errors.ts';

/** The body as the schema wants it. Throws `usage` with what is wrong. */
export async function body<Schema extends z.ZodType>(context: Context, schema: Schema): Promise<z.output<Schema>> {
  let value: unknown;
  try {
    value = await context.req.json();
  } catch {
    throw new NetbusError('usage', "the request's body is not JSON");
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data as z.output<Schema>;
  const problems = result.error.issues.map(({ path, message }) => `${path.map(String).join('.') || 'body'}: ${message}`);
  throw new NetbusError('usage', problems.join('; '));
}
