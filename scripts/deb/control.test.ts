import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changelog, controlFile, debianVersion, libcOf, type PackageFacts } from './control.ts';

const FACTS: PackageFacts = {
  version: '0.2.0~rc.1',
  architecture: 'amd64',
  maintainer: 'A Name <a@b.example>',
  installedKib: 2048,
  libc: '2.34',
};

test("a pre-release is before its release in Debian's order, too", () => {
  assert.equal(debianVersion('0.2.0'), '0.2.0');
  assert.equal(debianVersion('0.2.0-rc.1'), '0.2.0~rc.1');
});

test('the C library is the newest that a symbol asks for, by number and not by letter', () => {
  assert.equal(libcOf('(GLIBC_2.9)  read\n(GLIBC_2.34) pthread_create\n(GLIBC_2.2.5) free\n(GLIBC_2.4) x\n'), '2.34');
  assert.equal(libcOf('(GLIBC_2.2.5) free\n(GLIBC_2.2) x\n'), '2.2.5');
  assert.throws(() => libcOf('0000 g DF .text 0000 Base napi_register_module_v1'), /nothing of glibc/);
});

test('control file and changelog', () => {
  const control = controlFile(FACTS);
  for (const line of [
    'Version: 0.2.0~rc.1',
    'Architecture: amd64',
    'Maintainer: A Name <a@b.example>',
    'Installed-Size: 2048',
  ]) {
    assert.ok(control.split('\n').includes(line), line);
  }
  assert.match(control, /^Depends: nodejs \(>= 20\.19\), libc6 \(>= 2\.34\), /m);
  const entry = changelog(FACTS, new Date('2031-02-01T10:00:00Z'));
  assert.match(entry, /^netbus \(0\.2\.0~rc\.1\) unstable; urgency=medium\n/);
  assert.match(entry, /\n -- A Name <a@b\.example> {2}Sat, 01 Feb 2031 10:00:00 \+0000\n$/);
});
