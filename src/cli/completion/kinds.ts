/** What a word on the command line is, by the placeholder that the verb's own definition gives it: `<vm/name>` is an attachment everywhere. */

/** Names that the daemon knows, as `netbus __complete` is asked for them. */
export type NameKind = 'device' | 'host' | 'hosts' | 'export' | 'attachment' | 'vm' | 'job' | 'follow';

/** What a shell completes a word with. */
export type Value =
  | { readonly type: 'names'; readonly kind: NameKind }
  | { readonly type: 'choices'; readonly choices: readonly string[] }
  | { readonly type: 'files' }
  | { readonly type: 'folders' }
  /** Nothing can be offered, because the user makes it up. */
  | { readonly type: 'free' };

const FREE: Value = { type: 'free' };
const FILES: Value = { type: 'files' };
const FOLDERS: Value = { type: 'folders' };

/** By placeholder. */
const PLACEHOLDERS: Readonly<Record<string, Value>> = {
  'host/name': { type: 'names', kind: 'device' },
  'vm/name': { type: 'names', kind: 'attachment' },
  host: { type: 'names', kind: 'host' },
  hosts: { type: 'names', kind: 'hosts' },
  vm: { type: 'names', kind: 'vm' },
  job: { type: 'names', kind: 'job' },
  'disk=host/name': { type: 'names', kind: 'follow' },
  rate: { type: 'choices', choices: ['unlimited', '1G', '100M'] },
  export: { type: 'names', kind: 'export' },
  path: FILES,
  file: FILES,
  socket: FILES,
  dir: FOLDERS,
  folder: FOLDERS,
};

/** Where a placeholder means something else: a name that is to be taken, and one that is to be made up. */
const EXCEPTIONS: Readonly<Record<string, Value>> = {
  'unexport name': { type: 'names', kind: 'export' },
  'attach --hold': { type: 'choices', choices: ['forever', '60s', '0'] },
  'invite host': FREE,
  'init --host': FREE,
};

/** What an argument is behind an option without a value, where it is free otherwise. */
export const BEHIND_OPTIONS: readonly { readonly path: string; readonly flag: string; readonly value: Value }[] = [
  { path: 'export', flag: '--reopen', value: { type: 'names', kind: 'export' } },
];

/** `place` is the argument's name, or the option's long flag; `choices` are those that the definition itself has. */
export function completionOf(path: string, place: string, placeholder: string, choices: readonly string[] | undefined): Value {
  if (choices !== undefined) return { type: 'choices', choices };
  const key = `${path} ${place}`;
  if (Object.hasOwn(EXCEPTIONS, key)) return EXCEPTIONS[key];
  return Object.hasOwn(PLACEHOLDERS, placeholder) ? PLACEHOLDERS[placeholder] : FREE;
}
