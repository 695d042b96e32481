/** All checks, in the order that they are told: the machine first, then Netbus on it, then the other hosts. */
import type { Check } from './check.ts';
import { addon } from './checks/addon.ts';
import { certificates } from './checks/certificates.ts';
import { configFile } from './checks/config-file.ts';
import { daemon } from './checks/daemon.ts';
import { deviceGroup } from './checks/device-group.ts';
import { ioUring } from './checks/io-uring.ts';
import { kernel } from './checks/kernel.ts';
import { keys, rootKey } from './checks/keys.ts';
import { limits } from './checks/limits.ts';
import { memberList } from './checks/member-list.ts';
import { clock, members } from './checks/members.ts';
import { node } from './checks/node.ts';
import { firewall, port } from './checks/port.ts';
import { qemu } from './checks/qemu.ts';
import { runFolder, sharedMemory } from './checks/run-folder.ts';
import { stateFolder } from './checks/state-folder.ts';
import { user } from './checks/user.ts';

export const checks: readonly Check[] = [
  ...[node, kernel, addon, ioUring, limits, sharedMemory, qemu],
  ...[user, configFile, deviceGroup, daemon, stateFolder, runFolder],
  ...[keys, certificates, rootKey],
  ...[port, firewall, memberList, members, clock],
];
