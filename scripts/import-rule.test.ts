import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { importsOf, violation } from './import-rule.ts';

function check(file: string, target: string): string | undefined {
  return violation({ file, line: 1, specifier: './x.ts', target });
}

describe('the import rule', () => {
  const allowed: [string, string][] = [
    ['src/device/slot.ts', 'src/lib/clock.ts'],
    ['src/protocols/netbus.ts', 'src/device/device.ts'],
    ['src/backends/disk/disk.ts', 'src/protocols/virtio-blk.ts'],
    ['src/backends/disk/disk.ts', 'src/backends/disk/lock.ts'],
    ['src/frontends/vhost-user/server.ts', 'native/index.ts'],
    ['src/migration/mirror.ts', 'src/bus/session.ts'],
    ['src/daemon/main.ts', 'src/frontends/vhost-user/server.ts'],
    ['src/daemon/main.ts', 'src/api/types.ts'],
    ['src/cli/ls.ts', 'src/api/types.ts'],
    ['src/cli/ls.ts', 'src/device/errors.ts'],
    ['src/cli/daemon.ts', 'src/daemon/main.ts'],
    ['src/cli/attach-qmp.ts', 'src/vmm/hot-plug.ts'],
    ['src/vmm/qmp-connection.ts', 'src/protocols/qmp/client.ts'],
    ['src/migration/switch-over.ts', 'src/vmm/qmp-connection.ts'],
    ['scripts/demo.ts', 'test/support/hosts.ts'],
    ['src/cli/program.ts', 'package.json'],
    ['src/device/slot.test.ts', 'src/daemon/main.ts'],
    ['test/guest/guest.ts', 'src/daemon/main.ts'],
    ['bench/main.ts', 'src/bus/session.ts'],
  ];
  for (const [file, target] of allowed) {
    test(`${file} may import ${target}`, () => assert.equal(check(file, target), undefined));
  }

  const refused: [string, string, string][] = [
    ['src/lib/ring.ts', 'src/device/device.ts', 'lib never imports device'],
    ['src/device/slot.ts', 'src/protocols/netbus.ts', 'device never imports protocols'],
    ['src/device/slot.ts', 'native/index.ts', 'device never imports native'],
    ['src/protocols/netbus.ts', 'native/index.ts', 'protocols never imports native'],
    ['src/lib/ring.ts', 'native/index.ts', 'lib never imports native'],
    ['src/frontends/vhost-user/server.ts', 'src/backends/disk/disk.ts', 'frontends never imports backends'],
    ['src/bus/session.ts', 'src/directory/members.ts', 'bus never imports directory'],
    ['src/vmm/hot-plug.ts', 'src/frontends/vhost-user/server.ts', 'vmm never imports frontends'],
    ['src/backends/disk/disk.ts', 'src/migration/mirror.ts', 'backends never imports migration'],
    ['src/migration/mirror.ts', 'src/daemon/main.ts', 'migration never imports daemon'],
    ['src/api/types.ts', 'src/device/slot.ts', 'api never imports device'],
    ['src/cli/ls.ts', 'src/bus/session.ts', 'cli never imports bus'],
    ['src/cli/ls.ts', 'src/device/slot.ts', 'cli never imports device'],
    ['src/console/page.ts', 'src/daemon/main.ts', 'console never imports daemon'],
    ['src/daemon/main.ts', 'test/support/hosts.ts', 'daemon never imports test/support/hosts.ts'],
    ['src/daemon/main.ts', 'bench/load.ts', 'daemon never imports bench/load.ts'],
    ['src/daemon/main.ts', 'scripts/demo.ts', 'daemon never imports scripts'],
    ['src/device/slot.ts', 'src/device/slot.test.ts', 'device never imports a test'],
    ['scripts/demo.ts', 'src/bus/session.ts', 'scripts never imports bus'],
    ['native/index.ts', 'src/lib/clock.ts', 'native never imports lib'],
    ['src/news/feed.ts', 'src/lib/clock.ts', 'news has no place in the import rule: give it one in scripts/import-rule.ts'],
  ];
  for (const [file, target, problem] of refused) {
    test(`${problem} (${file})`, () => assert.equal(check(file, target), problem));
  }

  test('parts that compute do no I/O', () => {
    const io = (file: string, specifier: string) => violation({ file, line: 1, specifier, target: undefined });
    assert.equal(io('src/protocols/netbus.ts', 'node:net'), 'protocols does no I/O');
    assert.equal(io('src/device/slot.ts', 'fs/promises'), 'device does no I/O');
    assert.equal(io('src/device/profile.ts', 'zod'), undefined);
    assert.equal(io('src/bus/link.ts', 'node:tls'), undefined);
  });
});

test('every form of import is found, with its line, and nothing in comments and strings is', () => {
  const text = [
    "import './bare.ts';",
    "import one, { two } from './named.ts';",
    'import type { Three } from "./type.ts";',
    'import {',
    '  four,',
    "} from './lines.ts';",
    "export * from './star.ts';",
    "export { five } from './again.ts';",
    "const six = await import('./dynamic.ts');",
    "// import './comment.ts';",
    '/* import',
    " from './block.ts'; */",
    'export const seven = "import \'./string.ts\'";',
    "export interface Nine { class: 'net' }",
    "const eight = `\nimport './template.ts';\n`;",
  ].join('\n');
  assert.deepEqual(
    importsOf(text).map(({ line, specifier }) => `${line} ${specifier}`),
    ['1 ./bare.ts', '2 ./named.ts', '3 ./type.ts', '6 ./lines.ts', '7 ./star.ts', '8 ./again.ts', '9 ./dynamic.ts'],
  );
});
