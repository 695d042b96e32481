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

/**
 * What the campaign of `npm test` is made of: kinds that are a pause for the guest, at any moment. `kill-vm-side` has a test of its
 * own with a guest (test/guest/disk-kills.test.ts); the machine of `device-host-power-loss` boots for long: `npm run bench -- faults` has both.
 */
export const testedKinds: readonly FaultKind[] = [
  'cut',
  'delay',
  'throttle',
  'half-open',
  'stall',
  'kill-device-side',
  'stop-continue',
  'disk-full',
  'io-error',
];

/** Kinds that need something of their own on the stage: a machine, a filesystem, a block device. */
export const needsMachine = (kinds: readonly FaultKind[]): boolean => kinds.includes('device-host-power-loss');
