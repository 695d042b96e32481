/**
 * What a record's file holds: two slots of one size, each with a state of the record under a line that says which one it is. The newest counts. The next
 * state is written over the other slot, in place: no name and no size changes, so that the file system has nothing to do but that one write, and
 * a power cut leaves the state of before whole beside one whose checksum does not fit. All is JSON and spaces, in ASCII: characters are bytes.
 */
import { createHash } from 'node:crypto';

/** A slot is a multiple of it: whatever is torn with one slot is not a part of the other. */
const SLOT_UNIT_BYTES = 4096;
/** Room for a record that grows, as by what a guest leaves behind: a longer one needs a new file. */
const GROWTH = 1.5;

/** Where the present state is. */
export interface Slots {
  /** Of one slot. */
  readonly bytes: number;
  readonly current: 0 | 1;
  readonly sequence: number;
}

/** A new file, with `text` in it. */
export function newSlots(text: string): { content: string; slots: Slots } {
  const slots: Slots = { bytes: 0, current: 0, sequence: 1 };
  const entry = encode(text, slots.sequence);
  const bytes = Math.ceil((entry.length * GROWTH) / SLOT_UNIT_BYTES) * SLOT_UNIT_BYTES;
  return { content: padded(entry, bytes) + padded('', bytes), slots: { ...slots, bytes } };
}

/** The write that makes `text` the present state, and where that is then; undefined where it does not fit. */
export function nextSlot(
  { bytes, current, sequence }: Slots,
  text: string,
): { content: string; position: number; slots: Slots } | undefined {
  const slots: Slots = { bytes, current: current === 0 ? 1 : 0, sequence: sequence + 1 };
  const entry = encode(text, slots.sequence);
  // The padding ends with a line of its own.
  if (entry.length >= bytes) return undefined;
  return { content: padded(entry, bytes), position: slots.current * bytes, slots };
}

/** The newest state that is whole; undefined where there is none: a file that was written by hand holds the record alone. */
export function readSlots(content: string): { text: string; slots: Slots } | undefined {
  const bytes = content.length / 2;
  if (bytes === 0 || bytes % SLOT_UNIT_BYTES !== 0) return undefined;
  const [first, second] = [decode(content.slice(0, bytes)), decode(content.slice(bytes))];
  const isSecond = second !== undefined && (first === undefined || second.sequence > first.sequence);
  const newest = isSecond ? second : first;
  return newest && { text: newest.text, slots: { bytes, current: isSecond ? 1 : 0, sequence: newest.sequence } };
}

function encode(text: string, sequence: number): string {
  const ascii = text.replace(/[\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return `{"sequence":${sequence},"characters":${ascii.length},"sha256":"${checksum(sequence, ascii)}"}\n${ascii}`;
}

function decode(slot: string): { text: string; sequence: number } | undefined {
  const head = /^\{"sequence":([1-9]\d{0,14}),"characters":(\d{1,9}),"sha256":"([0-9a-f]{64})"\}\n/.exec(slot);
  if (head === null) return undefined;
  const [line, sequence, characters, sha256] = head;
  const text = slot.slice(line.length, line.length + Number(characters));
  return checksum(Number(sequence), text) === sha256 ? { text, sequence: Number(sequence) } : undefined;
}

function checksum(sequence: number, text: string): string {
  return createHash('sha256').update(`${sequence}\n${text}`).digest('hex');
}

function padded(entry: string, bytes: number): string {
  return `${entry.padEnd(bytes - 1)}\n`;
}
