/** What the back-end says on the backend channel (SET_BACKEND_REQ_FD): encode for its role, decode for the front-end's. */
import { beginMessage, type Header } from './header.ts';
import { BackendRequest } from './numbers.ts';
import { malformed } from './wire.ts';

export type BackendMessage =
  /** The configuration space changed: read it again. */
  | { readonly name: 'configChangeMsg' }
  | { readonly name: 'unsupported'; readonly request: number; readonly payload: Uint8Array };

export function encodeBackendMessage(message: BackendMessage, needReply = false): Uint8Array {
  switch (message.name) {
    case 'configChangeMsg':
      return beginMessage({ request: BackendRequest.configChangeMsg, reply: false, needReply, size: 0 }).bytes;
    case 'unsupported':
      return beginMessage({ request: message.request, reply: false, needReply, size: message.payload.length }).copy(
        message.payload,
      ).bytes;
  }
}

/** Throws a `protocol` error, and nothing else, for whatever is not such a message. */
export function decodeBackendMessage(header: Header, payload: Uint8Array): BackendMessage {
  if (payload.length !== header.size)
    throw malformed(`backend message ${header.request} has ${payload.length} bytes of payload`);
  if (header.request !== BackendRequest.configChangeMsg) {
    return { name: 'unsupported', request: header.request, payload: payload.slice() };
  }
  if (header.size !== 0) throw malformed(`BACKEND_CONFIG_CHANGE_MSG has ${header.size} bytes of payload, expected none`);
  return { name: 'configChangeMsg' };
}
