/** docs/protocol.md, 2.1, 2.2 and 5: every bound of the protocol, in one place. */
import { FrameType } from './frame.ts';

/** What a guest leaves where it stops travels with the lease: docs/protocol.md, 4.2. */
export const HAND_OVER_FEATURE = 'hand-over';

/** A device is replaced while it is in use: docs/protocol.md, 4.5. */
export const SWAP_FEATURE = 'swap';

/** Versions that this release speaks, lowest and highest. */
export const PROTOCOL_VERSIONS: VersionRange = [1, 1];
export type VersionRange = readonly [lowest: number, highest: number];

/** Additions that this release understands: docs/protocol.md, 3.1. */
export const PROTOCOL_FEATURES: readonly string[] = [HAND_OVER_FEATURE, SWAP_FEATURE];

/** TLS's application-layer protocol name (RFC 7301). */
export const NETBUS_ALPN = 'netbus';

/** HELLO, WELCOME, BYE, STATE, STATED. */
const HANDSHAKE_PAYLOAD_BYTES_MAX = 64 * 1024;
/** CALL, RESULT. */
export const CONTROL_PAYLOAD_BYTES_MAX = 1024 * 1024;
/** REQUEST, REPLY, EVENT; also the most room that a request may ask for its reply. */
export const DATA_PAYLOAD_BYTES_MAX = 4 * 1024 * 1024;

/** From the TCP connection to the end of HELLO (and of WELCOME, at the opener's side). */
export const HANDSHAKE_MS_MAX = 10_000;
/** Connections of one host that have not finished HELLO. */
export const UNFINISHED_CONNECTIONS_MAX = 64;
export const SESSIONS_MAX = 1024;
/** Connections of hosts that want to join, after their HELLO. */
export const JOINERS_MAX = 4;
/** From HELLO to the RESULT of a host that joins. */
export const JOIN_MS_MAX = 15_000;
/** A signed member list, which is ASCII text: it fits into a CALL. */
export const MEMBER_LIST_BYTES_MAX = 960 * 1024;
/** A certificate request, PEM text. */
export const CERTIFICATE_REQUEST_BYTES_MAX = 16 * 1024;
/** A certificate with those between it and the root, PEM text. */
export const CERTIFICATE_CHAIN_BYTES_MAX = 64 * 1024;
/** Certificates above the host's own in the WELCOME of a host that joins. */
export const JOIN_CERTIFICATES_MAX = 4;
/** CALLs without RESULT, per link and direction. */
export const CALLS_MAX = 64;
/** PINGs that were received and whose PONG has not been sent. */
export const PINGS_UNANSWERED_MAX = 64;

/** A side that has sent nothing for so long sends PING. */
export const HEARTBEAT_IDLE_MS = 5_000;
/** A side that has received nothing for so long takes the connection for cut. */
export const HEARTBEAT_CUT_MS = 15_000;

/** Credit of a session that its WELCOME may name: at least one message of the largest size with the largest reply. */
export const DEPTH_MAX = 4096;
export const CREDIT_BYTES_MIN = 2 * DATA_PAYLOAD_BYTES_MAX;
export const CREDIT_BYTES_MAX = 1024 * 1024 * 1024;
/** What the device's side gives unless it is told otherwise. */
export const CREDIT_BYTES_DEFAULT = 8 * 1024 * 1024;
/** EVENTs of one direction that the receiver has not consumed. */
export const EVENTS_MAX = 64;
export const EVENT_BYTES_MAX = 1024 * 1024;

/** Longest `message` of an error or BYE that is shown or logged, in characters. */
export const ERROR_TEXT_MAX = 500;

const payloadBytesMax = new Int32Array(256).fill(-1);
payloadBytesMax[FrameType.hello] = HANDSHAKE_PAYLOAD_BYTES_MAX;
payloadBytesMax[FrameType.welcome] = HANDSHAKE_PAYLOAD_BYTES_MAX;
payloadBytesMax[FrameType.bye] = HANDSHAKE_PAYLOAD_BYTES_MAX;
payloadBytesMax[FrameType.ping] = 0;
payloadBytesMax[FrameType.pong] = 0;
payloadBytesMax[FrameType.call] = CONTROL_PAYLOAD_BYTES_MAX;
payloadBytesMax[FrameType.result] = CONTROL_PAYLOAD_BYTES_MAX;
payloadBytesMax[FrameType.state] = HANDSHAKE_PAYLOAD_BYTES_MAX;
payloadBytesMax[FrameType.stated] = HANDSHAKE_PAYLOAD_BYTES_MAX;
payloadBytesMax[FrameType.request] = DATA_PAYLOAD_BYTES_MAX;
payloadBytesMax[FrameType.reply] = DATA_PAYLOAD_BYTES_MAX;
payloadBytesMax[FrameType.event] = EVENT_BYTES_MAX;
payloadBytesMax[FrameType.credit] = 0;

/** Most payload bytes of a frame of `type`; -1 where there is no such type. */
export function framePayloadBytesMax(type: number): number {
  return payloadBytesMax[type];
}
