/** `netbus completion` in the shells themselves: typed on a terminal in bash and zsh, asked in fish, with daemons that run and with none. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Cleanup } from '../support/cleanup.ts';
import { netbusProgram } from '../support/cluster.ts';
import { Cluster } from '../support/daemon/cluster.ts';
import { type RunResult, run, runOk } from '../support/process.ts';
import { Terminal } from '../support/terminal.ts';

const MIB = 1024 * 1024;
/** Names that do not come within a second do not come at all: whoever types on a slow machine asks again. */
const TRIES_MAX = 10;
const cleanup = new Cleanup();
let folder: string;
let cluster: Cluster;
/** The environment of a shell on m2. */
let env: Record<string, string>;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nb-completion-'));
  cleanup.add(folder, () => rmSync(folder, { recursive: true }));
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  const program = netbusProgram()
    .map((word) => `'${word}'`)
    .join(' ');
  writeFileSync(join(bin, 'netbus'), `#!/bin/sh\nexec ${program} "$@"\n`);
  chmodSync(join(bin, 'netbus'), 0o755);

  cluster = await Cluster.make('m1', 'm2', 'm3');
  cleanup.add('the cluster', () => cluster.close());
  const [m1, m2] = [cluster.host('m1'), cluster.host('m2')];
  await m1.start();
  await m2.start();
  for (const name of ['data', 'tools']) {
    const disk = m1.image(`${name}.img`, MIB);
    await m1.client.export({ name, disk, allow: ['m2'] });
  }
  await m2.client.export({ name: 'local', disk: m2.image('local.img', MIB), allow: ['m2'] });
  await m2.client.attach({ device: 'm1/data', vm: 'web' });
  const home = join(folder, 'home');
  mkdirSync(join(home, 'images'), { recursive: true });
  writeFileSync(join(home, 'images', 'my disk.img'), '');
  env = { PATH: `${bin}:${process.env.PATH}`, NETBUS_RUN_DIR: join(m2.folder, 'run'), HOME: home, LC_ALL: 'C.UTF-8' };
  for (const shell of ['bash', 'zsh', 'fish']) {
    writeFileSync(join(folder, shell), await runOk(['netbus', 'completion', shell], { env }));
  }
});
after(() => cleanup.run());

/** What stands on the line after the Tab key. All are typed on m2; m3 does not run. */
const TYPED: readonly [typed: string, becomes: string][] = [
  ['netbus unex\t', 'netbus unexport '],
  ['netbus det\t', 'netbus detach '],
  ['netbus attach m1/d\t', 'netbus attach m1/data '],
  ['netbus attach m1/data --v\t', 'netbus attach m1/data --vm '],
  ['netbus attach m1/data --vm w\t', 'netbus attach m1/data --vm web '],
  ['netbus attach m1/data --vm=w\t', 'netbus attach m1/data --vm=web '],
  ['netbus attach --vm web m1/t\t', 'netbus attach --vm web m1/tools '],
  ['netbus detach w\t', 'netbus detach web/data '],
  ['netbus --json detach w\t', 'netbus --json detach web/data '],
  ['netbus swap w\t', 'netbus swap web/data '],
  ['netbus swap web/data --to m1/t\t', 'netbus swap web/data --to m1/tools '],
  ['netbus migrate web --follow data=m1/t\t', 'netbus migrate web --follow data=m1/tools '],
  ['netbus unexport l\t', 'netbus unexport local '],
  ['netbus export x --allow m1,m2,\t', 'netbus export x --allow m1,m2,m3'],
  ['netbus export x --disk images/m\t', 'netbus export x --disk images/my\\ disk.img '],
  ['netbus export --reopen l\t', 'netbus export --reopen local '],
  ['netbus export --json --reopen l\t', 'netbus export --json --reopen local '],
  ['netbus export --reopen local l\t', 'netbus export --reopen local l'],
  ['netbus help gr\t', 'netbus help grow '],
  ['netbus completion z\t', 'netbus completion zsh '],
  // Nothing fits, so nothing happens.
  ['netbus attach m9/\t', 'netbus attach m9/'],
  ['netbus attach m1/data m\t', 'netbus attach m1/data m'],
  ['netbus export \t', 'netbus export '],
  ['netbus nonsense m\t', 'netbus nonsense m'],
];

/** Typed where no daemon answers. */
const TYPED_ALONE: readonly [typed: string, becomes: string][] = [
  ['netbus attach m1/d\t', 'netbus attach m1/d'],
  ['netbus attach m1/data --vm \t', 'netbus attach m1/data --vm '],
  ['netbus det\t', 'netbus detach '],
];

async function typeAll(terminal: Terminal, cases: readonly [string, string][]): Promise<void> {
  for (const [typed, becomes] of cases) {
    await asked(async () => {
      const { line } = await terminal.typeLine(typed);
      assert.equal(line, becomes, `after ${JSON.stringify(typed)}`);
    });
  }
}

/** As often as it takes for all of it to come out right, up to TRIES_MAX. */
async function asked(body: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await body();
    } catch (error) {
      if (!(error instanceof assert.AssertionError) || tries === TRIES_MAX) throw error;
    }
  }
}

const missing = ['bash', 'zsh', 'fish', 'script'].filter((program) => spawnSync('which', [program]).status !== 0);
const skip = (...programs: string[]) => {
  const needed = programs.filter((program) => missing.includes(program));
  return needed.length === 0 ? false : `needs ${needed.join(' and ')} (set-up installs them)`;
};

describe('bash', { skip: skip('bash', 'script') }, () => {
  const shell = async (run = env.NETBUS_RUN_DIR): Promise<Terminal> => {
    const terminal = new Terminal('bash --norc --noprofile -i', cleanup, { ...env, NETBUS_RUN_DIR: run, INPUTRC: '/dev/null' });
    const show = `bind -x '"\\C-g": printf "\\xc2\\xab%s\\xc2\\xbb" "$READLINE_LINE"'`;
    await terminal.enter(`cd; ${show}; bind 'set enable-bracketed-paste off'; source ${folder}/bash`);
    return terminal;
  };

  test('on a terminal, with a daemon', async () => {
    const terminal = await shell();
    await typeAll(terminal, TYPED);
    await asked(async () => {
      assert.match((await terminal.typeLine('netbus attach m1/\t\t')).shown, /m1\/data +m1\/tools/);
    });
    const { shown: options } = await terminal.typeLine('netbus detach --\t\t');
    assert.match(options, /--force +--help +--json +--qmp +--run-dir +--socket +--timeout/);
    // Another host's daemon, said on the line.
    const elsewhere = `netbus --run-dir=${join(cluster.host('m1').folder, 'run')} unexport da`;
    await typeAll(terminal, [[`${elsewhere}\t`, `${elsewhere}ta `]]);
    await terminal.close();
  });

  test('on a terminal, without a daemon', async () => {
    const terminal = await shell(join(folder, 'nowhere'));
    await typeAll(terminal, TYPED_ALONE);
    await terminal.close();
  });

  /** As `complete` calls it, with the words as readline splits them. */
  function ask(line: string, words: readonly string[], breaks = "$' \\t\\n\"\\'><=;|&(:'"): Promise<RunResult> {
    const quoted = words.map((word) => `'${word}'`).join(' ');
    const script = `source ${folder}/bash; COMP_WORDBREAKS=${breaks}; COMP_LINE='${line}'; COMP_POINT=${line.length}
      COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _netbus netbus; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return run(['bash', '--norc', '-c', script], { env });
  }

  test('words that readline splits, and words that it does not', async () => {
    const cases: [string, string[], string, string?][] = [
      ['netbus attach --vm=w', ['netbus', 'attach', '--vm', '=', 'w'], 'web'],
      ['netbus attach --vm=', ['netbus', 'attach', '--vm', '='], 'web'],
      ['netbus attach --vm=w', ['netbus', 'attach', '--vm=w'], '--vm=web', "' '"],
      ['netbus attach m1/da', ['netbus', 'attach', 'm1/da'], 'm1/data'],
      ['netbus attach -- m1/da', ['netbus', 'attach', '--', 'm1/da'], 'm1/data'],
      ['netbus detach a:b', ['netbus', 'detach', 'a', ':', 'b'], ''],
    ];
    for (const [line, words, expected, breaks] of cases) {
      await asked(async () => {
        const { stdout, stderr } = await ask(line, words, breaks);
        assert.equal(stderr, '');
        assert.equal(stdout.trim(), expected, line);
      });
    }
  });
});

describe('zsh', { skip: skip('zsh', 'script') }, () => {
  const shell = async (runDir = env.NETBUS_RUN_DIR): Promise<Terminal> => {
    const terminal = new Terminal('zsh -f -i', cleanup, { ...env, NETBUS_RUN_DIR: runDir });
    const show = `show() { printf '\\xc2\\xab%s\\xc2\\xbb' "$BUFFER" }; zle -N show; bindkey '^G' show; bindkey '^U' kill-whole-line`;
    const quiet = 'unsetopt beep auto_remove_slash; unset zle_bracketed_paste; LISTMAX=1000';
    await terminal.enter(`cd; ${quiet}; ${show}; autoload -U compinit; compinit -u -D; source ${folder}/zsh`);
    return terminal;
  };

  test('on a terminal, with a daemon', async () => {
    const terminal = await shell();
    await typeAll(terminal, TYPED);
    await asked(async () => {
      const { shown } = await terminal.typeLine('netbus attach m1/\t\t');
      assert.match(shown, /m1\/data +-- 1 MiB, used by m2:web\/data/);
      assert.match(shown, /m1\/tools +-- 1 MiB/);
    });
    assert.match((await terminal.typeLine('netbus detach --\t\t')).shown, /--force +-- although the VM is connected/);
    await terminal.close();
  });

  test('on a terminal, without a daemon', async () => {
    const terminal = await shell(join(folder, 'nowhere'));
    await typeAll(terminal, TYPED_ALONE);
    await terminal.close();
  });

  test('as a file of $fpath', async () => {
    const functions = join(folder, 'functions');
    mkdirSync(functions);
    writeFileSync(join(functions, '_netbus'), await runOk(['netbus', 'completion', 'zsh'], { env }));
    const script = `fpath=(${functions} $fpath); autoload -U compinit; compinit -u -D; print $_comps[netbus]; autoload +X _netbus`;
    assert.equal(await runOk(['zsh', '-f', '-c', script], { env }), '_netbus\n');
  });
});

describe('fish', { skip: skip('fish') }, () => {
  async function ask(line: string, runDir = env.NETBUS_RUN_DIR): Promise<string[]> {
    const script = `cd; source ${folder}/fish; complete -C '${line}'`;
    const text = await runOk(['fish', '--no-config', '-c', script], { env: { ...env, NETBUS_RUN_DIR: runDir } });
    return text.split('\n').filter((candidate) => candidate !== '');
  }
  const names = async (line: string, runDir?: string) => (await ask(line, runDir)).map((candidate) => candidate.split('\t')[0]);

  const told = (how: (line: string) => Promise<(string | undefined)[]>, line: string, expected: readonly string[]) =>
    asked(async () => assert.deepEqual(await how(line), expected));

  test('with a daemon', async () => {
    await told(ask, 'netbus det', ['detach\ttake a device from a VM of this host']);
    await told(ask, 'netbus attach m1/', ['m1/data\t1 MiB, used by m2:web/data', 'm1/tools\t1 MiB']);
    await told(names, 'netbus attach m1/data --vm ', ['web']);
    await told(names, 'netbus attach m1/data --vm=w', ['--vm=web']);
    await told(names, 'netbus detach w', ['web/data']);
    await told(names, 'netbus --json detach w', ['web/data']);
    await told(names, 'netbus unexport ', ['local']);
    await told(names, 'netbus export x --allow m1,', ['m1,m2', 'm1,m3']);
    await told(names, 'netbus completion ', ['bash', 'fish', 'zsh']);
    await told(names, 'netbus detach --', ['--force', '--help', '--json', '--qmp', '--run-dir', '--socket', '--timeout']);
    await told(names, 'netbus export x --disk images/my', ['images/my disk.img']);
    await told(ask, 'netbus attach m1/data m', []);
    await told(ask, 'netbus export ', []);
    await told(names, 'netbus export --direct ', []);
    await told(names, 'netbus export --json --reopen ', ['local']);
    await told(names, `netbus --run-dir ${join(cluster.host('m1').folder, 'run')} unexport d`, ['data']);
  });

  test('without a daemon', async () => {
    assert.deepEqual(await ask('netbus attach m', join(folder, 'nowhere')), []);
    assert.deepEqual(await names('netbus det', join(folder, 'nowhere')), ['detach']);
  });
});

describe('netbus __complete', () => {
  const ask = (...argv: string[]) => run(['netbus', '__complete', ...argv], { env });

  test('every kind of name, and none of what does not fit', async () => {
    const cases: [string[], string[]][] = [
      [['device'], ['m2/local', 'm1/data', 'm1/tools']],
      [['device', '--', 'm1/d'], ['m1/data']],
      [
        ['host', '--', ''],
        ['m2', 'm1', 'm3'],
      ],
      [['hosts', '--', 'm3,m2,'], ['m3,m2,m1']],
      [['export'], ['local']],
      [['attachment', 'web'], ['web/data']],
      [['vm'], ['web']],
      [['vm', '--', '-x'], []],
      [['nonsense'], []],
      [[], []],
      [['--wrong', 'vm'], []],
    ];
    for (const [argv, expected] of cases) {
      await asked(async () => {
        const { status, stdout, stderr } = await ask(...argv);
        assert.equal(stderr, '');
        assert.equal(status, 0);
        const names = stdout.split('\n').map((line) => line.split('\t')[0]);
        assert.deepEqual(names.filter((name) => name !== '').sort(), [...expected].sort(), argv.join(' '));
      });
    }
  });

  test('a daemon that is away, is something else, or says nothing: no names, and 0', async () => {
    assert.deepEqual(await ask('--run-dir', '/nonexistent', 'vm'), { status: 0, signal: undefined, stdout: '', stderr: '' });
    const notSocket = join(folder, 'file');
    writeFileSync(notSocket, '');
    assert.deepEqual(await ask('--socket', notSocket, 'vm'), { status: 0, signal: undefined, stdout: '', stderr: '' });
    const silent = createServer();
    const silentPath = join(folder, 'silent');
    await new Promise<void>((resolve) => silent.listen(silentPath, resolve));
    assert.deepEqual(await ask('--socket', silentPath, 'vm'), { status: 0, signal: undefined, stdout: '', stderr: '' });
    silent.close();
  });
});
