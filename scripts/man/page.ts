/** What all pages have. */

export interface PageOptions {
  /** For the foot of the page. */
  date: Date;
}

const MONTHS = 'January February March April May June July August September October November December'.split(' ');

export function header(name: string, section: string, summary: string, { date }: PageOptions): string {
  const day = `${MONTHS[date.getUTCMonth()]} ${date.getUTCDate()}, ${date.getUTCFullYear()}`;
  return [
    '.\\" Made by scripts/make-man.ts from the sources of the program: changes belong there.',
    `.Dd ${day}`,
    `.Dt ${name.toUpperCase()} ${section}`,
    '.Os',
    '.Sh NAME',
    `.Nm ${name}`,
    `.Nd ${summary}`,
  ].join('\n');
}

/** `pages` as "netbusd 8", by section and name, as mdoc wants them. */
export function seeAlso(pages: readonly string[]): string {
  return ['.Sh SEE ALSO', ...pages.map((page, index) => `.Xr ${page}${index < pages.length - 1 ? ' ,' : ''}`), ''].join('\n');
}
