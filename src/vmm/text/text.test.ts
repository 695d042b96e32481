import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VMM_FORMATS, vmmText } from './index.ts';
import { chardevAdd } from './qmp.ts';

const DISK = { id: 'nb-web-data.1', socket: '/run/netbus/web/data.1.sock', queues: 2 };

test('QEMU: memory, chardev and device, as arguments and as lines for a shell', () => {
  const { text, parts } = vmmText('qemu', DISK, { vm: 'web' });
  assert.deepEqual(parts, {
    arguments: [
      '-chardev',
      'socket,id=nb-web-data.1,path=/run/netbus/web/data.1.sock,reconnect=1',
      '-device',
      'vhost-user-blk-pci,id=nb-web-data.1,chardev=nb-web-data.1,num-queues=2',
    ],
    memoryArguments: ['-object', 'memory-backend-memfd,id=mem,size=1G,share=on', '-machine', 'q35,memory-backend=mem'],
  });
  assert.match(text, /^ {2}-chardev socket,\S+ \\\n {2}-device vhost-user-blk-pci,\S+$/m);
  const odd = vmmText('qemu', { ...DISK, socket: "/run/a, b'c.sock" }, { vm: 'web' });
  assert.match(odd.text, /-chardev 'socket,id=nb-web-data\.1,path=\/run\/a,, b'\\''c\.sock,reconnect=1'/);
});

test('libvirt: elements that an XML parser takes, whatever the path', () => {
  const { parts } = vmmText('libvirt', { ...DISK, socket: "/run/<&'>.sock" }, { vm: 'web' });
  assert.match(String(parts.disk), /path='\/run\/&lt;&amp;&apos;>\.sock'/);
  assert.match(String(parts.disk), /<reconnect enabled='yes' timeout='1'\/>/);
  assert.match(String(parts.memoryBacking), /<access mode='shared'\/>/);
});

test("libvirt: comments that XML allows, whatever the VM's name", () => {
  const { text } = vmmText('libvirt', DISK, { vm: 'a--b' });
  const comments = [...text.matchAll(/<!--(.*?)-->/gs)].map(([, comment]) => comment!);
  assert.equal(comments.length, 2);
  for (const comment of comments) assert.doesNotMatch(comment, /--|-$/);
});

test('QMP: a command a line, with the bus where one is given', () => {
  const { text, parts } = vmmText('qmp', DISK, { vm: 'web', bus: 'rp1' });
  const commands = text.split('\n').filter((line) => line.startsWith('{'));
  assert.deepEqual(
    commands.map((line) => JSON.parse(line)),
    parts.commands,
  );
  assert.match(text, /"bus":"rp1"/);
  assert.doesNotMatch(text, /q35/);
  assert.match(vmmText('qmp', DISK, { vm: 'web' }).text, /q35: add "bus":"PORT"/);
  assert.match(JSON.stringify(chardevAdd(DISK, true)), /"reconnect-ms":1000/);
});

test('Cloud Hypervisor and Firecracker say that they were not run by us', () => {
  const ch = vmmText('cloud-hypervisor', DISK, { vm: 'web' });
  assert.match(ch.text, /^# .*not run by us/);
  assert.match(
    ch.text,
    /--memory size=1G,shared=on \\\n {2}--disk id=nb-web-data\.1,vhost_user=true,socket=\/run\/\S+,num_queues=2,queue_size=128/,
  );
  const firecracker = vmmText('firecracker', DISK, { vm: 'web' });
  assert.match(firecracker.text, /^# .*not run by us/);
  assert.deepEqual(firecracker.parts.request, {
    method: 'PUT',
    path: '/drives/nb_web_data_1',
    body: { drive_id: 'nb_web_data_1', socket: DISK.socket, is_root_device: false },
  });
});

test('every format has a text that ends with a line', () => {
  for (const format of VMM_FORMATS) assert.match(vmmText(format, DISK, { vm: 'web' }).text, /[^\n]\n$/);
});
