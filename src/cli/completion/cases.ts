/** The command tree as the branches of a shell's `case` or `switch`; the scripts ask them word by word, from left to right. */
import { BEHIND_OPTIONS, type Value } from './kinds.ts';
import type { CommandNode } from './tree.ts';

/** Options that say which daemon is meant: they go along when it is asked for names. */
export const WHERE_OPTIONS = ['--run-dir', '--socket'] as const;

/** What a script does for a word or a value: `names KIND`, `choices WORD…`, `files`, `folders`, `free`. */
export function valueText(value: Value): string {
  switch (value.type) {
    case 'names':
      return `names ${value.kind}`;
    case 'choices':
      return `choices ${value.choices.join(' ')}`;
    case 'files':
    case 'folders':
    case 'free':
      return value.type;
  }
}

/** A branch: what is looked at, and whether it stands for all that ends so (the options of the program, behind any verb). */
export interface Branch {
  readonly subject: string;
  readonly match: 'all of it' | 'its beginning' | 'its end';
  readonly value: string;
}

/** Of `PATH FLAG`: the options with a value. */
export function optionBranches(tree: readonly CommandNode[]): Branch[] {
  // The deepest first: a verb's own option goes before the program's.
  return [...tree].reverse().flatMap(({ path, options }) =>
    options.flatMap(({ flags, value }) =>
      value === undefined
        ? []
        : flags.map((flag): Branch => {
            const match = path === '' ? 'its end' : 'all of it';
            return { subject: `${path} ${flag}`, match, value: valueText(value) };
          }),
    ),
  );
}

/** Of `PATH NUMBER`: the arguments, from 1 on; of `PATH FLAG NUMBER` behind an option that makes another thing of the first. */
export function argumentBranches(tree: readonly CommandNode[]): Branch[] {
  const behind = BEHIND_OPTIONS.filter(({ path }) => tree.some((node) => node.path === path)).map(
    ({ path, flag, value }): Branch => ({ subject: `${path} ${flag} 1`, match: 'all of it', value: valueText(value) }),
  );
  const plain = tree.flatMap(({ path, arguments: list }) =>
    list.map((argument, index): Branch => {
      const value = valueText(argument.value);
      if (argument.variadic) return { subject: `${path} `, match: 'its beginning', value };
      return { subject: `${path} ${index + 1}`, match: 'all of it', value };
    }),
  );
  return [...behind, ...plain];
}

/** `PATH VERB` of all verbs that there are. */
export function commandSubjects(tree: readonly CommandNode[]): string[] {
  return tree.flatMap(({ path, commands }) => commands.map(({ name }) => `${path} ${name}`));
}
