/** The kinds of fault, and which of them this release promises to survive. */

/** In the order of the report. */
export const faultKinds = [
  'cut',
  'kill-vm-side',
  'kill-device-side',
  'stop-continue',
  'device-host-power-loss',
  'disk-full',
  'io-error',
  'delay',
  'throttle',
  'half-open',
  'stall',
] as const;
export type FaultKind = (typeof faultKinds)[number];

/** Kinds that need something of their own on the stage: a machine, a filesystem, a block device. */
export const needsMachine = (kinds: readonly FaultKind[]): boolean => kinds.includes('device-host-power-loss');
