/** A hot-swap's steps at a host far away: calls on the control link (docs/protocol.md, 4.5 and 7). */
import { z } from 'zod';
import { holdSchema } from '../api/types.ts';
import type { LinkWelcome } from '../bus/outgoing-link.ts';
import type { CopyMark, CopyTarget } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import { DISK_CAPACITY_BYTES_MAX } from '../device/profile.ts';
import { DATA_EXTENTS_MAX, type DataExtents } from '../device/source.ts';
import type { CopyHost, FillRequest } from '../migration/swap/copy-host.ts';
import { SWAP_FEATURE } from '../protocols/netbus/limits.ts';
import type { OutcomeRequest } from './copies.ts';
import { copyMarkSchema } from './records.ts';

/** To see that a device is blank, up to 64 MiB are read. */
const FILL_MS_MAX = 60_000;

export interface RemoteCopiesOptions {
  readonly host: string;
  readonly welcome: () => Promise<LinkWelcome>;
  /** A call, whose answer is checked. */
  readonly ask: <Schema extends z.ZodType>(
    method: string,
    params: object,
    schema: Schema,
    timeoutMs?: number,
  ) => Promise<z.output<Schema>>;
}

const nothingSchema = z.object({});
const begunSchema = z.object({ generation: z.number().int().min(1), fenceAfterMs: holdSchema.optional() });
const filledSchema = z.object({ attachment: z.uuid(), depth: z.number().int().min(1).max(4096), isBlank: z.boolean() });
const decidedSchema = z.object({ decided: z.boolean() });
const markSchema = z.object({ mark: copyMarkSchema.nullable() });
const bytesSchema = z.number().int().min(0).max(DISK_CAPACITY_BYTES_MAX);
const extentsSchema = z.object({
  ranges: z.array(z.tuple([bytesSchema, bytesSchema.min(1)])).max(DATA_EXTENTS_MAX),
  next: bytesSchema.optional(),
});

export class RemoteCopies implements CopyHost {
  readonly #options: RemoteCopiesOptions;

  constructor(options: RemoteCopiesOptions) {
    this.#options = options;
  }

  begin(attachment: string, to: CopyTarget): Promise<{ generation: number; fenceAfterMs?: number | undefined }> {
    return this.#ask('copy.begin', { attachment, to }, begunSchema);
  }

  fill(request: FillRequest): Promise<{ attachment: string; depth: number; isBlank: boolean }> {
    return this.#ask('copy.fill', request, filledSchema, FILL_MS_MAX);
  }

  async complete(attachment: string, generation: number): Promise<void> {
    await this.#ask('copy.complete', { attachment, generation }, nothingSchema);
  }

  async handOver(attachment: string, generation: number): Promise<void> {
    await this.#ask('copy.handOver', { attachment, generation }, nothingSchema);
  }

  async supersede(attachment: string, generation: number): Promise<void> {
    await this.#ask('copy.supersede', { attachment, generation }, nothingSchema);
  }

  abort(attachment: string, generation: number): Promise<{ decided: boolean }> {
    return this.#ask('copy.abort', { attachment, generation }, decidedSchema);
  }

  async mark(attachment: string): Promise<CopyMark | null> {
    return (await this.#ask('copy.mark', { attachment }, markSchema)).mark;
  }

  /** The ranges are in order, and the answer goes on, or ends: the peer is outside. */
  async extents(attachment: string, from: number): Promise<DataExtents> {
    const extents = await this.#ask('copy.extents', { attachment, from }, extentsSchema);
    const { ranges, next } = extents;
    let end = from;
    for (const [position, length] of ranges) {
      if (position < end) throw this.#odd('ranges that are not in order');
      end = position + length;
    }
    if (next !== undefined && (next <= from || next < end)) throw this.#odd('a next position that is behind');
    return extents;
  }

  /** See Copies. */
  outcome(request: OutcomeRequest): Promise<{ decided: boolean }> {
    return this.#ask('copy.outcome', request, decidedSchema);
  }

  async #ask<Schema extends z.ZodType>(
    method: string,
    params: object,
    schema: Schema,
    timeoutMs?: number,
  ): Promise<z.output<Schema>> {
    const { welcome, ask, host } = this.#options;
    const { release, features } = await welcome();
    if (features.includes(SWAP_FEATURE)) return ask(method, params, schema, timeoutMs);
    throw new NetbusError('protocol', `host ${host} runs netbus ${release}, which does not know hot-swapping: upgrade it`);
  }

  #odd(what: string): NetbusError {
    return new NetbusError('protocol', `host ${this.#options.host} answered copy.extents with ${what}`);
  }
}
