/** Text as mdoc(7) source, the language of manual pages. */

const LINE_CHARACTERS_MAX = 78;
/** Macros have two or three characters; an argument that looks like one would be called as one. */
const MACRO_LIKE = /^[A-Z%][A-Za-z0-9]{1,2}$/;
/** Arguments that mdoc takes for punctuation. */
const DELIMITER = /^[.,:;()[\]?!|]$/;

/** Characters that mean something to roff. A dash stays the one that is typed: these pages are full of options. */
export function escapeText(text: string): string {
  return text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll('…', '...').replaceAll('–', '\\(en');
}

/** One argument of a macro. */
export function argument(text: string): string {
  const escaped = escapeText(text).replaceAll('"', '\\(dq');
  if (escaped === '' || /\s/.test(escaped)) return `"${escaped}"`;
  return MACRO_LIKE.test(text) || DELIMITER.test(text) ? `\\&${escaped}` : escaped;
}

/** Prose: `words in backticks` are bold; each sentence begins on a line of its own, as mdoc wants it. */
export function prose(text: string): string {
  const sentences = text
    .trim()
    .replace(/\s+/g, ' ')
    .split(/(?<=[.!?]\)?) (?=[A-Z`(])/);
  return sentences.map((sentence) => wrap(inline(sentence)).map(guard).join('\n')).join('\n');
}

/** "print the version" as "Print the version." */
export function sentence(text: string): string {
  if (text === '') return '';
  const whole = `${text[0].toUpperCase()}${text.slice(1)}`;
  return prose(/[.!?]\)?$/.test(whole) ? whole : `${whole}.`);
}

/** Several paragraphs, which empty lines divide. */
export function paragraphs(text: string): string {
  return text
    .trim()
    .split(/\n\s*\n/)
    .map(prose)
    .join('\n.Pp\n');
}

/** Lines that are shown as they are. */
export function literal(text: string): string {
  const lines = text.replace(/^\n+|\s+$/g, '').split('\n');
  return ['.Bd -literal -offset indent', ...lines.map((line) => guard(escapeText(line))), '.Ed'].join('\n');
}

/** A list of terms, which are macro lines without their dot, and texts, which are mdoc already. */
export function definitions(items: readonly (readonly [term: string, text: string])[], options = '-tag -width Ds'): string {
  return [`.Bl ${options}`, ...items.flatMap(([term, text]) => [`.It ${term}`, text]), '.El'].join('\n');
}

function inline(text: string): string {
  return text
    .split('`')
    .map((part, index) => (index % 2 === 1 ? `\\fB${escapeText(part).replaceAll(' ', '\\ ')}\\fP` : escapeText(part)))
    .join('');
}

function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > LINE_CHARACTERS_MAX) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** A line that begins with a dot or a quote would be a request. */
function guard(line: string): string {
  return /^[.']/.test(line) ? `\\&${line}` : line;
}
