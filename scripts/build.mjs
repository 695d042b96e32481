#!/usr/bin/env node
/**
 * Builds Netbus: the addon (native/build/netbus.node), the program (dist/netbus.js, and in dist/chunks what it loads as it needs it) with
 * the addon beside it (dist/netbus.node), the licences of what the program holds (dist/licences.txt), and the manual pages (dist/man).
 *
 *   node scripts/build.mjs [--addon-only] [--sanitize]
 *
 * --sanitize builds native/build/netbus-asan.node instead, with AddressSanitizer and UndefinedBehaviorSanitizer, for the tests.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundledLicences } from './bundled-licences.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const sources = join(root, 'native');
const addon = join(sources, 'build', 'netbus.node');

const COMPILER_FLAGS = ['-std=c11', '-Wall', '-Wextra', '-Werror', '-fPIC', '-shared', '-pthread', '-fvisibility=hidden'];
/** Optimised, and with what Debian's own packages have against overflows. */
const RELEASE_FLAGS = ['-O2', '-D_FORTIFY_SOURCE=2', '-fstack-protector-strong', '-Wl,-z,relro,-z,now'];
const SANITIZER_FLAGS = ['-O1', '-g', '-fno-omit-frame-pointer', '-fsanitize=address,undefined', '-fno-sanitize-recover=all'];
/** A worker that ends unloads its addons; the signal handler must stay where the kernel finds it. */
const LINKER_FLAGS = ['-Wl,-z,nodelete'];

/** Bundled CommonJS packages call require(), which an ES module does not have. */
const REQUIRE_BANNER =
  "import { createRequire as netbusCreateRequire } from 'node:module';\nconst require = netbusCreateRequire(import.meta.url);";

/** In dist: what a verb needs is loaded for that verb alone. */
const CHUNKS = 'chunks';

/** A failure to be shown in one line: what is wrong, what to do. */
class BuildError extends Error {}

/** True where `target` is missing or older than one of `inputs`. */
function isStale(target, inputs) {
  if (!existsSync(target)) return true;
  const made = statSync(target).mtimeMs;
  return inputs.some((input) => statSync(input).mtimeMs > made);
}

/** The headers that came with the Node that runs this. */
function nodeHeaders() {
  const path = join(dirname(dirname(realpathSync(process.execPath))), 'include', 'node');
  if (existsSync(join(path, 'node_api.h'))) return path;
  throw new BuildError(
    `Node's headers are missing (${path}/node_api.h): install Node from nodejs.org or NodeSource, which bring them`,
  );
}

function buildAddon(target, flags) {
  const files = readdirSync(sources).filter((name) => name.endsWith('.c') || name.endsWith('.h'));
  const paths = files.map((name) => join(sources, name));
  if (!isStale(target, [...paths, fileURLToPath(import.meta.url)])) return;
  mkdirSync(dirname(target), { recursive: true });
  const units = paths.filter((path) => path.endsWith('.c'));
  // Written aside and renamed, because a running process may have the old file mapped, and two builds may run at once.
  const scratch = `${target}.${process.pid}`;
  const result = spawnSync(
    'cc',
    [...COMPILER_FLAGS, ...flags, ...LINKER_FLAGS, '-isystem', nodeHeaders(), '-o', scratch, ...units],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  if (result.error?.code === 'ENOENT') {
    throw new BuildError('there is no C compiler (cc) for the addon: run "apt-get install build-essential"');
  }
  if (result.status !== 0) {
    rmSync(scratch, { force: true });
    throw new BuildError(
      `cc could not compile the addon (its messages are above; ${result.error?.message ?? `exit ${result.status}`})`,
    );
  }
  renameSync(scratch, target);
  console.error(`built ${relative(root, target)}`);
}

async function buildProgram(entry) {
  const { build } = await import('esbuild').catch(() => {
    throw new BuildError('esbuild is missing: run "npm ci"');
  });
  const dist = join(root, 'dist');
  const { metafile, outputFiles } = await build({
    absWorkingDir: root,
    metafile: true,
    write: false,
    entryPoints: { netbus: entry },
    outdir: dist,
    chunkNames: `${CHUNKS}/[name]-[hash]`,
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    legalComments: 'none',
    logLevel: 'warning',
    banner: { js: REQUIRE_BANNER },
  }).catch(() => {
    throw new BuildError('esbuild could not bundle src/cli/main.ts (its messages are above)');
  });
  mkdirSync(join(dist, CHUNKS), { recursive: true });
  const target = join(dist, 'netbus.js');
  // The chunks first, because whoever starts the program meanwhile finds all that its entry names; then those that nothing names any more.
  const isEntry = ({ path }) => path === target;
  for (const { path, contents } of outputFiles.filter((file) => !isEntry(file))) replaceFile(path, contents, 0o644);
  replaceFile(join(dist, 'netbus.node'), readFileSync(addon), 0o755);
  replaceFile(target, outputFiles.find(isEntry).contents, 0o755);
  const current = new Set(outputFiles.map(({ path }) => basename(path)));
  for (const name of readdirSync(join(dist, CHUNKS)).filter((name) => !current.has(name))) rmSync(join(dist, CHUNKS, name));
  writeFileSync(join(dist, 'licences.txt'), bundledLicences(root, Object.keys(metafile.inputs)));
  console.error(`built dist/netbus.js with ${current.size - 1} chunks, and dist/netbus.node`);
}

/** Written aside and renamed: nobody finds half of it, and a process that runs keeps the old one. */
function replaceFile(path, content, mode) {
  const scratch = `${path}.${process.pid}`;
  writeFileSync(scratch, content);
  chmodSync(scratch, mode);
  renameSync(scratch, path);
}

/** They are made of what the program knows of itself, so it is asked, in a process that can run its sources. */
function buildManual() {
  const target = join(root, 'dist', 'man');
  const script = join(root, 'scripts', 'make-man.ts');
  const { status } = spawnSync(process.execPath, ['--import', 'tsx', script, target], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== 0) throw new BuildError('the manual pages could not be made (the reason is above)');
  console.error('built dist/man');
}

async function main(options) {
  const unknown = options.find((option) => option !== '--addon-only' && option !== '--sanitize');
  if (unknown !== undefined) throw new BuildError(`unknown option ${unknown}: allowed are --addon-only and --sanitize`);
  if (options.includes('--sanitize')) {
    buildAddon(join(sources, 'build', 'netbus-asan.node'), SANITIZER_FLAGS);
    return;
  }
  buildAddon(addon, RELEASE_FLAGS);
  if (options.includes('--addon-only')) return;
  const entry = join(root, 'src', 'cli', 'main.ts');
  if (existsSync(entry)) {
    await buildProgram(entry);
    buildManual();
  } else {
    console.error('src/cli/main.ts does not exist yet: built the addon only');
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error instanceof BuildError ? `build: ${error.message}` : error);
  process.exitCode = 1;
});
