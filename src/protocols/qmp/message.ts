/** QMP's messages: lines of JSON to checked values, and commands to lines (QEMU docs/interop/qmp-spec). */
import { NetbusError } from '../../device/errors.ts';

/** The members that a command or an event has; QEMU's schema says which. */
export type QmpObject = Record<string, unknown>;

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

export interface QmpGreeting {
  readonly version: QmpVersion;
  /** The distribution's own words, such as "Debian 1:7.2+dfsg-7"; may be empty. */
  readonly package: string;
  readonly capabilities: readonly string[];
}

export interface QmpEvent {
  readonly name: string;
  readonly data: QmpObject;
  /** QEMU's wall clock, in milliseconds since 1970. */
  readonly timeMs: number;
}

/** Why QEMU did not carry out a command. */
export interface QmpRefusal {
  /** GenericError, CommandNotFound, DeviceNotFound, DeviceNotActive, KVMMissingCap. */
  readonly errorClass: string;
  /** For people; its words change from release to release. */
  readonly description: string;
}

export type QmpMessage =
  | { readonly kind: 'greeting'; readonly greeting: QmpGreeting }
  | { readonly kind: 'event'; readonly event: QmpEvent }
  | { readonly kind: 'answer'; readonly id: unknown; readonly value: unknown }
  | { readonly kind: 'refusal'; readonly id: unknown; readonly refusal: QmpRefusal };

/** What a line says. Unknown members are ignored, as the specification wants it. Throws NetbusError `protocol`. */
export function decodeMessage(line: string): QmpMessage {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch (thrown) {
    throw new NetbusError('protocol', `a line is not JSON: ${excerpt(line)}`, { cause: thrown });
  }
  if (!isObject(message)) throw new NetbusError('protocol', `a line is not a JSON object: ${excerpt(line)}`);
  if (Object.hasOwn(message, 'QMP')) return { kind: 'greeting', greeting: greetingOf(message.QMP) };
  if (Object.hasOwn(message, 'event')) return { kind: 'event', event: eventOf(message) };
  if (Object.hasOwn(message, 'return')) return { kind: 'answer', id: message.id, value: message.return };
  if (Object.hasOwn(message, 'error')) return { kind: 'refusal', id: message.id, refusal: refusalOf(message.error) };
  throw new NetbusError('protocol', `a line is no message of QMP: ${excerpt(line)}`);
}

/** A command as a line. */
export function encodeCommand(id: number, command: string, parameters: QmpObject): string {
  return `${JSON.stringify({ execute: command, arguments: parameters, id })}\n`;
}

function greetingOf(value: unknown): QmpGreeting {
  const greeting = object(value, 'QMP');
  const version = object(greeting.version, 'QMP.version');
  const { major, minor, micro } = object(version.qemu, 'QMP.version.qemu');
  const { capabilities = [] } = greeting;
  if (!Array.isArray(capabilities)) throw malformed('QMP.capabilities', 'an array');
  return {
    version: {
      major: count(major, 'QMP.version.qemu.major'),
      minor: count(minor, 'QMP.version.qemu.minor'),
      micro: count(micro, 'QMP.version.qemu.micro'),
    },
    package: typeof version.package === 'string' ? version.package : '',
    // A capability of a later QEMU may be anything.
    capabilities: capabilities.filter((capability) => typeof capability === 'string'),
  };
}

function eventOf(message: QmpObject): QmpEvent {
  const { seconds, microseconds } = object(message.timestamp, 'timestamp');
  // QEMU says -1 for both where it has no time.
  const timeMs = number(seconds, 'timestamp.seconds') * 1000 + number(microseconds, 'timestamp.microseconds') / 1000;
  return { name: text(message.event, 'event'), data: message.data === undefined ? {} : object(message.data, 'data'), timeMs };
}

function refusalOf(value: unknown): QmpRefusal {
  const error = object(value, 'error');
  return { errorClass: text(error.class, 'error.class'), description: text(error.desc, 'error.desc') };
}

export function isObject(value: unknown): value is QmpObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function object(value: unknown, where: string): QmpObject {
  if (!isObject(value)) throw malformed(where, 'an object');
  return value;
}

function text(value: unknown, where: string): string {
  if (typeof value !== 'string') throw malformed(where, 'a string');
  return value;
}

function number(value: unknown, where: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) throw malformed(where, 'a number');
  return value;
}

function count(value: unknown, where: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw malformed(where, 'a whole number');
  return value as number;
}

function malformed(where: string, wanted: string): NetbusError {
  return new NetbusError('protocol', `a message's ${where} is not ${wanted}`);
}

const EXCERPT_CHARACTERS = 60;

/** The beginning of a line, quoted, on one line whatever it has in it. */
function excerpt(line: string): string {
  const cut = line.length > EXCERPT_CHARACTERS;
  return JSON.stringify(cut ? `${line.slice(0, EXCERPT_CHARACTERS)}...` : line);
}
