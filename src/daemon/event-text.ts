/** An event within its bounds: what peers, guests and devices say ends up in messages, and those in files and on terminals. */
import type { EventEntry } from '../api/events.ts';

const SUBJECT_CHARACTERS_MAX = 140;
const MESSAGE_CHARACTERS_MAX = 300;
/** Names and values of all details together; what is beyond is left out. */
const DETAILS_CHARACTERS_MAX = 600;
const DETAIL_CHARACTERS_MAX = 200;
/** An event in JSON: the texts above at three bytes a character, and the rest. */
export const EVENT_BYTES_MAX = 3 * (SUBJECT_CHARACTERS_MAX + MESSAGE_CHARACTERS_MAX + DETAILS_CHARACTERS_MAX) + 512;

/** The same event with its texts cut, each on one line, and without control characters. */
export function boundEvent(event: EventEntry): EventEntry {
  let left = DETAILS_CHARACTERS_MAX;
  const details: Record<string, string | number | boolean> = {};
  for (const [name, value] of Object.entries(event.details)) {
    const clean = typeof value === 'string' ? oneLine(value, DETAIL_CHARACTERS_MAX) : value;
    left -= name.length + String(clean).length + '"":"",'.length;
    if (left < 0) break;
    details[oneLine(name, DETAIL_CHARACTERS_MAX)] = clean;
  }
  return {
    ...event,
    subject: oneLine(event.subject, SUBJECT_CHARACTERS_MAX),
    message: oneLine(event.message, MESSAGE_CHARACTERS_MAX),
    details,
  };
}

/** `\p{C}`: control characters, escapes of terminals among them, and halves of characters. */
function oneLine(text: string, charactersMax: number): string {
  const clean = text
    .slice(0, 4 * charactersMax)
    .replace(/[\p{C}\s]+/gu, ' ')
    .trim();
  return clean.length <= charactersMax ? clean : `${clean.slice(0, charactersMax - 1)}…`;
}
