/** A host far away that has a device: calls on the control link, and a session of its own per attachment: docs/protocol.md, 4 and 7. */
import { z } from 'zod';
import { attachmentPlaces, holdSchema, nameSchema } from '../api/types.ts';
import type { Bus } from '../bus/bus.ts';
import type { Target } from '../bus/dial.ts';
import { NetbusError } from '../device/errors.ts';
import { type Profile, profileSchema } from '../device/profile.ts';
import type { OpenSession } from '../device/source.ts';
import type { CopyHost } from '../migration/swap/copy-host.ts';
import type { OutcomeRequest } from './copies.ts';
import type {
  AttachToExport,
  DeviceHost,
  ExpectedDevice,
  PreparedDevice,
  PrepareRequest,
  PresentRequest,
  Whereabouts,
} from './device-host.ts';
import type { ExportListing } from './export-entry.ts';
import { ATTACHMENTS_SERVED_MAX } from './export-table.ts';
import type { CreatedAttachment } from './exports.ts';
import { RemoteCopies } from './remote-copies.ts';

const createdSchema = z.object({ attachment: z.uuid(), profile: profileSchema, depth: z.number().int().min(1).max(4096) });
const expectedSchema = z.object({
  devices: z
    .array(
      z.object({ attachment: z.uuid(), export: nameSchema, name: nameSchema, readOnly: z.boolean(), allowed: z.boolean() }),
    )
    .max(ATTACHMENTS_SERVED_MAX),
});
const preparedSchema = createdSchema.extend({
  export: nameSchema,
  name: nameSchema,
  writeCache: z.boolean().nullable(),
  holdMs: holdSchema.optional(),
});
const whereaboutsSchema = z.object({
  host: nameSchema,
  holder: nameSchema.nullable(),
  epoch: z.number().int().min(0),
  standby: nameSchema.optional(),
  previous: nameSchema.optional(),
  settled: z.boolean(),
});
const fencedSchema = z.object({ fenced: z.array(z.string().max(200)).max(ATTACHMENTS_SERVED_MAX) });
const grownSchema = z.object({ profile: profileSchema, grown: z.boolean() });
const detailsSchema = z.object({
  kind: z.string().max(64).optional(),
  blockBytes: z.number().optional(),
  allow: z.array(nameSchema).default([]),
  allowCount: z.number().default(0),
  since: z.iso.datetime(),
  reason: z.string().max(1000).optional(),
  users: z
    .array(
      z.object({
        host: nameSchema,
        vm: nameSchema,
        name: nameSchema,
        epoch: z.number(),
        active: z.boolean(),
        holdMs: holdSchema.optional(),
        since: z.iso.datetime().optional(),
        state: z.enum(attachmentPlaces).optional().catch(undefined),
        standby: nameSchema.optional(),
        previous: nameSchema.optional(),
        mark: z.string().max(400).optional(),
      }),
    )
    .default([]),
});
const listSchema = z.object({
  exports: z.array(
    z.object({
      name: nameSchema,
      class: z.literal('disk'),
      capacityBytes: z.number(),
      readOnly: z.boolean(),
      shared: z.boolean(),
      // Version 1 of the protocol does not ask for it.
      state: z.enum(['ready', 'waiting', 'failed']).default('ready'),
      inUseBy: z.array(z.string()),
      // Only where they were asked for, and not from an older release. What is odd about them must not hide the device.
      details: detailsSchema.optional().catch(undefined),
    }),
  ),
});

export class RemoteDeviceHost implements DeviceHost {
  readonly copies: CopyHost;
  readonly #bus: Bus;
  readonly #host: string;
  readonly #copies: RemoteCopies;
  readonly #targetOf: (host: string) => Target | undefined;

  /** `targetOf` is asked each time: a host may move, be evicted, and come back. */
  constructor(bus: Bus, host: string, targetOf: (host: string) => Target | undefined) {
    this.#bus = bus;
    this.#host = host;
    this.#targetOf = targetOf;
    this.#copies = new RemoteCopies({
      welcome: async () => bus.links.welcomeOf(this.#target().host),
      ask: (method, params, schema, timeoutMs) => this.#ask(method, params, schema, timeoutMs),
      host,
    });
    this.copies = this.#copies;
  }

  copyOutcome(request: OutcomeRequest): Promise<{ decided: boolean }> {
    return this.#copies.outcome(request);
  }

  attach(request: AttachToExport): Promise<CreatedAttachment> {
    return this.#ask('attachment.create', request, createdSchema);
  }

  async detach(attachment: string): Promise<void> {
    await this.#call('attachment.remove', { attachment });
  }

  grow(attachment: string): Promise<{ profile: Profile; grown: boolean }> {
    return this.#ask('attachment.grow', { attachment }, grownSchema);
  }

  async setWriteCache(attachment: string, enabled: boolean): Promise<void> {
    await this.#call('attachment.writeCache', { attachment, enabled });
  }

  async expected(vm: string, from: string): Promise<readonly ExpectedDevice[]> {
    return (await this.#ask('attachment.expected', { vm, from }, expectedSchema)).devices;
  }

  prepare(request: PrepareRequest): Promise<PreparedDevice> {
    return this.#ask('attachment.prepare', request, preparedSchema);
  }

  async unprepare(attachment: string): Promise<void> {
    await this.#call('attachment.unprepare', { attachment });
  }

  whereabouts(attachment: string): Promise<Whereabouts> {
    return this.#ask('attachment.whereabouts', { attachment }, whereaboutsSchema);
  }

  async present(request: PresentRequest): Promise<void> {
    await this.#call('attachment.present', request);
  }

  async settled(attachment: string, epoch: number): Promise<void> {
    await this.#call('attachment.settled', { attachment, epoch });
  }

  async fence(host: string): Promise<readonly string[]> {
    return (await this.#ask('host.fence', { host }, fencedSchema)).fenced;
  }

  async list(options: { details?: boolean } = {}): Promise<ExportListing[]> {
    return (await this.#ask('exports.list', options, listSchema)).exports;
  }

  openSession(attachment: string, signal: AbortSignal): OpenSession {
    return async (onEnded) => this.#bus.openSession({ target: this.#target(), attachment, signal }, onEnded);
  }

  async #call(method: string, params: object, timeoutMs?: number): Promise<unknown> {
    const options = timeoutMs === undefined ? {} : { timeoutMs };
    return this.#bus.links.call(this.#target().host, method, params, options);
  }

  #target(): Target {
    const target = this.#targetOf(this.#host);
    if (target !== undefined) return target;
    throw new NetbusError(
      'unreachable',
      `host ${this.#host} is not a member of the cluster: "netbus members" lists those that are`,
    );
  }

  /** The peer is outside: what it answers is checked before anything is made of it. */
  async #ask<Schema extends z.ZodType>(
    method: string,
    params: object,
    schema: Schema,
    timeoutMs?: number,
  ): Promise<z.output<Schema>> {
    const result = schema.safeParse(await this.#call(method, params, timeoutMs));
    if (result.success) return result.data as z.output<Schema>;
    const { path, message } = result.error.issues[0];
    const where = path.map(String).join('.') || 'value';
    throw new NetbusError('protocol', `host ${this.#host} answered ${method} with something else (${where}: ${message})`);
  }
}
