/**
 * The guest image: Debian's cloud kernel, and an initramfs of busybox, the programs that tests use in the guest with their
 * shared libraries, the drivers' modules, the agent and the witnesses of migrations (image/). It lives in the cache folder under a key made of everything
 * that goes into it, appears there in one rename, and is never changed afterwards.
 */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findKernel, type Kernel, modulesInOrder, uncompressedKernel } from './kernel.ts';

/** A finished image. All paths are absolute; nobody writes to them. */
export interface GuestImage {
  kernelVersion: string;
  /** The kernel, for QEMU's -kernel. */
  kernel: string;
  /** The initramfs with busybox and e2fsprogs. */
  initramfs: string;
  /** The same and fio, whose libraries are ten times larger than all the rest: only for guests that run it. */
  initramfsWithFio: string;
  /** The same files unpacked, fio included: what a root filesystem is made of. */
  tree: string;
}

const SOURCES = join(dirname(fileURLToPath(import.meta.url)), 'image');
const REPOSITORY = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** Drivers of the guest, in the order in which they are wanted; what they depend on comes by itself. */
const MODULES = ['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_console', 'ext4'];
/** What a guest loads that runs this machine's Debian (see debian.ts), and others do not. */
const DEBIAN_MODULES = ['virtiofs', 'overlay'];

/** Programs of the guest beside busybox. Those here win over busybox's applets of the same name. */
const PROGRAMS = ['/sbin/mkfs.ext4', '/sbin/e2fsck', '/sbin/resize2fs', '/sbin/tune2fs', '/sbin/blkdiscard'];
const FIO_PROGRAMS = ['/usr/bin/fio'];
const BUSYBOX = '/bin/busybox';
/** Compiled from image/NAME.c. */
const WITNESSES = ['ticker', 'block-writer'];

const FOLDERS = ['bin', 'sbin', 'usr/bin', 'usr/sbin', 'etc', 'dev', 'proc', 'sys', 'run', 'tmp', 'root', 'mnt', 'lib/modules'];

/** Folder for everything that set-up makes and keeps: NETBUS_CACHE, or .cache in the repository. */
function cacheFolder(): string {
  return process.env.NETBUS_CACHE ?? join(REPOSITORY, '.cache');
}

/** The image that fits this repository and machine. Throws where set-up has not made it. */
export function guestImage(): GuestImage {
  const kernel = findKernel(cacheFolder());
  const image = describe(kernel, join(cacheFolder(), `guest-${imageKey(kernel)}`));
  if (!existsSync(image.initramfs)) {
    throw new Error(`the guest image ${dirname(image.initramfs)} is missing: run "scripts/with-setup.sh setup"`);
  }
  return image;
}

/** Makes the image unless it is there. One builder at a time: the caller holds the set-up's lock. */
export function buildGuestImage(say: (line: string) => void): GuestImage {
  const cache = cacheFolder();
  const kernel = findKernel(cache);
  const folder = join(cache, `guest-${imageKey(kernel)}`);
  const image = describe(kernel, folder);
  if (existsSync(folder)) return image;
  say(`making the test guests' image from kernel ${kernel.version}, busybox, e2fsprogs and fio (kept in ${folder})`);

  mkdirSync(cache, { recursive: true });
  for (const leftover of readdirSync(cache).filter((name) => /^guest-.*\.unfinished$/.test(name))) {
    rmSync(join(cache, leftover), { recursive: true });
  }
  const unfinished = `${folder}.unfinished`;
  const base = join(unfinished, 'base');
  const fio = join(unfinished, 'fio');
  mkdirSync(fio, { recursive: true });
  fillBase(base, kernel);
  copyPrograms(fio, FIO_PROGRAMS, base);
  writeFileSync(join(unfinished, 'initramfs.cpio'), archive(base));
  // The kernel unpacks archives that follow one another.
  writeFileSync(join(unfinished, 'initramfs-fio.cpio'), Buffer.concat([archive(base), archive(fio)]));
  execFileSync('cp', ['-a', '--', `${fio}/.`, base]);
  renameSync(base, join(unfinished, 'tree'));
  rmSync(fio, { recursive: true });
  writeFileSync(join(unfinished, 'kernel'), uncompressedKernel(kernel) ?? readFileSync(kernel.image));
  renameSync(unfinished, folder);
  // Images of older versions of this code. A cache of the user's own choice may serve other checkouts: nothing goes there.
  if (process.env.NETBUS_CACHE === undefined) {
    for (const old of readdirSync(cache).filter((name) => name.startsWith('guest-') && name !== basename(folder))) {
      rmSync(join(cache, old), { recursive: true });
    }
  }
  return image;
}

function describe(kernel: Kernel, folder: string): GuestImage {
  return {
    kernelVersion: kernel.version,
    kernel: join(folder, 'kernel'),
    initramfs: join(folder, 'initramfs.cpio'),
    initramfsWithFio: join(folder, 'initramfs-fio.cpio'),
    tree: join(folder, 'tree'),
  };
}

/** Changes when anything that goes into the image does: this code, the guest's scripts, the kernel, a program's package. */
function imageKey(kernel: Kernel): string {
  const hash = createHash('sha256');
  const code = ['image.ts', 'kernel.ts'].map((name) => join(dirname(SOURCES), name));
  const sources = [...code, ...readdirSync(SOURCES).map((name) => join(SOURCES, name))];
  for (const path of sources) hash.update(readFileSync(path)).update('\0');
  for (const path of [kernel.image, BUSYBOX, ...PROGRAMS, ...FIO_PROGRAMS]) {
    const status = statSync(path, { throwIfNoEntry: false });
    if (status === undefined)
      throw new Error(`${path} is missing: run "scripts/with-setup.sh setup", which installs its package`);
    hash.update(`${path} ${status.size} ${status.mtimeMs}\0`);
  }
  return hash.digest('hex').slice(0, 12);
}

function fillBase(root: string, kernel: Kernel): void {
  for (const folder of FOLDERS) mkdirSync(join(root, folder), { recursive: true });
  copyExecutable(join(SOURCES, 'init'), join(root, 'init'));
  copyExecutable(join(SOURCES, 'agent'), join(root, 'sbin/agent'));
  copyExecutable(join(SOURCES, 'power-off'), join(root, 'sbin/power-off'));
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\n');
  symlinkSync('/proc/mounts', join(root, 'etc/mtab'));

  for (const name of WITNESSES) {
    const compile = [
      '-O2',
      '-Wall',
      '-Wextra',
      '-static',
      '-pthread',
      '-o',
      join(root, 'sbin', name),
      join(SOURCES, `${name}.c`),
    ];
    execFileSync('gcc', compile, { stdio: ['ignore', 'ignore', 'inherit'] });
  }
  copyPrograms(root, PROGRAMS, root);
  copyExecutable(BUSYBOX, join(root, 'bin/busybox'));
  for (const applet of execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).split('\n')) {
    if (applet === '' || applet === 'busybox' || PROGRAMS.some((path) => basename(path) === applet)) continue;
    symlinkSync('/bin/busybox', join(root, 'bin', applet));
  }

  const modules = modulesInOrder(kernel, MODULES);
  writeModules(root, 'order', modules);
  const more = modulesInOrder(kernel, DEBIAN_MODULES).filter((path) => !modules.includes(path));
  writeModules(root, 'order-debian', more);
}

/** Puts modules into the image, and a list of them that the guest's init reads. */
function writeModules(root: string, list: string, modules: readonly string[]): void {
  for (const path of modules) writeFileSync(join(root, 'lib/modules', moduleName(path)), uncompressed(path));
  writeFileSync(join(root, 'lib/modules', list), modules.map((path) => `${moduleName(path)}\n`).join(''));
}

function moduleName(path: string): string {
  return basename(path).replace(/\.(xz|zst|gz)$/, '');
}

/** busybox's insmod takes plain modules only. */
function uncompressed(path: string): Buffer {
  const tools: Record<string, string> = { xz: 'xz', zst: 'zstd', gz: 'gzip' };
  const tool = tools[path.split('.').at(-1) ?? ''];
  return tool === undefined ? readFileSync(path) : execFileSync(tool, ['-dc', path], { maxBuffer: 64 * 1024 * 1024 });
}

/** Copies programs and the shared libraries that they need, to the paths that they have here, unless `present` has them. */
function copyPrograms(root: string, programs: readonly string[], present: string): void {
  for (const program of programs) {
    copyExecutable(program, join(root, program));
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" and, for the loader, "/lib64/ld-linux-x86-64.so.2 (0x…)".
    for (const [, library] of execFileSync('ldd', [program], { encoding: 'utf8' }).matchAll(/(?:=> |^\s+)(\/\S+) \(/gm)) {
      const target = join(root, library!);
      if (!existsSync(join(present, library!)) && !existsSync(target)) copyExecutable(library!, target);
    }
  }
}

/** Copies what a path leads to (symbolic links are followed, so the guest needs none of them). */
function copyExecutable(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
  chmodSync(to, 0o755);
}

/** A cpio archive in the kernel's format; the same tree always gives the same bytes. */
function archive(root: string): Buffer {
  const names = execFileSync('find', ['.', '-mindepth', '1', '-print'], { cwd: root, encoding: 'utf8' })
    .split('\n')
    .filter((name) => name !== '')
    .sort();
  execFileSync('find', ['.', '-exec', 'touch', '--no-dereference', '--date=@0', '{}', '+'], { cwd: root });
  return execFileSync('cpio', ['--create', '--format=newc', '--owner=0:0', '--reproducible', '--quiet'], {
    cwd: root,
    input: names.join('\n'),
    maxBuffer: 1024 * 1024 * 1024,
  });
}
