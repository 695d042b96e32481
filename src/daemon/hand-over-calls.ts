/** What the hosts of a guest that moves tell each other past the device's host: docs/protocol.md, 7.2. The peer is who its certificate says. */
import { z } from 'zod';
import type { ControlHandlers } from '../bus/control-link.ts';
import type { Links } from '../bus/links.ts';
import { NetbusError } from '../device/errors.ts';
import type { Identity } from '../directory/identity.ts';
import { signedHandOverSchema, signHandOver } from '../directory/signed-hand-over.ts';
import type { Attachment } from './attachment.ts';
import type { Attachments } from './attachments.ts';
import type { HandOverPeers } from './successors.ts';

const expectSchema = z.object({ attachment: z.uuid(), expected: z.boolean() });
const putSchema = z.object({ attachment: z.uuid(), signed: signedHandOverSchema.nullable() });

export function handOverHandlers(attachments: () => Attachments): ControlHandlers {
  const find = (id: string): Attachment => {
    const found = [...attachments().all].find(({ record }) => record.attachment === id);
    if (found === undefined) throw new NetbusError('not_found', `there is no attachment ${id} here`);
    return found;
  };
  return {
    'handOver.expect': async (peer, params) => {
      const asked = expectSchema.safeParse(params);
      if (!asked.success) throw new NetbusError('usage', 'handOver.expect says whether one attachment is expected');
      find(asked.data.attachment).behind.expectedAt(peer, asked.data.expected);
      return {};
    },
    'handOver.put': async (peer, params) => {
      const asked = putSchema.safeParse(params);
      if (!asked.success) throw new NetbusError('usage', 'handOver.put brings what one attachment left, signed');
      await find(asked.data.attachment).behind.brought(peer, asked.data.signed);
      return {};
    },
  };
}

/** `identity`: this host's present one. */
export function handOverPeers(links: Pick<Links, 'call'>, identity: () => Identity): HandOverPeers {
  return {
    expect: async (from, attachment, expected) => {
      await links.call(from, 'handOver.expect', { attachment, expected });
    },
    sign: (stated) => signHandOver(identity(), stated),
    put: async (host, attachment, signed) => {
      await links.call(host, 'handOver.put', { attachment, signed });
    },
  };
}
