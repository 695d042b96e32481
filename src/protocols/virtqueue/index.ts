/** Split virtqueues from the device's side, over an abstract guest memory. No I/O. */
export { CHAIN_DESCRIPTORS_MAX, Chain } from './chain.ts';
export { UNKNOWN_QUEUE } from './hand-over.ts';
export { InflightQueue, inflightBytes } from './inflight.ts';
export { AddressMap, type GuestRegion, type MemoryRange } from './memory.ts';
export * from './split-queue.ts';
