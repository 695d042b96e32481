/** The vhost-user protocol as bytes and values, for both roles. No I/O. */
export * from './assembler.ts';
export * from './backend-messages.ts';
export * from './frontend-messages.ts';
export { decodeHeader } from './header.ts';
export * from './numbers.ts';
export type {
  InflightRegion,
  MemoryRegion,
  RingAddresses,
} from './payloads.ts';
export * from './replies.ts';
