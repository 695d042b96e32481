import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { NetbusError } from '../device/errors.ts';
import { loadConfig, parseConfig } from './config.ts';

const good = `cluster: lab
host: m2
hosts:
  m1: { address: 10.0.0.1 }
  m2: { address: "10.0.0.2:7444" }
`;

/** The problems that a text has, one a line. */
function problems(text: string): string[] {
  try {
    parseConfig('netbus.yaml', text);
  } catch (thrown) {
    assert.ok(thrown instanceof NetbusError);
    assert.equal(thrown.code, 'config');
    return thrown.message.split('\n');
  }
  return [];
}

describe('config', () => {
  test('fills in the defaults', () => {
    const config = parseConfig('/etc/netbus/netbus.yaml', good);
    assert.equal(config.cluster, 'lab');
    assert.equal(config.host, 'm2');
    assert.deepEqual(config.listen, { host: '0.0.0.0', port: 7443 });
    assert.deepEqual(
      [...config.hosts!],
      [
        ['m1', { host: '10.0.0.1', port: 7443 }],
        ['m2', { host: '10.0.0.2', port: 7444 }],
      ],
    );
    assert.equal(config.runDir, '/run/netbus');
    assert.equal(config.stateDir, '/var/lib/netbus');
    assert.equal(config.pki.ca, '/etc/netbus/pki/ca.crt');
    assert.equal(config.log.level, 'info');
  });

  test('takes every key, and paths relative to its own folder', () => {
    const text = `${good}listen: "[::1]:9000"\npki: { ca: pki/ca.crt, certificate: /x/m2.crt, key: ../m2.key, issuingKey: i.key }\nrunDir: run\nstateDir: /s\nlog: { level: debug }\n`;
    const config = parseConfig('/srv/a/netbus.yaml', text);
    assert.deepEqual(config.listen, { host: '::1', port: 9000 });
    assert.deepEqual(config.pki, {
      ca: '/srv/a/pki/ca.crt',
      certificate: '/x/m2.crt',
      key: '/srv/m2.key',
      issuing: { certificate: '/x/issuing.crt', key: '/srv/a/i.key' },
    });
    assert.equal(config.runDir, '/srv/a/run');
    assert.equal(config.log.level, 'debug');
  });

  test('needs no hosts: they are in the member list then', () => {
    const config = parseConfig('/etc/netbus/netbus.yaml', 'cluster: lab\nhost: m3\n');
    assert.equal(config.hosts, undefined);
    assert.deepEqual(config.pki.issuing, { certificate: '/etc/netbus/pki/issuing.crt', key: '/etc/netbus/pki/issuing.key' });
  });

  const mistakes: { name: string; text: string; told: RegExp }[] = [
    {
      name: 'unknown key',
      text: `${good}lsten: 1.2.3.4\n`,
      told: /^netbus\.yaml:6: unknown key "lsten"; did you mean "listen"\? allowed: cluster, host, /,
    },
    {
      name: 'unknown key as near to one that is there as to one that is missing',
      text: good.replace('host:', 'hots:'),
      told: /^netbus\.yaml:2: unknown key "hots"; did you mean "host"\?/,
    },
    { name: 'unknown key, nothing near', text: `${good}colour: red\n`, told: /:6: unknown key "colour"; allowed: cluster, / },
    {
      name: 'unknown key deep inside',
      text: good.replace('10.0.0.1 }', '10.0.0.1, adress: x }'),
      told: /:4: hosts\.m1: unknown key "adress"; did you mean "address"\? allowed: address$/,
    },
    {
      name: 'unknown key that is near two',
      text: `${good}pki: { isuingKey: x }\n`,
      told: /:6: pki: unknown key "isuingKey"; did you mean "issuingKey"\? allowed: ca, certificate, key, issuingCertificate, issuingKey$/,
    },
    {
      name: 'misspelt hosts',
      text: good.replace('hosts:', 'host s:'),
      told: /:3: unknown key "host s"; did you mean "hosts"\?/,
    },
    { name: 'wrong type', text: good.replace('lab', '17'), told: /:1: cluster: is the number 17; it must be a text/ },
    { name: 'a list for a map', text: `${good}log: [info]\n`, told: /:6: log: is a list; it must be a map/ },
    { name: 'missing key', text: good.replace('cluster: lab\n', ''), told: /:1: cluster: is missing; it must be a text/ },
    { name: 'empty value', text: good.replace('lab', ''), told: /:1: cluster: is empty; it must be a text/ },
    {
      name: 'bad address',
      text: good.replace('10.0.0.1 ', '10.0.0.300 '),
      told: /:4: hosts\.m1\.address: "10\.0\.0\.300" is not an address; an address is HOST/,
    },
    { name: 'bad port', text: `${good}listen: 0.0.0.0:70000\n`, told: /:6: listen: "0\.0\.0\.0:70000" is not an address/ },
    {
      name: 'host not among hosts',
      text: good.replace('host: m2', 'host: m3'),
      told: /:2: host: "m3" is not among the hosts; hosts has m1, m2$/,
    },
    {
      name: 'same address twice',
      text: good.replace('10.0.0.2:7444', '10.0.0.1'),
      told: /:5: hosts\.m2\.address: m1 has the same address/,
    },
    {
      name: 'bad characters in a name',
      text: good.replace('host: m2', 'host: m/2'),
      told: /:2: host: is "m\/2"; a name of a cluster or host has 1 to 63/,
    },
    {
      name: 'bad characters in a member name',
      text: good.replace('m1:', '"m 1":'),
      told: /:4: hosts\.m 1: "m 1" is not a name; a name of a cluster or host has 1 to 63/,
    },
    { name: 'duplicate key', text: `${good}host: m1\n`, told: /:6: the key is there twice/ },
    {
      name: 'bad level',
      text: `${good}log: { level: loud }\n`,
      told: /:6: log\.level: is "loud"; allowed: trace, debug, info/,
    },
    { name: 'YAML syntax', text: 'cluster: lab\nhost: "m2\n', told: /^netbus\.yaml:\d: not valid YAML: / },
    { name: 'empty file', text: '# nothing\n', told: /:1: the file is empty/ },
    { name: 'two documents', text: `${good}---\n${good}`, told: /:6: a second document begins/ },
  ];
  for (const { name, text, told } of mistakes) {
    test(`tells ${name} in one line`, () => {
      const lines = problems(text);
      assert.equal(lines.length, 1, lines.join('\n'));
      assert.match(lines[0], told);
    });
  }

  test('a misspelt key is one mistake, not two', () => {
    const lines = problems(good.replace('cluster:', 'clustr:'));
    assert.deepEqual(lines.length, 1);
    assert.match(lines[0], /:1: unknown key "clustr"; did you mean "cluster"\?/);
  });

  test('tells all mistakes at once', () => {
    assert.equal(problems(`${good}a: 1\nb: 2\nlog: 3\n`).length, 3);
  });

  test('bounds aliases', () => {
    const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n`;
    assert.match(problems(bomb)[0], /not usable YAML/);
  });

  test('a file that is not there says so', () => {
    const folder = mkdtempSync(join(tmpdir(), 'netbus-config-'));
    try {
      assert.throws(() => loadConfig(join(folder, 'none.yaml')), { code: 'not_found', message: /there is no config file/ });
      assert.throws(() => loadConfig(folder), { code: 'config' });
      writeFileSync(join(folder, 'netbus.yaml'), good);
      assert.equal(loadConfig(join(folder, 'netbus.yaml')).host, 'm2');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
