/** What the back-end answers, as values: encode for its role, decode for the front-end's. */
import { beginMessage, type Header } from './header.ts';
import { Request, requestTitle } from './numbers.ts';
import {
  CONFIG_HEADER_BYTES,
  type ConfigWindow,
  INFLIGHT_REGION_BYTES,
  type InflightRegion,
  RING_STATE_BYTES,
  readConfigWindow,
  readInflightRegion,
  readRingState,
  ringBaseMax,
} from './payloads.ts';
import { malformed, PayloadReader } from './wire.ts';

export type Reply =
  /** The available index from which the ring would go on. */
  | { readonly name: 'getVringBase'; readonly index: number; readonly base: number }
  | { readonly name: 'getConfig'; readonly window: ConfigWindow }
  /** With the region's descriptor. */
  | { readonly name: 'getInflightFd'; readonly inflight: InflightRegion }
  /** GET_FEATURES and the like, and every acknowledgement (0 = done, else failed). */
  | { readonly name: 'u64'; readonly request: number; readonly value: bigint }
  /** GET_CONFIG that failed; SET_LOG_BASE of back-ends that answer it without a value. */
  | { readonly name: 'empty'; readonly request: number };

/** Values of an acknowledgement. */
export const Ack = { done: 0n, failed: 1n } as const;
/** In the answer to SET_DEVICE_STATE_FD: no descriptor comes back. */
export const NO_DESCRIPTOR = 1n << 8n;

export function encodeReply(reply: Reply): Uint8Array {
  const request = 'request' in reply ? reply.request : Request[reply.name];
  const begin = (size: number) => beginMessage({ request, reply: true, needReply: false, size });
  switch (reply.name) {
    case 'getVringBase':
      return begin(RING_STATE_BYTES).u32(reply.index).u32(reply.base).bytes;
    case 'getConfig': {
      const { offset, flags, data } = reply.window;
      return begin(CONFIG_HEADER_BYTES + data.length)
        .u32(offset)
        .u32(data.length)
        .u32(flags)
        .copy(data).bytes;
    }
    case 'getInflightFd': {
      const { mmapSize, mmapOffset, queues, queueSize } = reply.inflight;
      return begin(INFLIGHT_REGION_BYTES).place(mmapSize).place(mmapOffset).u16(queues).u16(queueSize).bytes;
    }
    case 'u64':
      return begin(8).u64(reply.value).bytes;
    case 'empty':
      return begin(0).bytes;
  }
}

/** Throws a `protocol` error, and nothing else, for whatever is not a reply. */
export function decodeReply(header: Header, payload: Uint8Array): Reply {
  const { request } = header;
  const title = `the reply to ${requestTitle(request)}`;
  if (!header.reply) throw malformed(`${title} came without the reply flag`);
  if (payload.length !== header.size)
    throw malformed(`${title} announces ${header.size} bytes of payload and has ${payload.length}`);
  if (payload.length === 0) return { name: 'empty', request };
  const reader = new PayloadReader(payload, title);
  const reply = read(request, reader, title);
  reader.end();
  return reply;
}

function read(request: number, reader: PayloadReader, title: string): Reply {
  switch (request) {
    case Request.getVringBase: {
      const { index, value } = readRingState(reader, title, ringBaseMax);
      return { name: 'getVringBase', index, base: value };
    }
    case Request.getConfig:
      return { name: 'getConfig', window: readConfigWindow(reader, title) };
    case Request.getInflightFd:
      return { name: 'getInflightFd', inflight: readInflightRegion(reader) };
    default:
      return { name: 'u64', request, value: reader.u64() };
  }
}
