/** The header of a frame: docs/protocol.md, 2. Numbers go in and out of fixed places; nothing is allocated per frame. */

export const FRAME_HEADER_BYTES = 32;

/** docs/protocol.md, 2: what a frame is. The values of `type`. */
export const FrameType = {
  hello: 1,
  welcome: 2,
  bye: 3,
  ping: 4,
  pong: 5,
  call: 16,
  result: 17,
  state: 32,
  stated: 33,
  request: 34,
  reply: 35,
  event: 36,
  credit: 37,
} as const;

/** `kind` of a STATE frame. */
export const SessionStateKind = { active: 1, quiesced: 2 } as const;

/** For messages to people: "REQUEST", or "type 99" where the type is unknown. */
export function frameTypeName(type: number): string {
  const name = Object.entries(FrameType).find(([, value]) => value === type)?.[0];
  return name === undefined ? `type ${type}` : name.toUpperCase();
}

/** One header as numbers. A parser has one and fills it again for each frame, so a value that is needed later is copied. */
export class FrameHeader {
  payloadLength = 0;
  type = 0;
  kind = 0;
  flags = 0;
  id = 0;
  inLength = 0;
  argument = 0;
  extent = 0;
}

/** Writes a header at `offset`. Every field is an integer in the range of its place; a caller that breaks that has a bug. */
export function encodeHeader(
  target: DataView,
  offset: number,
  payloadLength: number,
  type: number,
  kind: number,
  flags: number,
  id: number,
  inLength: number,
  argument: number,
  extent: number,
): void {
  target.setUint32(offset, payloadLength, true);
  target.setUint8(offset + 4, type);
  target.setUint8(offset + 5, kind);
  target.setUint16(offset + 6, flags, true);
  target.setUint32(offset + 8, id, true);
  target.setUint32(offset + 12, inLength, true);
  setInteger(target, offset + 16, argument);
  setInteger(target, offset + 24, extent);
}

/**
 * Reads a header at `offset`. False where `argument` or `extent` is 2^53 or more, which a double could not name exactly; the
 * other fields are filled in any case.
 */
export function decodeHeader(source: Uint8Array, offset: number, header: FrameHeader): boolean {
  header.payloadLength = u32(source, offset);
  header.type = source[offset + 4];
  header.kind = source[offset + 5];
  header.flags = source[offset + 6] | (source[offset + 7] << 8);
  header.id = u32(source, offset + 8);
  header.inLength = u32(source, offset + 12);
  const argumentHigh = u32(source, offset + 20);
  const extentHigh = u32(source, offset + 28);
  header.argument = u32(source, offset + 16) + argumentHigh * WORD;
  header.extent = u32(source, offset + 24) + extentHigh * WORD;
  return argumentHigh < HIGH_END && extentHigh < HIGH_END;
}

const WORD = 2 ** 32;
/** First high word of a number that is 2^53 or more. */
const HIGH_END = 2 ** 21;

function u32(source: Uint8Array, offset: number): number {
  return (source[offset] | (source[offset + 1] << 8) | (source[offset + 2] << 16) | (source[offset + 3] << 24)) >>> 0;
}

function setInteger(target: DataView, offset: number, value: number): void {
  // ToUint32 takes an integer modulo 2^32, so the low word needs no division.
  target.setUint32(offset, value >>> 0, true);
  target.setUint32(offset + 4, Math.floor(value / WORD), true);
}
