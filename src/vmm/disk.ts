/** A disk behind a vhost-user socket, as a VMM is told of it. */
export interface VhostUserDisk {
  /** Of the device and of what it is connected by; unique in its VM. */
  readonly id: string;
  /** The unix socket's path on the VM's host. */
  readonly socket: string;
  /** Request queues, at least 1. */
  readonly queues: number;
}

/** Begins with a letter and has letters, digits, "-", "." and "_" only, as QEMU wants it: our names have no others. */
export function deviceId(vm: string, name: string): string {
  return `nb-${vm}-${name}`;
}
