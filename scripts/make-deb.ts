/**
 * `npm run deb [-- FOLDER]`: builds the Debian package of this machine's architecture, netbus_VERSION_ARCHITECTURE.deb, in FOLDER (dist/deb by
 * default), and prints its path. Needs no root.
 *
 * DEBFULLNAME and DEBEMAIL are the maintainer's, as Debian's own tools have it; SOURCE_DATE_EPOCH is the time of the build.
 */

import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import packageJson from '../package.json' with { type: 'json' };
import { changelog, controlFile, debianVersion, libcOf, type PackageFacts } from './deb/control.ts';
import { runTool } from './deb/tool.ts';
import { Tree } from './deb/tree.ts';

const SOURCE = fileURLToPath(new URL('..', import.meta.url));
const MAINTAINER_SCRIPTS = ['postinst', 'prerm', 'postrm'];

/** All that is in the package but the control folder, as paths from its root; links are not followed. */
function filesOf(root: string): string[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => lstatSync(join(root, path)).isFile())
    .sort();
}

function factsOf(tree: Tree): PackageFacts {
  const { DEBFULLNAME: name = 'Netbus maintainers', DEBEMAIL: address = 'netbus@netbus.example' } = process.env;
  const bytes = filesOf(tree.root).reduce((sum, path) => sum + lstatSync(join(tree.root, path)).size, 0);
  return {
    version: debianVersion(packageJson.version),
    architecture: runTool('dpkg', ['--print-architecture']).trim(),
    maintainer: `${name} <${address}>`,
    installedKib: Math.ceil(bytes / 1024),
    libc: libcOf(runTool('objdump', ['-T', join(tree.root, 'usr/lib/netbus/netbus.node')])),
  };
}

function writeControl(tree: Tree, facts: PackageFacts): void {
  const sums = filesOf(tree.root).map((path) => {
    const sum = createHash('md5')
      .update(readFileSync(join(tree.root, path)))
      .digest('hex');
    return `${sum}  ${path}\n`;
  });
  const folder = join(tree.root, 'DEBIAN');
  mkdirSync(folder);
  writeFileSync(join(folder, 'control'), controlFile(facts));
  writeFileSync(join(folder, 'md5sums'), sums.join(''));
  for (const name of MAINTAINER_SCRIPTS) {
    copyFileSync(join(SOURCE, 'packaging/debian', name), join(folder, name));
    chmodSync(join(folder, name), 0o755);
  }
}

function main(target: string): void {
  // Folders and files are what everybody may read, whatever the user's own habit is.
  process.umask(0o022);
  const scratch = mkdtempSync(join(tmpdir(), 'netbus-deb-'));
  try {
    chmodSync(scratch, 0o755);
    const tree = new Tree(scratch, SOURCE);
    tree.fill();
    const facts = factsOf(tree);
    const epoch = process.env.SOURCE_DATE_EPOCH;
    const date = epoch ? new Date(Number(epoch) * 1000) : new Date();
    tree.writeCompressed('usr/share/doc/netbus/changelog', Buffer.from(changelog(facts, date)));
    writeControl(tree, facts);
    mkdirSync(target, { recursive: true });
    const file = join(target, `netbus_${facts.version}_${facts.architecture}.deb`);
    runTool('dpkg-deb', ['--root-owner-group', '--build', scratch, file]);
    console.log(file);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

main(resolve(process.argv[2] ?? join(SOURCE, 'dist/deb')));
