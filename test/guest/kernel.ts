/** Finds Debian's cloud kernel for the test guests, and the modules of it that they load. */

import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** A kernel on this machine. */
export interface Kernel {
  version: string;
  /** The bootable image (vmlinuz). */
  image: string;
  /** The folder that modules.dep stands in. */
  modules: string;
}

const LZ4_LEGACY_MAGIC = 0x184c2102;
const KERNEL_NAME = /^vmlinuz-(\d.*-cloud-amd64)$/;

/**
 * The newest cloud kernel: an installed one, or the one that set-up unpacked to `kernel/` in the cache without installing it
 * (an installation would run the boot loader's hooks, and nothing here boots from it).
 */
export function findKernel(cache: string): Kernel {
  for (const root of ['/', join(cache, 'kernel')]) {
    const boot = join(root, 'boot');
    const versions = existsSync(boot) ? readdirSync(boot).flatMap((name) => KERNEL_NAME.exec(name)?.[1] ?? []) : [];
    versions.sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
    for (const version of versions) {
      const modules = join(root, 'lib/modules', version);
      if (existsSync(join(modules, 'modules.dep'))) return { version, image: join(boot, `vmlinuz-${version}`), modules };
    }
  }
  throw new Error(
    'no cloud kernel for the test guests: run "scripts/with-setup.sh setup", which fetches linux-image-cloud-amd64',
  );
}

/**
 * Files of the modules called `names` and of all that they depend on, each after what it needs. Modules that are built into
 * the kernel are left out.
 */
export function modulesInOrder(kernel: Kernel, names: readonly string[]): string[] {
  const { needs, builtIn } = readDependencies(kernel);
  const order: string[] = [];
  const visit = (name: string): void => {
    if (builtIn.has(name)) return;
    const entry = needs.get(name);
    if (entry === undefined) throw new Error(`kernel ${kernel.version} has no module ${name} (${kernel.modules}/modules.dep)`);
    if (order.includes(entry.file)) return;
    for (const dependency of entry.dependencies) visit(dependency);
    order.push(entry.file);
  };
  for (const name of names) visit(name);
  return order;
}

interface Dependencies {
  needs: Map<string, { file: string; dependencies: string[] }>;
  builtIn: Set<string>;
}

/** Reads modules.dep, whose lines are "FILE: FILE …"; the last file of a line is to be loaded first. */
function readDependencies(kernel: Kernel): Dependencies {
  const needs: Dependencies['needs'] = new Map();
  for (const line of readFileSync(join(kernel.modules, 'modules.dep'), 'utf8').split('\n')) {
    const colon = line.indexOf(':');
    if (colon === -1) continue;
    const file = line.slice(0, colon);
    const dependencies = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
      .filter((word) => word !== '')
      .reverse();
    needs.set(moduleName(file), { file: join(kernel.modules, file), dependencies: dependencies.map(moduleName) });
  }
  const builtIn = readFileSync(join(kernel.modules, 'modules.builtin'), 'utf8').split('\n').map(moduleName);
  return { needs, builtIn: new Set(builtIn) };
}

/** The kernel's own name of a module file: "crc32c-intel.ko.xz" is crc32c_intel. */
function moduleName(file: string): string {
  return basename(file)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');
}

/**
 * The kernel inside a vmlinuz, for QEMU to enter directly (PVH): the guest then need not unpack it itself, which takes a
 * second at the first start and five at each reset under TCG. Undefined where it is not packed with LZ4 as Debian 12's is.
 */
export function uncompressedKernel(kernel: Kernel): Buffer | undefined {
  // Linux, Documentation/x86/boot.rst: setup_sects at 0x1f1, "HdrS" at 0x202, payload_offset at 0x248, payload_length at 0x24c.
  const image = readFileSync(kernel.image);
  if (image.toString('latin1', 0x202, 0x206) !== 'HdrS') return undefined;
  const start = (image[0x1f1]! + 1) * 512 + image.readUInt32LE(0x248);
  // The four bytes at its end are the unpacked size, which is not part of the LZ4 data.
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c) - 4);
  if (payload.readUInt32LE(0) !== LZ4_LEGACY_MAGIC) return undefined;
  return execFileSync('lz4', ['-dc'], { input: payload, maxBuffer: 256 * 1024 * 1024 });
}
