/**
 * The import rule: who may import whom. Arrows go one way,
 *
 *   lib ← device ← protocols ← {frontends, backends, filters, bus, directory, vmm} ← migration ← daemon;  api ← {daemon, cli, console}
 *
 * and parts in one brace never import each other. `native` is for whatever does I/O. Tests, and the helpers in test/ and
 * bench/, may import anything; nothing in src imports them.
 */

/** One import of one file; both paths from the repository's root, `target` undefined for a package or a module of Node. */
export interface Import {
  file: string;
  line: number;
  specifier: string;
  target: string | undefined;
}

const DEVICE = ['lib', 'device'];
const SIBLINGS = ['frontends', 'backends', 'filters', 'bus', 'directory', 'vmm'];
const SIBLING = [...DEVICE, 'protocols', 'native'];
const MIGRATION = [...SIBLING, ...SIBLINGS];

/** What a part may import beside itself: parts, or single files of them. */
const ALLOWED: Record<string, readonly string[]> = {
  native: [],
  lib: [],
  device: ['lib'],
  protocols: DEVICE,
  ...Object.fromEntries(SIBLINGS.map((part) => [part, SIBLING])),
  migration: MIGRATION,
  api: ['lib', 'device/errors.ts'],
  // The composition root.
  daemon: [...MIGRATION, 'migration', 'api', 'package.json'],
  // `netbus daemon` starts the daemon in its own process; every other verb talks to it through the API.
  // It speaks QMP itself, with its user's rights on the socket.
  cli: ['lib', 'api', 'device/errors.ts', 'daemon', 'vmm', 'package.json'],
  console: ['lib', 'api'],
  // The demo is a user of the product: it sees the API, and the harness that gives it hosts and guests. The manual pages are
  // made of what the program knows of itself.
  scripts: ['lib', 'api', 'test/support', 'test/guest', 'cli/program.ts', 'daemon/config.ts', 'device/errors.ts'],
};

/** Parts that compute and never do I/O, so that all of it can be tested without any. */
const WITHOUT_IO = ['device', 'protocols'];
const IO_MODULES = /^(?:node:)?(?:fs|net|tls|http|https|http2|dgram|child_process|worker_threads|cluster)(?:\/|$)/;

/** What is wrong with an import, or undefined. */
export function violation({ file, specifier, target }: Import): string | undefined {
  const from = partOf(file);
  if (from === undefined || isTest(file)) return undefined;
  const allowed = ALLOWED[from];
  if (allowed === undefined) return `${from} has no place in the import rule: give it one in scripts/import-rule.ts`;
  if (target === undefined) {
    return WITHOUT_IO.includes(from) && IO_MODULES.test(specifier) ? `${from} does no I/O` : undefined;
  }
  // The package's name and version: no code, so in no layer.
  if (target === 'package.json') return undefined;
  const to = partOf(target);
  if (isTest(target)) return `${from} never imports a test`;
  if (to === from || allowed.includes(to ?? '')) return undefined;
  // Single files, and folders of test/.
  const path = target.replace(/^src\//, '');
  if (allowed.some((entry) => path === entry || path.startsWith(`${entry}/`))) return undefined;
  return `${from} never imports ${to ?? path}`;
}

/** "device" of src/device/slot.ts, "native" of native/index.ts; undefined for test/ and bench/, which have no rule. */
function partOf(path: string): string | undefined {
  const [root, part] = path.split('/');
  if (root === 'src') return part;
  return root === 'native' || root === 'scripts' ? root : undefined;
}

function isTest(path: string): boolean {
  return path.endsWith('.test.ts');
}

const FROM = /^\s*(?:import|export)\b[^'"();=]*?\bfrom\s*(['"])([^'"\n]+)\1/gm;
const BARE = /^\s*import\s*(['"])([^'"\n]+)\1/gm;
const DYNAMIC = /\bimport\s*\(\s*(['"])([^'"\n]+)\1\s*\)/g;

/** Specifiers that a module's text imports, types included, with the line of each. Comments are left out. */
export function importsOf(text: string): { line: number; specifier: string }[] {
  const code = withoutComments(text);
  const imports = [FROM, BARE, DYNAMIC].flatMap((pattern) =>
    [...code.matchAll(pattern)].map((match) => ({
      specifier: match[2]!,
      line: code.slice(0, match.index + match[0].length).split('\n').length,
    })),
  );
  return imports.sort((a, b) => a.line - b.line);
}

/** Comments become spaces, so that lines keep their numbers; strings are kept, because a comment can only start outside one. */
function withoutComments(text: string): string {
  const tokens = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`/g;
  return text.replace(tokens, (token) => {
    if (token.startsWith('/')) return token.replace(/[^\n]/g, ' ');
    return token.startsWith('`') ? token.replace(/[^\n]/g, '_') : token;
  });
}
