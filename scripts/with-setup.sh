#!/usr/bin/env bash
# with-setup.sh VERB [ARGUMENTS]: does all set-up that the verb needs, each step only where it is needed, then runs it.
# VERB is demo, test, bench, or setup (set-up for all three and nothing more); pack, which is what "npm pack" needs; or deb, which
# builds the Debian package. Works right after "git clone" on Debian 12 with Node.js.
#
# What it makes goes to .cache in the repository (or to $NETBUS_CACHE), node_modules, native/build and dist. All of its own
# words go to stderr, so that a verb's --json output stays clean.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where Debian keeps mkfs, e2fsck, ip and depmod; not in an ordinary user's path.
export PATH=$PATH:/usr/sbin:/sbin

NODE_VERSION_MIN=20.19.0
cache=${NETBUS_CACHE:-$PWD/.cache}

main() {
  local verb=${1:-}
  case $verb in
    demo | test | bench | setup | pack | deb) shift ;;
    *) fail 'usage: scripts/with-setup.sh demo|test|bench|setup|pack|deb [ARGUMENTS]' ;;
  esac
  mkdir -p "$cache"
  set_up "$verb" 9>"$cache/setup.lock" >&2
  # The tests and the demo run what was built just now.
  export NETBUS_PROGRAM=$PWD/dist/netbus.js
  # exec: signals such as Ctrl-C reach the program itself, and its exit code is ours.
  case $verb in
    demo) exec node --import tsx scripts/demo.ts "$@" ;;
    test) exec node scripts/test.mjs "$@" ;;
    bench) exec node --import tsx bench/main.ts "$@" ;;
    deb) exec node --import tsx scripts/make-deb.ts "$@" ;;
  esac
}

# One set-up at a time; the lock is the open descriptor 9, which ends with this function, however it ends.
set_up() {
  flock --nonblock 9 || { say 'waiting for another set-up to finish'; flock 9; }
  check_node
  debian_packages "$1"
  if needs_guests "$1"; then guest_kernel; fi
  npm_packages
  build
  if needs_guests "$1"; then node --import tsx scripts/guest-image.ts; fi
}

# Packing needs the build and nothing else.
needs_guests() {
  [[ $1 != pack && $1 != deb ]]
}

# --- steps -----------------------------------------------------------------------------------------------------------

check_node() {
  local where='see https://nodejs.org/en/download (the one in Debian 12 is too old)'
  command -v node >/dev/null || fail "Node.js $NODE_VERSION_MIN or newer is needed: $where"
  command -v npm >/dev/null || fail 'npm is needed; it comes with Node.js'
  local version
  version=$(node --print process.versions.node)
  printf '%s\n' "$NODE_VERSION_MIN" "$version" | sort --version-sort --check=quiet ||
    fail "Node.js $NODE_VERSION_MIN or newer is needed, this is $version: $where"
}

# Debian packages by verb: "package: why".
packages_of() {
  cat <<'PACKAGES'
gcc: compiles the addon
libc6-dev: compiles the addon
linux-libc-dev: compiles the addon
PACKAGES
  needs_guests "$1" || return 0
  cat <<'PACKAGES'
util-linux: puts hosts into namespaces and ends programs with their parent
iproute2: joins the hosts' networks
qemu-system-x86: runs the guests
busybox-static: the guests' programs
e2fsprogs: filesystems, made in guests and checked on the host
fio: disk load in the guests
lz4: unpacks the guests' kernel, which then starts in half the time
cpio: packs the guests' programs
kmod: orders the guests' drivers
PACKAGES
  [[ $1 == demo ]] || cat <<'PACKAGES'
qemu-system-common: qemu-storage-daemon, the vhost-user backend to compare with, and virtiofsd
qemu-utils: qcow2 images, and an NBD server for them
nbdkit: an NBD server, also to compare with
gnutls-bin: keys for TLS between the peers to compare with
systemd: checks the units, and runs the service in a guest
man-db: checks the manual pages, as Debian does
mandoc: checks the manual pages, as others do
lintian: checks the Debian package
zsh: completes what netbus offers
fish: completes what netbus offers
PACKAGES
}

debian_packages() {
  command -v dpkg-query >/dev/null || fail 'this set-up knows Debian 12 only: dpkg-query is missing'
  local installed package why missing=()
  installed=$(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n')
  while IFS=: read -r package why; do
    grep --quiet --line-regexp "installed $package" <<<"$installed" && continue
    [[ ${#missing[@]} -gt 0 ]] || say 'missing Debian packages:'
    say "  $package:$why"
    missing+=("$package")
  done < <(packages_of "$1")
  [[ ${#missing[@]} -gt 0 ]] || return 0

  local options=(--yes --no-install-recommends)
  if [[ $EUID -ne 0 ]]; then
    fail "install them as root, then run this again:
  apt-get update && apt-get install ${options[*]} ${missing[*]}"
  fi
  say "installing ${#missing[@]} packages (apt-get install ${options[*]} …)"
  quietly apt-get update
  DEBIAN_FRONTEND=noninteractive quietly apt-get -o DPkg::Lock::Timeout=300 install "${options[@]}" "${missing[@]}"
}

# The guests' kernel: an installed cloud kernel, or the package's files unpacked to the cache. It is not installed for this,
# because that would run the hooks of the initramfs and of the boot loader of a machine that never boots it.
guest_kernel() {
  [[ $(dpkg --print-architecture) == amd64 ]] || fail "the test guests are for amd64, this machine is $(dpkg --print-architecture)"
  compgen -G '/boot/vmlinuz-*-cloud-amd64' >/dev/null && compgen -G '/lib/modules/*-cloud-amd64/modules.dep' >/dev/null && return
  [[ -d $cache/kernel ]] && return
  local unfinished=$cache/kernel.unfinished package
  rm -rf "$unfinished"
  mkdir "$unfinished"
  package=$(kernel_package)
  if [[ -z $package && $EUID -eq 0 ]]; then
    quietly apt-get update
    package=$(kernel_package)
  fi
  [[ -n $package ]] || fail "the package lists do not know linux-image-cloud-amd64: run \"apt-get update\" as root, then this again"
  say "fetching the guests' kernel, $package (unpacked to $cache/kernel, not installed)"
  (cd "$unfinished" && quietly apt-get -o APT::Sandbox::User=root download "$package")
  dpkg-deb --extract "$unfinished"/*.deb "$unfinished"
  rm "$unfinished"/*.deb
  # An installation would do this.
  depmod --basedir "$unfinished" "${package#linux-image-}"
  mv "$unfinished" "$cache/kernel"
}

# The package that the metapackage stands for, such as linux-image-6.1.0-38-cloud-amd64; nothing where it is unknown.
kernel_package() {
  apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed --quiet 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1
}

# Whether node_modules holds exactly what package-lock.json says; npm writes its own list there when it has finished.
npm_packages_are_current() {
  [[ -e node_modules/.package-lock.json ]] || return 1
  node --input-type=module --eval '
    import { readFileSync } from "node:fs";
    const packages = (path) => JSON.parse(readFileSync(path, "utf8")).packages;
    const installed = packages("node_modules/.package-lock.json");
    const current = Object.entries(packages("package-lock.json")).every(
      ([path, { version, optional }]) => path === "" || installed[path]?.version === version || (optional && !installed[path]),
    );
    process.exit(current ? 0 : 1);
  '
}

npm_packages() {
  npm_packages_are_current && return
  say "installing npm packages (npm ci: as package-lock.json says)"
  # No package here needs its install script. What was asked of an "npm pack" around this (--dry-run) is not meant for this.
  quietly npm ci --ignore-scripts --include=dev --no-audit --no-fund --dry-run=false --global=false
}

# The addon and the command-line program, where a source is newer than the last build.
build() {
  local stamp=native/build/.built
  local sources=(src native scripts/build.mjs scripts/bundled-licences.mjs scripts/make-man.ts scripts/man package.json package-lock.json)
  if [[ -e $stamp && -e dist/netbus.js && -z $(find "${sources[@]}" -path native/build -prune -o -newer $stamp -print -quit) ]]; then
    return
  fi
  say 'building the addon and the netbus program'
  local started
  started=$(date +%s.%N)
  quietly node scripts/build.mjs
  mkdir -p "$(dirname $stamp)"
  # The time of its start: what is changed during the build is newer.
  touch --date="@$started" $stamp
}

# --- words -----------------------------------------------------------------------------------------------------------

# Runs a command; its output is shown only where it fails.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1 </dev/null; then
    tail -n 100 "$log"
    rm "$log"
    fail "\"$*\" failed (its last words are above)"
  fi
  rm "$log"
}

say() {
  printf 'set-up: %s\n' "$*" >&2
}

fail() {
  say "$*"
  exit 1
}

main "$@"
