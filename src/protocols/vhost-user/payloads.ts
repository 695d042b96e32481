/** The payload layouts that messages share, each with its validation. */
import { CONFIG_BYTES_MAX, MEM_TABLE_REGIONS_MAX, RING_INDEX_MAX, RING_SIZE_MAX } from './numbers.ts';
import { malformed, type PayloadReader, type PayloadWriter } from './wire.ts';

/** One piece of guest memory, whose file comes along as a descriptor. */
export interface MemoryRegion {
  /** Where the guest sees it. */
  readonly guestAddress: number;
  /** Bytes, at least 1. */
  readonly size: number;
  /** Where the front-end sees it; the addresses of rings are in this space. */
  readonly userAddress: number;
  /** Where it begins in the file. */
  readonly mmapOffset: number;
}

export const MEMORY_REGION_BYTES = 32;

export function readMemoryRegion(reader: PayloadReader, title: string): MemoryRegion {
  const region = {
    guestAddress: reader.place('guest address'),
    size: reader.place('region size'),
    userAddress: reader.place('user address'),
    mmapOffset: reader.place('mmap offset'),
  };
  if (region.size === 0) throw malformed(`${title} has an empty region`);
  for (const start of [region.guestAddress, region.userAddress, region.mmapOffset]) {
    if (!Number.isSafeInteger(start + region.size)) throw malformed(`${title} has a region that ends above 2^53`);
  }
  return region;
}

export function writeMemoryRegion(writer: PayloadWriter, region: MemoryRegion): void {
  writer.place(region.guestAddress).place(region.size).place(region.userAddress).place(region.mmapOffset);
}

export function readMemoryTable(reader: PayloadReader, title: string): MemoryRegion[] {
  const count = reader.u32();
  reader.u32();
  if (count > MEM_TABLE_REGIONS_MAX) throw malformed(`${title} has ${count} regions, the limit is ${MEM_TABLE_REGIONS_MAX}`);
  const regions: MemoryRegion[] = [];
  for (let i = 0; i < count; i++) regions.push(readMemoryRegion(reader, title));
  return regions;
}

/** A ring's index, and one number about it. */
export interface RingState {
  readonly index: number;
  readonly value: number;
}

export const RING_STATE_BYTES = 8;

export function readRingState(reader: PayloadReader, title: string, valueMax: number): RingState {
  const state = { index: reader.u32(), value: reader.u32() };
  if (state.index > RING_INDEX_MAX) throw malformed(`${title} is about ring ${state.index}, the limit is ${RING_INDEX_MAX}`);
  if (state.value > valueMax) throw malformed(`${title} has the value ${state.value}, the limit is ${valueMax}`);
  return state;
}

/** Where the three parts of a ring are, in the front-end's address space. */
export interface RingAddresses {
  readonly index: number;
  /** Bit 0: log writes to the used ring (see `logAddress`). */
  readonly flags: number;
  readonly descriptors: number;
  readonly used: number;
  readonly available: number;
  /** Guest address of the used ring for the dirty log. */
  readonly logAddress: number;
}

export const RING_ADDRESSES_BYTES = 40;

export function readRingAddresses(reader: PayloadReader, title: string): RingAddresses {
  const index = reader.u32();
  if (index > RING_INDEX_MAX) throw malformed(`${title} is about ring ${index}, the limit is ${RING_INDEX_MAX}`);
  return {
    index,
    flags: reader.u32(),
    descriptors: reader.place('descriptor address'),
    used: reader.place('used ring address'),
    available: reader.place('available ring address'),
    logAddress: reader.place('log address'),
  };
}

/** A window of the device's configuration space. */
export interface ConfigWindow {
  readonly offset: number;
  readonly flags: number;
  readonly data: Uint8Array;
}

export const CONFIG_HEADER_BYTES = 12;

export function readConfigWindow(reader: PayloadReader, title: string): ConfigWindow {
  const offset = reader.u32();
  const size = reader.u32();
  const flags = reader.u32();
  if (size > CONFIG_BYTES_MAX || offset > CONFIG_BYTES_MAX - size) {
    throw malformed(
      `${title} is about bytes ${offset} to ${offset + size} of the configuration, the limit is ${CONFIG_BYTES_MAX}`,
    );
  }
  return { offset, flags, data: reader.bytes(size) };
}

/** The region in which requests in flight are noted. */
export interface InflightRegion {
  readonly mmapSize: number;
  readonly mmapOffset: number;
  readonly queues: number;
  readonly queueSize: number;
}

/** With the padding that QEMU's structure has: it refuses a reply of the 20 bytes that the fields have. */
export const INFLIGHT_REGION_BYTES = 24;
const INFLIGHT_PADDING_BYTES = 4;

export function readInflightRegion(reader: PayloadReader): InflightRegion {
  const region = {
    mmapSize: reader.place('region size'),
    mmapOffset: reader.place('mmap offset'),
    queues: reader.u16(),
    queueSize: reader.u16(),
  };
  if (reader.left === INFLIGHT_PADDING_BYTES) reader.u32();
  return region;
}

export const ringNumberMax = RING_SIZE_MAX;
/** A split ring's base is a 16-bit index. */
export const ringBaseMax = 0xffff;
