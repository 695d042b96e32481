/** What the doctor finds out about the machine. */
import { test } from 'node:test';
import { expect } from '../../../../test/support/doctor.ts';
import { type FakeHost, systemError } from '../../../../test/support/fake-host.ts';

test('node', async () => {
  await expect('node', 'error', /20\.18\.1 is too old/, /20\.19\.0 or newer/, (host) => (host.nodeVersion = '20.18.1'));
});
test('kernel', async () => {
  await expect('kernel', 'error', /4\.4\.0 is too old/, /4\.7/, (host) => (host.kernel = '4.4.0'));
  await expect('kernel', 'hint', /5\.4\.0-1 has no io_uring/, /5\.6/, (host) => (host.kernel = '5.4.0-1'));
});
test('addon', async () => {
  await expect('addon', 'error', /wrong ELF class/, /x64/, (host) => (host.addonError = new Error('wrong ELF class')));
});

test('io_uring, with who forbids it', async () => {
  const forbid = (code: string, sysctl?: string, kernel?: string) => (host: FakeHost) => {
    host.ioUringError = systemError(code);
    if (sysctl !== undefined) host.file('/proc/sys/kernel/io_uring_disabled', `${sysctl}\n`);
    if (kernel !== undefined) host.kernel = kernel;
  };
  await expect('io_uring', 'hint', /io_uring_disabled is 2/, /sysctl -w/, forbid('EPERM', '2'));
  await expect('io_uring', 'hint', /seccomp/, /io_uring_setup/, forbid('EPERM', '0'));
  await expect('io_uring', 'hint', /seccomp/, /io_uring_setup/, forbid('EPERM'));
  await expect('io_uring', 'hint', /no io_uring/, /CONFIG_IO_URING/, forbid('ENOSYS'));
  await expect('io_uring', 'hint', /RLIMIT_MEMLOCK/, /LimitMEMLOCK/, forbid('ENOMEM', '0', '5.10.0'));
  await expect('io_uring', 'hint', /no memory/, /memory limit/, forbid('ENOMEM'));
  await expect('io_uring', 'skipped', /addon/, undefined, forbid('ERR_DLOPEN_FAILED'));
  await expect('io_uring', 'hint', /EXDEV/, /dmesg/, forbid('EXDEV'));
  await expect('io_uring', 'hint', /daemon is not root/, /sysctl/, (host) => {
    host.file('/proc/sys/kernel/io_uring_disabled', '1\n');
    host.change('/proc/42', { uid: 998 });
  });
});

test('limits of the daemon, or of this shell', async () => {
  const limits = (files: string, memory = 'unlimited') =>
    `Max open files            ${files.padEnd(20)} ${files.padEnd(20)} files\nMax locked memory         ${memory}   ${memory}   bytes\n`;
  await expect('limits', 'warning', /the daemon may have 256 open files/, /LimitNOFILE/, (host) =>
    host.file('/proc/42/limits', limits('256')),
  );
  await expect('limits', 'hint', /the daemon may have 4096 open files/, /LimitNOFILE/, (host) =>
    host.file('/proc/42/limits', limits('4096')),
  );
  await expect('limits', 'ok', /this shell may have any number of open files/, undefined, (host) => {
    host.stopDaemon();
    host.file('/proc/self/limits', limits('unlimited'));
  });
  await expect('limits', 'hint', /65536 bytes of memory, and this kernel counts/, /LimitMEMLOCK/, (host) => {
    host.kernel = '5.10.0';
    host.file('/proc/42/limits', limits('65536', '65536'));
  });
  await expect('limits', 'skipped', /may not be read/, /root/, (host) => host.change('/proc/42/limits', { error: 'EACCES' }));
});

test('shared memory', async () => {
  await expect('shared memory', 'hint', /is full/, /memfd/, (host) => host.setSpace('/dev/shm', { freeBytes: 0 }));
  await expect('shared memory', 'hint', /no \/dev\/shm/, /tmpfs/, (host) => host.remove('/dev/shm'));
});

test('QEMU', async () => {
  await expect('qemu', 'hint', /no QEMU/, /VMs/, (host) => host.programs.clear());
  await expect('qemu', 'hint', /5\.2\.0 is older/, /7\.2/, (host) =>
    host.programs.set('qemu-system-x86_64 --version', { status: 0, output: 'QEMU emulator version 5.2.0' }),
  );
  await expect('qemu', 'warning', /no vhost-user-blk/, /install/, (host) =>
    host.programs.set('qemu-system-x86_64 -machine none -device help', { status: 0, output: 'name "virtio-blk-pci"' }),
  );
  await expect('qemu', 'ok', /qemu-kvm 9\.0\.0/, undefined, (host) => {
    host.programs.clear();
    host.programs.set('/usr/libexec/qemu-kvm --version', { status: 0, output: 'QEMU emulator version 9.0.0' });
  });
});
