import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Hono } from 'hono';
import { NOT_POSSIBLE_HERE } from '../../test/support/skip.ts';
import { deviceGroup, findGroup, giveToGroup } from './group.ts';
import { serveControl } from './server.ts';

const GROUPS = 'root:x:0:\nnetbus-admin:x:7:\nbroken\nnetbus:x:998:alice,bob\nnetbus:x:5:\nodd:x:many:\nlast:x:3';

test('a group by its name', () => {
  assert.equal(findGroup(GROUPS, 'netbus')?.id, 998);
  assert.equal(findGroup(GROUPS, 'last')?.id, 3);
  for (const name of ['broken', 'odd', 'nobody', '', 'net']) assert.equal(findGroup(GROUPS, name), undefined, name);
});

const asRoot = process.geteuid?.() === 0 ? {} : { skip: `${NOT_POSSIBLE_HERE}only root may give a file to any group` };

test('the control socket belongs to the group, where there is one', asRoot, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'netbus-group-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const [path, groups] = [join(folder, 'netbus.sock'), join(folder, 'group')];
  writeFileSync(groups, GROUPS);
  const server = await serveControl(path, new Hono(), groups);
  const { uid, gid, mode } = statSync(path);
  assert.deepEqual([uid, gid, mode & 0o777], [0, 998, 0o660]);
  await server.close();

  writeFileSync(path, '');
  const { gid: own } = statSync(path);
  await giveToGroup(path, 'nobody', groups);
  await giveToGroup(path, 'netbus', join(folder, 'missing'));
  assert.equal(statSync(path).gid, own);
});

test("the group of the devices' sockets: the config's, which must be there, else kvm where it is", asRoot, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'netbus-group-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const groups = join(folder, 'group');
  writeFileSync(groups, GROUPS);
  const group = (name: string | undefined, groupFile: string) => deviceGroup({ file: '/c.yaml', deviceGroup: name }, groupFile);
  assert.equal(await group('last', groups), 3);
  assert.equal(await group('root', groups), 0);
  assert.equal(await group(undefined, groups), undefined);
  assert.equal(await group(undefined, join(folder, 'missing')), undefined);
  await assert.rejects(group('lats', groups), {
    code: 'config',
    message: /^\/c\.yaml: deviceGroup: there is no group "lats".*groupadd/,
  });
  writeFileSync(groups, `${GROUPS}\nkvm:x:107:\n`);
  assert.equal(await group(undefined, groups), 107);
});
