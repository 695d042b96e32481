/** Finds Debian's cloud kernel for the test guests, and the modules of it that they load. */

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
  throw new Error('no cloud kernel for the test guests: run "scripts/with-setup.sh setup", which fetches linux-image-cloud-amd64');
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
    const dependencies = line.slice(colon + 1).trim().split(/\s+/).filter((word) => word !== '').reverse();
    needs.set(moduleName(file), { file: join(kernel.modules, file), dependencies: dependencies.map(moduleName) });
  }
  const builtIn = readFileSync(join(kernel.modules, 'modules.builtin'), 'utf8').split('\n').map(moduleName);
  return { needs, builtIn: new Set(builtIn) };
}

/** The kernel's own name of a module file: "crc32c-intel.ko.xz" is crc32c_intel. */
function moduleName(file: string): string {
  return basename(file).replace(/\.ko(\.\w+)?$/, '').replaceAll('-', '_');
}
