/**
 * The one error class of everything off the data path: a stable code for programs, one line for people.
 * On the data path a failure is a reply, never an exception.
 */

/** All codes, with the exit code that the command line gives them and the HTTP status of the control API. */
export const errorCodes = {
  /** A mistake in what the user typed or configured. */
  usage: { exit: 2, http: 400 },
  /** The config file, or another file that people write, is wrong. */
  config: { exit: 2, http: 400 },
  /** No such export, attachment, host or file. */
  not_found: { exit: 3, http: 404 },
  /** Somebody else has it: an image, a name, an exclusive device, a running daemon. */
  in_use: { exit: 4, http: 409 },
  /** The daemon of this host, or of another one, does not answer. */
  unreachable: { exit: 5, http: 503 },
  /** Not allowed: export's host list, certificates, file permissions. */
  denied: { exit: 6, http: 403 },
  /** For good: this host was evicted, so what it had is nobody's, and what it kept is never sent again. */
  fenced: { exit: 6, http: 403 },
  /** It took longer than its bound. */
  timeout: { exit: 7, http: 504 },
  /** The peer broke the protocol, or speaks no version in common. */
  protocol: { exit: 1, http: 502 },
  /** The device or the file behind it failed. */
  device: { exit: 1, http: 500 },
  /** A bound was reached: sessions, attachments, memory. */
  limit: { exit: 1, http: 429 },
  /** The session is over: displaced, cut, closed. */
  ended: { exit: 1, http: 409 },
  /** A bug of ours. */
  internal: { exit: 1, http: 500 },
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** An error with a stable code. The message is one line: what is wrong, where, and what to do. */
export class NetbusError extends Error {
  readonly code: ErrorCode;
  /** It does not change by itself: whoever tries again takes time for it. */
  readonly lasting: boolean;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; lasting?: boolean } = {}) {
    super(message, options);
    this.name = 'NetbusError';
    this.code = code;
    this.lasting = options.lasting ?? (code === 'denied' || code === 'not_found');
  }

  /** Wraps whatever was thrown; a NetbusError comes back as it is. */
  static from(thrown: unknown, code: ErrorCode = 'internal'): NetbusError {
    if (thrown instanceof NetbusError) return thrown;
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return new NetbusError(code, message, { cause: thrown });
  }
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(errorCodes, value);
}
