/** The vhost-user protocol as bytes and values, for both roles. No I/O. */
export * from './assembler.ts';
export * from './backend-messages.ts';
export * from './frontend-messages.ts';
export { decodeHeader, type Header } from './header.ts';
export * from './numbers.ts';
export {
  type ConfigWindow,
  INFLIGHT_REGION_BYTES,
  type InflightRegion,
  type MemoryRegion,
  RING_FLAG_LOG,
  type RingAddresses,
} from './payloads.ts';
export * from './replies.ts';
