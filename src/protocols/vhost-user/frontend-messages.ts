/** What the front-end (the VMM) says, as values: encode for its role, decode for the back-end's. */
import { beginMessage, type Header } from './header.ts';
import { Request, type RequestName, requestNames, requestTitle } from './numbers.ts';
import {
  CONFIG_HEADER_BYTES,
  type ConfigWindow,
  INFLIGHT_REGION_BYTES,
  type InflightRegion,
  MEMORY_REGION_BYTES,
  type MemoryRegion,
  RING_ADDRESSES_BYTES,
  RING_STATE_BYTES,
  type RingAddresses,
  readConfigWindow,
  readInflightRegion,
  readMemoryRegion,
  readMemoryTable,
  readRingAddresses,
  readRingState,
  ringBaseMax,
  ringNumberMax,
  writeMemoryRegion,
} from './payloads.ts';
import { malformed, PayloadReader } from './wire.ts';

/** Messages without payload and without descriptor. */
type BareName =
  | 'getFeatures'
  | 'setOwner'
  | 'resetOwner'
  | 'getProtocolFeatures'
  | 'getQueueNum'
  | 'getMaxMemSlots'
  | 'resetDevice'
  | 'getStatus'
  | 'checkDeviceState';

/** A message of the front-end. Descriptors travel beside it, in the order that the message implies. */
export type FrontendMessage =
  | { readonly name: BareName }
  | { readonly name: 'setFeatures' | 'setProtocolFeatures'; readonly features: bigint }
  /** One descriptor per region. */
  | { readonly name: 'setMemTable'; readonly regions: readonly MemoryRegion[] }
  /** With the region's descriptor. */
  | { readonly name: 'addMemReg'; readonly region: MemoryRegion }
  /** A descriptor that comes along by an old mistake is to be closed unused. */
  | { readonly name: 'remMemReg'; readonly region: MemoryRegion }
  /** The size is 0 where the peer sends an address instead of a descriptor. */
  | { readonly name: 'setLogBase'; readonly logSize: bigint; readonly logOffset: bigint }
  | { readonly name: 'setLogFd' | 'setBackendReqFd' }
  | { readonly name: 'setVringNum'; readonly index: number; readonly size: number }
  | { readonly name: 'setVringBase'; readonly index: number; readonly base: number }
  | { readonly name: 'getVringBase'; readonly index: number }
  | { readonly name: 'setVringEnable'; readonly index: number; readonly enabled: boolean }
  | { readonly name: 'vringKick'; readonly index: number }
  | { readonly name: 'setVringAddr'; readonly addresses: RingAddresses }
  /** With a descriptor, unless `hasFd` is false: then the ring is polled (kick) or nobody listens (call, err). */
  | { readonly name: 'setVringKick' | 'setVringCall' | 'setVringErr'; readonly index: number; readonly hasFd: boolean }
  /** `data` has the length that is asked for; its content means nothing. */
  | { readonly name: 'getConfig'; readonly window: ConfigWindow }
  | { readonly name: 'setConfig'; readonly window: ConfigWindow }
  | { readonly name: 'getInflightFd'; readonly inflight: InflightRegion }
  /** With a descriptor. */
  | { readonly name: 'setInflightFd'; readonly inflight: InflightRegion }
  | { readonly name: 'setStatus'; readonly status: bigint }
  /** With the descriptor that the state goes over. Values of DeviceState; others may come. */
  | { readonly name: 'setDeviceStateFd'; readonly direction: number; readonly phase: number }
  /** A number that has no layout here: skipped, and answered with an error where an answer is asked for. */
  | { readonly name: 'unsupported'; readonly request: number; readonly payload: Uint8Array };

const RING_INDEX_MASK = 0xffn;
const NO_FD = 1n << 8n;

/**
 * Validates and decodes one message. `fdCount` is the number of descriptors that came along; one that is missing or too many is an error, too.
 * Throws a `protocol` error that says what is wrong; whatever the bytes are, it throws nothing else.
 */
export function decodeFrontendMessage(header: Header, payload: Uint8Array, fdCount: number): FrontendMessage {
  const title = requestTitle(header.request);
  if (header.reply) throw malformed(`${title} came with the reply flag from the front-end`);
  if (payload.length !== header.size)
    throw malformed(`${title} announces ${header.size} bytes of payload and has ${payload.length}`);
  const name = requestNames.get(header.request);
  const reader = new PayloadReader(payload, title);
  const message = name === undefined ? unsupported(header, payload) : read(name, header, reader, payload);
  if (message.name === 'unsupported') return message;
  reader.end();
  checkDescriptors(message, fdCount, title);
  return message;
}

function unsupported(header: Header, payload: Uint8Array): FrontendMessage {
  return { name: 'unsupported', request: header.request, payload: payload.slice() };
}

function read(name: RequestName, header: Header, reader: PayloadReader, payload: Uint8Array): FrontendMessage {
  const title = requestTitle(header.request);
  switch (name) {
    case 'getFeatures':
    case 'setOwner':
    case 'resetOwner':
    case 'getProtocolFeatures':
    case 'getQueueNum':
    case 'getMaxMemSlots':
    case 'resetDevice':
    case 'getStatus':
    case 'checkDeviceState':
    case 'setLogFd':
    case 'setBackendReqFd':
      return { name };
    case 'setFeatures':
    case 'setProtocolFeatures':
      return { name, features: reader.u64() };
    case 'setMemTable':
      return { name, regions: readMemoryTable(reader, title) };
    case 'addMemReg':
    case 'remMemReg':
      reader.u64();
      return { name, region: readMemoryRegion(reader, title) };
    case 'setLogBase':
      return { name, logSize: reader.u64(), logOffset: reader.left >= 8 ? reader.u64() : 0n };
    case 'setVringNum': {
      const { index, value } = readRingState(reader, title, ringNumberMax);
      return { name, index, size: value };
    }
    case 'setVringBase': {
      const { index, value } = readRingState(reader, title, ringBaseMax);
      return { name, index, base: value };
    }
    case 'getVringBase':
    case 'vringKick':
      return { name, index: readRingState(reader, title, 0xffffffff).index };
    case 'setVringEnable': {
      const { index, value } = readRingState(reader, title, 1);
      return { name, index, enabled: value === 1 };
    }
    case 'setVringAddr':
      return { name, addresses: readRingAddresses(reader, title) };
    case 'setVringKick':
    case 'setVringCall':
    case 'setVringErr': {
      const value = reader.u64();
      if ((value & ~(RING_INDEX_MASK | NO_FD)) !== 0n) throw malformed(`${title} has unknown bits: 0x${value.toString(16)}`);
      return { name, index: Number(value & RING_INDEX_MASK), hasFd: (value & NO_FD) === 0n };
    }
    case 'getConfig':
    case 'setConfig':
      return { name, window: readConfigWindow(reader, title) };
    case 'getInflightFd':
    case 'setInflightFd':
      return { name, inflight: readInflightRegion(reader) };
    case 'setStatus':
      return { name, status: reader.u64() };
    case 'setDeviceStateFd':
      return { name, direction: reader.u32(), phase: reader.u32() };
    default:
      return unsupported(header, payload);
  }
}

/** Descriptors that a message must come with: [least, most]. */
export function descriptorsExpected(message: FrontendMessage): readonly [number, number] {
  switch (message.name) {
    case 'setMemTable':
      return [message.regions.length, message.regions.length];
    case 'addMemReg':
    case 'setLogFd':
    case 'setBackendReqFd':
    case 'setInflightFd':
    case 'setDeviceStateFd':
      return [1, 1];
    case 'remMemReg':
    case 'setLogBase':
      return [0, 1];
    case 'setVringKick':
    case 'setVringCall':
    case 'setVringErr':
      return message.hasFd ? [1, 1] : [0, 0];
    default:
      return [0, 0];
  }
}

function checkDescriptors(message: FrontendMessage, fdCount: number, title: string): void {
  const [least, most] = descriptorsExpected(message);
  if (fdCount < least || fdCount > most) {
    throw malformed(
      `${title} came with ${fdCount} file descriptors, expected ${least === most ? least : `${least} or ${most}`}`,
    );
  }
}

/** The whole message, header first. The caller sends the descriptors with it. */
export function encodeFrontendMessage(message: FrontendMessage, needReply = false): Uint8Array {
  const request = message.name === 'unsupported' ? message.request : Request[message.name];
  const begin = (size: number) => beginMessage({ request, reply: false, needReply, size });
  switch (message.name) {
    case 'setFeatures':
    case 'setProtocolFeatures':
      return begin(8).u64(message.features).bytes;
    case 'setMemTable': {
      const { regions } = message;
      const writer = begin(8 + regions.length * MEMORY_REGION_BYTES)
        .u32(regions.length)
        .u32(0);
      for (const region of regions) writeMemoryRegion(writer, region);
      return writer.bytes;
    }
    case 'addMemReg':
    case 'remMemReg': {
      const writer = begin(8 + MEMORY_REGION_BYTES).u64(0n);
      writeMemoryRegion(writer, message.region);
      return writer.bytes;
    }
    case 'setLogBase':
      return begin(16).u64(message.logSize).u64(message.logOffset).bytes;
    case 'setVringNum':
      return begin(RING_STATE_BYTES).u32(message.index).u32(message.size).bytes;
    case 'setVringBase':
      return begin(RING_STATE_BYTES).u32(message.index).u32(message.base).bytes;
    case 'getVringBase':
    case 'vringKick':
      return begin(RING_STATE_BYTES).u32(message.index).u32(0).bytes;
    case 'setVringEnable':
      return begin(RING_STATE_BYTES)
        .u32(message.index)
        .u32(message.enabled ? 1 : 0).bytes;
    case 'setVringAddr': {
      const { index, flags, descriptors, used, available, logAddress } = message.addresses;
      const writer = begin(RING_ADDRESSES_BYTES).u32(index).u32(flags);
      return writer.place(descriptors).place(used).place(available).place(logAddress).bytes;
    }
    case 'setVringKick':
    case 'setVringCall':
    case 'setVringErr':
      return begin(8).u64(BigInt(message.index) | (message.hasFd ? 0n : NO_FD)).bytes;
    case 'getConfig':
    case 'setConfig': {
      const { offset, flags, data } = message.window;
      return begin(CONFIG_HEADER_BYTES + data.length)
        .u32(offset)
        .u32(data.length)
        .u32(flags)
        .copy(data).bytes;
    }
    case 'getInflightFd':
    case 'setInflightFd': {
      const { mmapSize, mmapOffset, queues, queueSize } = message.inflight;
      return begin(INFLIGHT_REGION_BYTES).place(mmapSize).place(mmapOffset).u16(queues).u16(queueSize).bytes;
    }
    case 'setStatus':
      return begin(8).u64(message.status).bytes;
    case 'setDeviceStateFd':
      return begin(8).u32(message.direction).u32(message.phase).bytes;
    case 'unsupported':
      return begin(message.payload.length).copy(message.payload).bytes;
    default:
      return begin(0).bytes;
  }
}
