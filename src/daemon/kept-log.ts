/**
 * The write log that a guest leaves behind where it was, as the host that it went to asks for it (docs/protocol.md, 7): only where the device's host
 * forgot what the guest had not flushed before it was flushed there.
 */
import { z } from 'zod';
import type { ControlHandlers } from '../bus/control-link.ts';
import type { Links } from '../bus/links.ts';
import type { AllocateStaging } from '../bus/staging.ts';
import { NetbusError } from '../device/errors.ts';
import { KEPT_BLOCKS_PAGE_MAX, type KeptLog, type KeptPage } from '../filters/write-log/kept-blocks.ts';
import { LOG_BLOCK_BYTES } from '../filters/write-log/log-file.ts';
import type { Attachments } from './attachments.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

const PAGE_CHARACTERS_MAX = Math.ceil((KEPT_BLOCKS_PAGE_MAX * LOG_BLOCK_BYTES) / 3) * 4;

const askedSchema = z.object({ attachment: z.uuid(), after: z.number().int().min(-1) });
const pageSchema = z.object({
  blocks: z
    .array(z.object({ block: z.number().int().min(0), sectors: z.number().int().min(1), zero: z.boolean() }))
    .max(KEPT_BLOCKS_PAGE_MAX),
  data: z.string().max(PAGE_CHARACTERS_MAX),
  more: z.boolean(),
});

/** The host that the guest went to is the only one that may have it. */
export function keptLogHandlers(attachments: () => Attachments): ControlHandlers {
  return {
    'writeLog.read': async (peer, params) => {
      const asked = askedSchema.safeParse(params);
      if (!asked.success) throw new NetbusError('usage', 'writeLog.read asks for the blocks of one attachment after a number');
      const found = [...attachments().all].find(({ record }) => record.attachment === asked.data.attachment);
      if (found === undefined) throw new NetbusError('not_found', `there is no attachment ${asked.data.attachment} here`);
      const { blocks, data, more } = await found.behind.readKept(peer, asked.data.after);
      return { blocks, data: Buffer.from(data.buffer, data.byteOffset, data.length).toString('base64'), more };
    },
  };
}

export async function askKeptPage(
  links: Pick<Links, 'call'>,
  from: string,
  attachment: string,
  after: number,
): Promise<KeptPage> {
  const answer = pageSchema.safeParse(await links.call(from, 'writeLog.read', { attachment, after }));
  if (!answer.success) throw new NetbusError('protocol', `host ${from} answered writeLog.read with something else`);
  const { blocks, data, more } = answer.data;
  return { blocks, data: Buffer.from(data, 'base64'), more };
}

/** Asks the host that a guest comes from. */
export type AskKeptPage = (host: string, attachment: string, after: number) => Promise<KeptPage>;

/** The log that `host` keeps; undefined where it has not all of it any more. Rejects, for another try, where it does not say. */
export async function openKeptLog(
  options: { askKeptPage: AskKeptPage; allocate: AllocateStaging; record: StoredRecord<VirtualDeviceRecord> },
  host: string,
): Promise<KeptLog | undefined> {
  const { attachment, profile } = options.record.value;
  const read = (after: number) => options.askKeptPage(host, attachment, after);
  let first: KeptPage | undefined;
  try {
    first = await read(-1);
  } catch (thrown) {
    if (NetbusError.from(thrown).code === 'not_found') return undefined;
    throw thrown;
  }
  return {
    read: async (after) => {
      const page = first ?? (await read(after));
      first = undefined;
      return page;
    },
    staging: options.allocate(KEPT_BLOCKS_PAGE_MAX * LOG_BLOCK_BYTES),
    capacityBytes: profile.capacityBytes,
  };
}
