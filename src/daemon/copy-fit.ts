/** Whether a device can stand in for the one that a guest's driver knows: pure. */
import { NetbusError } from '../device/errors.ts';
import type { Profile } from '../device/profile.ts';
import { formatBytes } from '../lib/format.ts';

/** `present` as it is, `promised` as the driver was told. Throws `usage` with what does not fit. */
export function checkSimilar(name: string, present: Profile, promised: Profile): void {
  const problem = whyUnlike(present, promised);
  if (problem !== undefined) throw new NetbusError('usage', `export ${name} cannot replace the device: ${problem}`);
}

function whyUnlike(present: Profile, promised: Profile): string | undefined {
  if (present.class !== promised.class) return `it is a ${present.class}, and the guest has a ${promised.class}`;
  if (present.readOnly) return 'it is read-only';
  if (promised.readOnly) return 'the guest has a read-only device';
  if (present.capacityBytes < promised.capacityBytes) {
    const sizes = [present.capacityBytes, promised.capacityBytes];
    const [has, wants] =
      formatBytes(sizes[0]) === formatBytes(sizes[1]) ? sizes.map((bytes) => `${bytes} bytes`) : sizes.map(formatBytes);
    return `it has ${has}, and the guest's disk ${wants}`;
  }
  if (present.logicalBlockBytes > promised.logicalBlockBytes) {
    return `its blocks have ${present.logicalBlockBytes} bytes, and the guest reads and writes ${promised.logicalBlockBytes}`;
  }
  // A backend of a device that may be written does by itself what its device lacks; queues are the VM's side's.
  const missing = promised.features.filter((feature) => feature !== 'multi-queue' && !present.features.includes(feature));
  return missing.length === 0 ? undefined : `it lacks ${missing.join(', ')}, which the guest was promised`;
}
