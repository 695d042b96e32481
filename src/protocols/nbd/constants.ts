/** Numbers of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md). All integers on the wire are big-endian. */

export const DEFAULT_PORT = 10_809;
/** Conventions: a string has 4096 bytes at most. */
export const STRING_BYTES_MAX = 4096;

/** 64-bit magics as two words. */
export const GREETING_MAGIC = [0x4e42444d, 0x41474943] as const;
export const OPTION_MAGIC = [0x49484156, 0x454f5054] as const;
export const OPTION_REPLY_MAGIC = [0x0003e889, 0x045565a9] as const;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const CHUNK_MAGIC = 0x668e33ef;

export const HandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;
export const Option = { go: 7, structuredReply: 8 } as const;
export const Info = { export: 0, blockSize: 3 } as const;

export const OptionReply = {
  ack: 1,
  info: 3,
  unsupported: 0x80000001,
  policy: 0x80000002,
  tlsRequired: 0x80000005,
  unknown: 0x80000006,
  shutdown: 0x80000007,
} as const;

/** What the server says of an export. */
export const TransmissionFlag = {
  hasFlags: 1,
  readOnly: 2,
  sendFlush: 4,
  sendFua: 8,
  sendTrim: 32,
  sendWriteZeroes: 64,
  canMultiConn: 256,
} as const;

export const Command = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6 } as const;
export const CommandFlag = { fua: 1, noHole: 2 } as const;

export const Chunk = { none: 0, offsetData: 1, offsetHole: 2, error: 0x8001, errorOffset: 0x8002 } as const;
export const CHUNK_IS_ERROR = 0x8000;
export const CHUNK_FLAG_DONE = 1;

/** Errors have Linux's numbers, which the protocol fixes. */
export const NbdError = { io: 5, invalid: 22, overflow: 75, notSupported: 95, shutdown: 108 } as const;
