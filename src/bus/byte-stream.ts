/** What a connection needs of whatever carries its bytes: TLS on a socket, or what a test makes of it. */
export interface ByteStream {
  /** From now on it carries the bytes of `user`. */
  use(user: StreamUser): void;
  /** True where `write` takes something now. */
  readonly writable: boolean;
  /** Takes the first `length` bytes, all of them, at most STREAM_WRITE_BYTES_MAX; the memory may be used again at once. Only while `writable`. */
  write(bytes: Uint8Array, length: number): void;
  /** After all that was written: nothing more comes from this side. What arrives is still read. */
  end(): void;
  /** Closes at once. The user hears nothing more. Twice is once. */
  destroy(): void;
}

export const STREAM_WRITE_BYTES_MAX = 64 * 1024;

/** Who is told of a stream. No call comes from within a call of the stream. */
export interface StreamUser {
  /** The next bytes, lent for the call. */
  received(chunk: Uint8Array): void;
  /** It was not writable, and is now. */
  writable(): void;
  /** The peer will say nothing more. */
  ended(): void;
  /** Of no more use: "ECONNRESET", "ERR_SSL_WRONG_VERSION_NUMBER". */
  failed(code: string): void;
}
