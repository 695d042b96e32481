import { REQUEST_MAGIC } from './constants.ts';

/** Bytes of a request's header; the payload of a write follows it. */
export const REQUEST_BYTES = 28;

const WORD = 2 ** 32;

/**
 * Writes a request's header at `at`. `user` and `tag`, two words of the caller's, are its cookie, which comes back with the reply. `position` is an
 * integer below 2^53, `length` one below 2^32.
 */
export function encodeRequest(
  view: DataView,
  at: number,
  command: number,
  flags: number,
  user: number,
  tag: number,
  position: number,
  length: number,
): void {
  view.setUint32(at, REQUEST_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, command);
  view.setUint32(at + 8, user);
  view.setUint32(at + 12, tag);
  view.setUint32(at + 16, Math.floor(position / WORD));
  view.setUint32(at + 20, position % WORD);
  view.setUint32(at + 24, length);
}
