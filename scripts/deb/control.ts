/** What Debian wants to know of the package: its control file, its changelog. */

export interface PackageFacts {
  /** Debian's form of the version. */
  version: string;
  /** amd64, arm64 … */
  architecture: string;
  /** "NAME <ADDRESS>". */
  maintainer: string;
  installedKib: number;
  /** The oldest C library that has what the addon uses, such as 2.34. */
  libc: string;
}

/**
 * "0.2.0-rc.1" of npm is before 0.2.0, which Debian writes with a tilde. There is no revision: the packaging is part of the project and has its
 * versions.
 */
export function debianVersion(version: string): string {
  return version.replaceAll('-', '~');
}

export function controlFile(facts: PackageFacts): string {
  const depends = [
    'nodejs (>= 20.19)',
    `libc6 (>= ${facts.libc})`,
    // What postinst calls; one of them is there without systemd, too.
    'systemd | systemd-standalone-sysusers | systemd-sysusers',
    'systemd | systemd-standalone-tmpfiles | systemd-tmpfiles',
  ];
  return `Package: netbus
Version: ${facts.version}
Architecture: ${facts.architecture}
Maintainer: ${facts.maintainer}
Installed-Size: ${facts.installedKib}
Pre-Depends: init-system-helpers (>= 1.54~)
Depends: ${depends.join(', ')}
Suggests: qemu-system, libvirt-daemon-system
Section: admin
Priority: optional
Description: devices of one host, used by virtual machines on any other
 A device is in one host; a virtual machine on any other host uses it as if it
 were plugged into its own. The guest's own drivers talk to what looks like
 their own hardware, so nothing is installed in the guest.
 .
 This package has the daemon, netbusd, and the command line, netbus. Virtual
 machine monitors that speak vhost-user, such as QEMU, connect to the daemon of
 their host.
`;
}

/** One entry: what changed is told in CHANGELOG.md, which comes along. */
export function changelog({ version, maintainer }: PackageFacts, date: Date): string {
  return `netbus (${version}) unstable; urgency=medium

  * Release ${version}; /usr/share/doc/netbus/CHANGELOG.md.gz says what it can do.

 -- ${maintainer}  ${rfc2822(date)}
`;
}

/** The oldest glibc whose symbol versions suffice, from what `objdump -T` prints of a library. */
export function libcOf(symbols: string): string {
  const versions = [...symbols.matchAll(/GLIBC_(\d+(?:\.\d+)+)/g)].map(([, version]) => version.split('.').map(Number));
  const newest = versions.sort(compareVersions).at(-1);
  if (newest === undefined) throw new Error('the addon uses nothing of glibc: is it the right file?');
  return newest.join('.');
}

function compareVersions(a: readonly number[], b: readonly number[]): number {
  const length = Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** "Sat, 01 Feb 2031 10:00:00 +0000", as deb-changelog(5) wants it. */
function rfc2822(date: Date): string {
  return date.toUTCString().replace('GMT', '+0000');
}
