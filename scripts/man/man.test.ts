/** The manual pages: complete, and what the tools of others take for well made. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Command, Option } from 'commander';
import { makeProgram } from '../../src/cli/program.ts';
import { parseConfig } from '../../src/daemon/config.ts';
import { errorCodes } from '../../src/device/errors.ts';
import { sections, textAfter, verbName, verbsOf } from './command.ts';
import { argument, prose } from './mdoc.ts';
import { netbusPage } from './netbus-1.ts';
import { configKeys, EXAMPLE } from './netbus-yaml-5.ts';
import { manualPages } from './pages.ts';

const DATE = new Date('2020-02-01T00:00:00Z');
const MINIMAL = 'cluster: lab\nhost: m1\nhosts: { m1: { address: 10.0.0.1 } }\n';
const TOOLS = ['/usr/bin/mandoc', '/usr/bin/man'];

const pages = new Map(manualPages({ date: DATE }).map(({ file, text }) => [file, text]));
const missing = TOOLS.filter((tool) => !existsSync(tool));
const skip = missing.length === 0 ? {} : { skip: `needs ${missing.join(', ')}: apt-get install mandoc man-db` };

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nb-man-'));
  for (const [file, text] of pages) writeFileSync(join(folder, file), text);
});
after(() => rmSync(folder, { recursive: true }));

/** A page as it is read, in one line: no bold, no line breaks. */
function rendered(file: string): string {
  const { status, stdout, stderr } = spawnSync('mandoc', ['-Tascii', '-O', 'width=1000', join(folder, file)], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  // Bold is a character, backspace, and the same again.
  const parts = stdout.split('\b');
  const plain = parts.map((part, index) => (index < parts.length - 1 ? part.slice(0, -1) : part)).join('');
  return plain.replace(/\s+/g, ' ');
}

describe('netbus(1) and netbusd(8)', skip, () => {
  test('name every verb, operand, option, variable and code', () => {
    const page = rendered('netbus.1');
    const program = makeProgram();
    const verbs = verbsOf(program);
    assert.ok(verbs.length > 0);
    for (const verb of verbs) {
      assert.ok(page.includes(` netbus ${verbName(verb)} `), verbName(verb));
      for (const { description } of verb.registeredArguments) assert.ok(page.includes(words(description)), description);
    }
    for (const { flags, long, short, envVar, description, hidden } of [program, ...verbs].flatMap(({ options }) => options)) {
      if (hidden) continue;
      for (const name of [long, short, envVar]) assert.ok(page.includes(name ?? ''), `${flags}: ${name}`);
      assert.ok(page.includes(words(description)), `${flags}: ${description}`);
    }
    for (const code of Object.keys(errorCodes)) assert.ok(page.includes(code), code);
  });

  test('the daemon has its options, and those of all verbs', () => {
    const page = rendered('netbusd.8');
    const program = makeProgram();
    const daemon = program.commands.find((command) => command.name() === 'daemon');
    for (const { flags, long } of [...(daemon?.options ?? []), ...program.options]) assert.ok(page.includes(long!), flags);
  });

  test('the examples are those of the help', () => {
    const page = rendered('netbus.1');
    for (const verb of verbsOf(makeProgram())) {
      for (const { body } of sections(textAfter(verb))) {
        const [first] = body.split('\n');
        assert.ok(page.includes(first.trim().replace(/\s+/g, ' ')), `${verbName(verb)}: ${first}`);
      }
    }
  });
});

describe('netbus.yaml(5)', skip, () => {
  test('says of every key what it is for', () => {
    const page = rendered('netbus.yaml.5');
    const keys = configKeys();
    assert.ok(keys.some(({ path }) => path === 'pki.ca') && keys.some(({ path }) => path === 'hosts.NAME.address'));
    for (const { path, description } of keys) {
      assert.notEqual(description, '', `${path} has no description: add .describe() to it in src/daemon/config.ts`);
      assert.ok(page.includes(path), path);
      assert.ok(page.includes(words(description)), path);
    }
  });

  test('its defaults are the true ones', () => {
    const config = parseConfig('/etc/netbus/netbus.yaml', MINIMAL) as unknown as Record<string, unknown>;
    for (const { path, required, description } of configKeys()) {
      const value = path.split('.').reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], config);
      // What is no text needs a form of its own in the description, which no test can know.
      if (!required && typeof value === 'string') assert.ok(description.includes(`\`${value}\` by default`), path);
    }
  });

  test('its example is a config', () => {
    const { host, hosts } = parseConfig('/etc/netbus/netbus.yaml', EXAMPLE);
    assert.equal(host, 'm2');
    assert.deepEqual([...hosts!.keys()], ['m1', 'm2', 'm3']);
  });
});

describe('the source of the pages', () => {
  for (const file of pages.keys()) {
    test(`mandoc and man take ${file} without a word`, skip, () => {
      // In the folder, and with it as the only one, so that the pages find each other.
      const options = { cwd: folder, encoding: 'utf8', env: { ...process.env, MANPATH: folder, LC_ALL: 'C.UTF-8' } } as const;
      const lint = spawnSync('mandoc', ['-Tlint', file], options);
      assert.deepEqual([lint.stdout, lint.stderr, lint.status], ['', '', 0]);
      // As lintian calls it.
      const groff = spawnSync('man', ['--warnings', '-E', 'UTF-8', '-l', '-Tutf8', '-Z', file], options);
      assert.deepEqual([groff.stderr, groff.status], ['', 0]);
    });
  }

  test('what a verb may have later has its place', () => {
    const program = new Command('netbus').exitOverride().option('--json', 'JSON');
    const key = program.command('key').description('Keys.');
    key.command('show').description('Shows.').argument('[names...]', 'which ones').option('-a, --all [kind]', 'all of a kind');
    program
      .command('attach')
      .description('Attaches. A line:\n.Nm is no macro')
      .addOption(new Option('--format <form>', 'the form').choices(['qemu', 'libvirt']).default('qemu'))
      .addOption(new Option('--secret', 'for us').hideHelp());
    const page = netbusPage(program, { date: DATE });
    assert.match(page, /^\.Nm netbus Cm key show Oo Ar names \.\.\. Oc Oo Fl \\-all Oo Ar kind Oc Oc$/m);
    assert.match(page, /^\.It Fl a , Fl \\-all Oo Ar kind Oc$/m);
    assert.match(page, /^The form \(choices: "qemu", "libvirt", default: "qemu"\)\.$/m);
    assert.doesNotMatch(page, /secret|^\.Nm is no macro/m);
  });

  test('text stays text', () => {
    assert.equal(prose('.Nm "a\\b" --c'), '\\&.Nm "a\\eb" \\-\\-c');
    assert.equal(prose('See `a b`. Then this.'), 'See \\fBa\\ b\\fP.\nThen this.');
    assert.deepEqual(['Nm', 'host', '.', '', 'two words', 'a"b'].map(argument), [
      '\\&Nm',
      'host',
      '\\&.',
      '""',
      '"two words"',
      'a\\(dqb',
    ]);
  });
});

/** A description as the page shows it, but for its first letter and its end. */
function words(description: string): string {
  return description.replaceAll('`', '').replace(/\s+/g, ' ').slice(1).trim();
}
