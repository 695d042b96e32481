/** What a user pastes into a VMM to give a VM a disk: for people, and in parts for programs. */
import { shellQuote } from '../../lib/format.ts';
import type { VhostUserDisk } from '../disk.ts';
import { CLOUD_HYPERVISOR_MEMORY_ARGUMENTS, cloudHypervisorArguments } from './cloud-hypervisor.ts';
import { firecrackerRequest } from './firecracker.ts';
import { LIBVIRT_MEMORY_BACKING, libvirtDisk } from './libvirt.ts';
import { QEMU_MEMORY_ARGUMENTS, qemuArguments } from './qemu.ts';
import { chardevAdd, deviceAdd } from './qmp.ts';

export const VMM_FORMATS = ['qemu', 'libvirt', 'qmp', 'cloud-hypervisor', 'firecracker'] as const;
export type VmmFormat = (typeof VMM_FORMATS)[number];

export interface VmmText {
  readonly text: string;
  /** Members by format; docs/vmm.md has them. */
  readonly parts: Record<string, unknown>;
}

/** `vm` is what the user calls the VM, for examples. `bus` is a place for QMP's device_add. */
export function vmmText(format: VmmFormat, disk: VhostUserDisk, { vm, bus }: { vm: string; bus?: string }): VmmText {
  switch (format) {
    case 'qemu':
      return qemu(disk);
    case 'libvirt':
      return libvirt(disk, vm);
    case 'qmp':
      return qmp(disk, bus);
    case 'cloud-hypervisor':
      return cloudHypervisor(disk);
    case 'firecracker':
      return firecracker(disk);
  }
}

function qemu(disk: VhostUserDisk): VmmText {
  const argv = qemuArguments(disk);
  return {
    parts: { arguments: argv, memoryArguments: QEMU_MEMORY_ARGUMENTS },
    text: `QEMU arguments:
${argumentLines(argv)}
The guest's memory must be shared, so QEMU needs this, too, unless it has it already (the size is that of -m):
${argumentLines(QEMU_MEMORY_ARGUMENTS)}
`,
  };
}

function libvirt(disk: VhostUserDisk, vm: string): VmmText {
  // XML forbids "--" in a comment, so options cannot stand there, nor a name that has it.
  const domain = vm.includes('--') ? 'DOMAIN' : vm;
  const element = libvirtDisk(disk);
  return {
    parts: { memoryBacking: LIBVIRT_MEMORY_BACKING, disk: element },
    text: `<!-- libvirt domain XML. Into <domain>, unless it is there already; the domain has to be started anew for it: -->
${LIBVIRT_MEMORY_BACKING}<!-- Into <devices>, or into a file for "virsh attach-device ${domain} FILE". Take another target than vdb where the domain has that one: -->
${element}`,
  };
}

function qmp(disk: VhostUserDisk, bus: string | undefined): VmmText {
  const commands = [chardevAdd(disk, false), deviceAdd(disk, bus)];
  const place = 'Machine q35: add "bus":"PORT" to device_add, the id of a free pcie-root-port (or give --bus PORT).\n';
  return {
    parts: { commands },
    text: `QMP commands, for a QEMU whose memory is shared ("--format qemu" shows how), after qmp_capabilities.
${bus === undefined ? place : ''}QEMU 9.2 and later want "reconnect-ms":1000 in place of "reconnect":1.
${commands.map((command) => `${JSON.stringify(command)}\n`).join('')}`,
  };
}

function cloudHypervisor(disk: VhostUserDisk): VmmText {
  const argv = cloudHypervisorArguments(disk);
  return {
    parts: { arguments: argv, memoryArguments: CLOUD_HYPERVISOR_MEMORY_ARGUMENTS, runByUs: false },
    text: `# Cloud Hypervisor arguments, by its documentation; not run by us.
${argumentLines([...CLOUD_HYPERVISOR_MEMORY_ARGUMENTS, ...argv])}
`,
  };
}

function firecracker(disk: VhostUserDisk): VmmText {
  const request = firecrackerRequest(disk);
  const { method, path, body } = request;
  return {
    parts: { request, runByUs: false },
    text: `# Firecracker request, by its documentation; not run by us. Before the microVM is started; API_SOCKET is that of --api-sock.
curl --unix-socket API_SOCKET -X ${method} http://localhost${path} \\
  -H 'Content-Type: application/json' \\
  -d ${shellQuote(JSON.stringify(body))}
`,
  };
}

/** An option and its value on a line, ready to be pasted into a shell. */
function argumentLines(argv: readonly string[]): string {
  const lines: string[] = [];
  for (const argument of argv) {
    if (argument.startsWith('-') || lines.length === 0) lines.push(`  ${shellQuote(argument)}`);
    else lines[lines.length - 1] += ` ${shellQuote(argument)}`;
  }
  return lines.join(' \\\n');
}
