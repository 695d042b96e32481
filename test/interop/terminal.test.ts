/** The command line on a real terminal, and beside it in a pipe: questions, progress, watches, colours, Ctrl-C. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { joinCluster } from '../../src/daemon/join.ts';
import { encodeToken } from '../../src/directory/token.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { shellQuote } from '../../src/lib/format.ts';
import { DEVICES, JOB, STATUS } from '../support/answers.ts';
import { Cleanup } from '../support/cleanup.ts';
import { FakeDaemon } from '../support/fake-daemon.ts';
import { GrowingCluster } from '../support/growing-cluster.ts';
import { run } from '../support/process.ts';
import { netbusProgram } from '../support/program.ts';
import { CTRL_C, CTRL_D, Pty } from '../support/pty.ts';

/** What a terminal takes for: to the line's beginning and remove it; to the top left corner; a colour. */
const CLEARED = '\\r\\x1b\\[K';
const HOME = '\\x1b\\[H';
// biome-ignore lint/suspicious/noControlCharactersInRegex: a colour begins with the escape character.
const COLOUR = /\x1b\[\d*m/;

const cleanup = new Cleanup();
const daemon = new FakeDaemon();
afterEach(() => daemon.stop());
after(async () => {
  await cleanup.run();
  await daemon.close();
});

/** `netbus ARGV` on a terminal. Behind it the exit status is shown, and whether the terminal is set as it was. */
class Typed extends Pty {
  constructor(argv: readonly string[], noColor = false) {
    // Node takes the terminal of a CI for one without colours.
    const colour = noColor ? 'NO_COLOR=1' : '-u NO_COLOR -u CI';
    const command = [...netbusProgram(), ...argv].map(shellQuote).join(' ');
    // Ctrl-C is for the whole foreground, and the shell has to see the program's end.
    const script = `trap : INT; a=$(stty -g); env ${colour} ${command}; s=$?; [ "$a" = "$(stty -g)" ] && t=restored; echo "<$s $t>"`;
    super(script, cleanup, { NETBUS_RUN_DIR: daemon.folder, TERM: 'xterm' });
  }

  /** Waits for the end. Returns what was shown before it, as the terminal got it. */
  async ends(status: number): Promise<string> {
    const [end] = await this.waitFor(/<\d+ \w*>\r\n/);
    assert.equal(end, `<${status} restored>\r\n`, this.shown);
    return this.shown.slice(0, this.shown.indexOf(end));
  }
}

describe('evict asks', () => {
  const QUESTION = /Guests on m3 lose .* Evict m3\? \[y\/N\] /;

  for (const [what, keys, status, told] of [
    ['yes', 'yes\r', 0, /^host m3 is evicted; m1 knows of it\r$/m],
    ['y', 'Y\r', 0, /host m3 is evicted/],
    ['no', 'n\r', 2, /^netbus: host m3 was not evicted\r$/m],
    ['nothing', '\r', 2, /^netbus: host m3 was not evicted\r$/m],
    ['another word', 'yess\r', 2, /^netbus: host m3 was not evicted\r$/m],
    ['the end of the input', CTRL_D, 2, /\[y\/N\] .*\r\n(.*\r)?netbus: host m3 was not evicted\r$/m],
    ['Ctrl-C', CTRL_C, 130, /\[y\/N\] .*\r\n$/],
    ['Ctrl-C behind a yes', `yes${CTRL_C}`, 130, /\[y\/N\] .*yes.*\r\n$/],
  ] as const) {
    test(`${what}: ${status}`, async () => {
      const bodies = await daemon.answerWith({ host: 'm3', told: ['m1'], untold: [] });
      const typed = new Typed(['evict', 'm3']);
      await typed.waitFor(QUESTION);
      assert.equal(bodies.length, 1, 'the daemon was asked whether it may be evicted, and nothing else');
      typed.type(keys);
      assert.match(await typed.ends(status), told);
      assert.equal(bodies.length, status === 0 ? 2 : 1);
    });
  }

  test('nobody where --yes says it, and nobody where there is no terminal', async () => {
    const bodies = await daemon.answerWith({ host: 'm3', told: [], untold: [] });
    assert.doesNotMatch(await new Typed(['evict', 'm3', '--yes']).ends(0), /\[y\/N\]/);
    assert.equal(bodies.length, 1);
    const { status, stdout, stderr } = await daemon.netbus(['evict', 'm3']);
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, /^netbus: guests on m3 lose .* type "netbus evict m3 --yes"\n$/);
    assert.equal(bodies.length, 2);
  });

  test('nobody about a host that is no member', async () => {
    await daemon.answerWith({ error: { code: 'not_found', message: 'host m3 is not a member' } }, 404);
    assert.match(await new Typed(['evict', 'm3']).ends(3), /^netbus: host m3 is not a member\r\n$/);
  });
});

describe('a verb that waits for the daemon', () => {
  let waiting: ServerResponse | undefined;
  const listen = () =>
    daemon.listen((_request, response) => {
      waiting = response;
    });

  test('says so on one line, which goes away with the answer', async () => {
    await listen();
    const typed = new Typed(['ls']);
    await typed.waitFor(new RegExp(`${CLEARED}netbus: ls: the daemon is at it, for \\d+ s now`));
    waiting?.end(JSON.stringify(DEVICES));
    const shown = await typed.ends(0);
    assert.match(shown, new RegExp(`at it, for \\d+ s now${CLEARED}`));
    assert.match(shown.slice(shown.lastIndexOf('\r\x1b[K')), /^\S*DEVICE/m);
  });

  test('is ended by Ctrl-C, and the line goes away', async () => {
    await listen();
    const typed = new Typed(['ls']);
    await typed.waitFor(/the daemon is at it/);
    typed.type(CTRL_C);
    assert.ok((await typed.ends(130)).endsWith('\r\x1b[K'));
  });
});

describe('colours', () => {
  test('a terminal gets them, unless NO_COLOR is set; a pipe never', async () => {
    await daemon.answerWith(DEVICES);
    assert.match(await new Typed(['ls']).ends(0), COLOUR);
    assert.doesNotMatch(await new Typed(['ls'], true).ends(0), COLOUR);
    assert.doesNotMatch((await daemon.netbus(['ls'], { prefix: ['env', '-u', 'NO_COLOR'] })).stdout, COLOUR);
  });
});

describe('a watch', () => {
  test('of the status is shown in its place, and Ctrl-C ends it', async () => {
    await daemon.answerWith(STATUS);
    const typed = new Typed(['status', '--watch']);
    await typed.waitFor(new RegExp(`waits for m1[^]*${HOME}[^]*waits for m1`));
    typed.type(CTRL_C);
    assert.ok((await typed.ends(130)).startsWith('\x1b[H'));
  });

  test('of the events is ended by Ctrl-C', async () => {
    const event = { sequence: 1, id: 1, time: STATUS.time, lastTime: STATUS.time, count: 1, type: 'link.down' };
    await daemon.listen((_request, response) => {
      response.write(
        `${JSON.stringify({ ...event, severity: 'info', about: 'host', subject: 'm1', message: 'it is down' })}\n`,
      );
    });
    const typed = new Typed(['events', '--watch']);
    await typed.waitFor(/it is down/);
    typed.type(CTRL_C);
    await typed.ends(130);
  });
});

describe('a job', () => {
  test('has a bar on one line; Ctrl-C leaves it running, and says so on a line of its own', async () => {
    await daemon.answerWith(JOB);
    const typed = new Typed(['swap', 'web/data', '--to', 'm2/new']);
    await typed.waitFor(new RegExp(`${CLEARED}netbus: swap: copying \\[=+> *\\] 42 %`));
    typed.type(CTRL_C);
    assert.match(await typed.ends(130), new RegExp(`${CLEARED}netbus: job j3 goes on: .*--cancel" ends it\r\n$`));
  });
});

describe('join is interrupted, and nothing is half done', () => {
  let cluster: GrowingCluster;
  before(async () => {
    cluster = await GrowingCluster.make(['m1', 'm2'], cleanup);
    await cluster.init('m1', 'lab');
    await cluster.start('m1');
  });

  const places = () => {
    const { folder, stateDir, runDir } = cluster.host('m2');
    return { config: join(folder, 'netbus.yaml'), stateDir, runDir };
  };
  const typeJoin = (token: string) => {
    const { config, stateDir, runDir } = places();
    return new Typed(['join', token, '--config', config, '--state-dir', stateDir, '--run-dir', runDir]);
  };
  function assertNothing(): void {
    const { config, stateDir } = places();
    const left = existsSync(cluster.host('m2').folder) ? readdirSync(cluster.host('m2').folder, { recursive: true }) : [];
    const files = left.filter((name) => /netbus\.yaml|pki|directory|\.netbus-setup/.test(String(name)));
    assert.deepEqual([files, existsSync(config), existsSync(join(stateDir, 'directory'))], [[], false, false]);
  }

  test('while it reads the token', async () => {
    const typed = typeJoin('-');
    await typed.waitFor(/the token, then Enter and Ctrl-D:/);
    typed.type(`netbus-${CTRL_C}`);
    await typed.ends(130);
    assertNothing();
  });

  test('while the inviting host does not answer', async () => {
    const silent: Server = createServer();
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    cleanup.add('a silent host', () => void silent.close());
    const { port } = silent.address() as { port: number };
    const asked = new Promise((resolve) => silent.once('connection', resolve));
    const token = encodeToken({
      ...{ cluster: 'lab', host: 'm2', issuer: 'm1', address: `127.0.0.1:${port}` },
      ...{ caFingerprint: new Uint8Array(32), secret: new Uint8Array(32), expiresAt: Date.now() + 15 * 60_000 },
    });
    const typed = typeJoin(token);
    await asked;
    typed.type(CTRL_C);
    assert.match(
      await typed.ends(130),
      /netbus: interrupted: nothing was made here; if the token is refused .* invite it again\r/,
    );
    assertNothing();
  });

  test('when the host was let in: it becomes a member all the same; where that fails it can be invited again', async () => {
    const join = async (atTheEnd: () => void) => {
      const { token } = await cluster.invite('m1', 'm2');
      const progress = (line: string) => void (line.includes('are in order') && atTheEnd());
      return await joinCluster({ token, clock: systemClock, signal: interrupt.signal, progress, ...places() });
    };
    const interrupt = new AbortController();
    const { config } = places();
    await assert.rejects(
      join(() => writeFileSync(config, '')),
      {
        code: 'in_use',
        message: `this host was let in, but its files could not be made: ${config} is there already, and nothing is overwritten; the invitation is used up: type "netbus evict m2 --yes" and "netbus invite m2" on m1, and join with the new token`,
      },
    );
    rmSync(config);
    assertNothing();
    const evicted = await run([...netbusProgram(), 'evict', 'm2', '--yes'], {
      env: { NETBUS_RUN_DIR: cluster.host('m1').runDir },
    });
    assert.equal(evicted.status, 0, evicted.stderr);
    const { files } = await join(() => interrupt.abort());
    assert.deepEqual(
      files.filter((path) => !existsSync(path)),
      [],
    );
  });
});
