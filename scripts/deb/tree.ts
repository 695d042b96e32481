/** The files of the Debian package, below a folder that stands for the root. */

import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import packageJson from '../../package.json' with { type: 'json' };
import { runTool } from './tool.ts';

/** Where the shells look for what a package brings. */
const COMPLETIONS = {
  bash: 'usr/share/bash-completion/completions/netbus',
  zsh: 'usr/share/zsh/vendor-completions/_netbus',
  fish: 'usr/share/fish/vendor_completions.d/netbus.fish',
} as const;

const LIBRARY = 'usr/lib/netbus';
const DOCUMENTS = 'usr/share/doc/netbus';

export class Tree {
  readonly root: string;
  /** The repository. */
  readonly #source: string;

  constructor(root: string, source: string) {
    this.root = root;
    this.#source = source;
  }

  /** Puts everything there but the changelog, which needs facts about it. */
  fill(): void {
    this.#program();
    this.#units();
    this.#documents();
    this.#completions();
  }

  #program(): void {
    // The path of Node is the package's, whatever is first in PATH.
    const script = readFileSync(this.#from('dist/netbus.js'), 'utf8').replace(/^#!.*/, '#!/usr/bin/node');
    this.write(`${LIBRARY}/netbus.js`, script, 0o755);
    for (const name of readdirSync(this.#from('dist/chunks'))) this.#copy(`dist/chunks/${name}`, `${LIBRARY}/chunks/${name}`);
    this.write(`${LIBRARY}/netbus.node`, readFileSync(this.#from('dist/netbus.node')));
    runTool('strip', [
      '--strip-unneeded',
      '--remove-section=.comment',
      '--remove-section=.note',
      join(this.root, LIBRARY, 'netbus.node'),
    ]);
    const { name, version, type } = packageJson;
    // Node asks the nearest package.json whether a .js file is an ES module.
    this.write(`${LIBRARY}/package.json`, `${JSON.stringify({ name, version, type }, null, 2)}\n`);
    this.#link('usr/bin/netbus', '../lib/netbus/netbus.js');
    this.#link('usr/sbin/netbusd', '../lib/netbus/netbus.js');
  }

  #units(): void {
    const units = { 'system/netbusd.service': 'netbusd.service' };
    for (const [target, file] of Object.entries(units)) this.#copy(`packaging/systemd/${file}`, `lib/systemd/${target}`);
    this.#copy('packaging/systemd/sysusers.conf', 'usr/lib/sysusers.d/netbus.conf');
    this.#copy('packaging/systemd/tmpfiles.conf', 'usr/lib/tmpfiles.d/netbus.conf');
  }

  #documents(): void {
    for (const page of readdirSync(this.#from('dist/man'))) {
      const section = page.slice(page.lastIndexOf('.') + 1);
      this.writeCompressed(`usr/share/man/man${section}/${page}`, readFileSync(this.#from(`dist/man/${page}`)));
    }
    this.#copy('packaging/debian/copyright', `${DOCUMENTS}/copyright`);
    this.#copy('README.md', `${DOCUMENTS}/README.md`);
    this.writeCompressed(`${DOCUMENTS}/CHANGELOG.md`, readFileSync(this.#from('CHANGELOG.md')));
    this.writeCompressed(`${DOCUMENTS}/licences.txt`, readFileSync(this.#from('dist/licences.txt')));
    cpSync(this.#from('docs'), join(this.root, DOCUMENTS, 'docs'), { recursive: true });
    cpSync(this.#from('examples'), join(this.root, DOCUMENTS, 'examples'), { recursive: true });
  }

  /** The program makes them itself, where it can. */
  #completions(): void {
    const program = this.#from('dist/netbus.js');
    const help = runTool(process.execPath, [program, '--help']);
    if (!/^ {2}completion /m.test(help)) {
      console.error('deb: this netbus has no verb "completion": the package has no completions');
      return;
    }
    for (const [shell, target] of Object.entries(COMPLETIONS))
      this.write(target, runTool(process.execPath, [program, 'completion', shell]));
  }

  /** `path` from the root. */
  write(path: string, content: string | Uint8Array, mode = 0o644): void {
    const target = join(this.root, path);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, content);
    chmodSync(target, mode);
  }

  /** As Debian's policy asks for: best compression, no name and no time in it. */
  writeCompressed(path: string, content: Uint8Array): void {
    this.write(`${path}.gz`, gzipSync(content, { level: 9 }));
  }

  #from(path: string): string {
    return join(this.#source, path);
  }

  #copy(source: string, target: string): void {
    this.write(target, readFileSync(this.#from(source)));
  }

  #link(path: string, target: string): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true });
    symlinkSync(target, join(this.root, path));
  }
}
