/** How fast something may go, as it is typed: `100M`, `1.5G`, `unlimited`. */
import { InvalidArgumentError } from 'commander';
import { SPEED_BYTES_PER_SECOND_MAX, SPEED_BYTES_PER_SECOND_MIN } from '../api/jobs.ts';

/** By letter; as everywhere here, 1024 of one are the next. */
const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 };

/** Bytes a second. */
export type Rate = number | 'unlimited';

export function parseRate(text: string): Rate {
  if (text === 'unlimited') return text;
  const parts = /^(\d{1,15}(?:\.\d{1,3})?)([kmgt]?)$/i.exec(text);
  const rate = parts === null ? 0 : Math.round(Number(parts[1]) * UNITS[parts[2].toLowerCase()]);
  if (rate >= SPEED_BYTES_PER_SECOND_MIN && rate <= SPEED_BYTES_PER_SECOND_MAX) return rate;
  throw new InvalidArgumentError(
    'It is "unlimited", or bytes a second such as 512K, 100M or 1.5G, 64K at least and 1T at most.',
  );
}
