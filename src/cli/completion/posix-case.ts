/** What the scripts for bash and zsh have in common: branches of `case`. */
import { shellQuote } from '../../lib/format.ts';
import type { Branch } from './cases.ts';

/** A function that sets `kind` by its two arguments; to nothing where no branch fits. */
export function posixCases(name: string, branches: readonly Branch[]): string {
  const lines = branches.map((branch) => `    ${posixPattern(branch)}) kind=${shellQuote(branch.value)} ;;\n`);
  return `${name}() {
  kind=''
  case "$1 $2" in
${lines.join('')}  esac
}
`;
}

function posixPattern({ subject, match }: Branch): string {
  const quoted = `'${subject}'`;
  switch (match) {
    case 'all of it':
      return quoted;
    case 'its beginning':
      return `${quoted}*`;
    case 'its end':
      return `*${quoted}`;
  }
}
