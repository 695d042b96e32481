/** What a device has to be so that a hot-swap may fill it, and the attachment that it gets. */
import { type CopyEnd, isTarget } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import type { Profile } from '../device/profile.ts';
import type { Place } from '../device/succession.ts';
import { formatBytes } from '../lib/format.ts';
import type { FillRequest } from '../migration/swap/copy-host.ts';
import type { Export } from './export.ts';
import { userName } from './export-entry.ts';
import type { AttachmentRecord } from './records.ts';
import { staleMarks, staleText, usersOf } from './stale-marks.ts';

/**
 * The device is like the one that the guest knows, free, and blank, unless it may be written over. Says whether it is blank, and what marks it as stale. Throws `in_use`
 * or `usage` with what is wrong, `device` where the export is not ready.
 */
export async function checkFillable(
  target: Export,
  caller: string,
  request: FillRequest,
): Promise<{ blank: boolean; stale: AttachmentRecord[] }> {
  const { name } = target;
  const { from, generation, overwrite, profile } = request;
  const [user] = usersOf(target);
  if (user !== undefined) {
    const advice = 'detach it there first, or choose another device';
    throw new NetbusError('in_use', `export ${name} is attached to ${userName(user)}: ${advice}`);
  }
  checkSimilar(name, await target.refresh(), profile);
  const blank = await isBlank(target);
  const stale = staleMarks(target);
  // What an earlier try of the same swap has left there is nobody's loss.
  const earlier = stale.filter(
    ({ host, copy }) => host === caller && copy && isTarget(copy) && copy.from.attachment === from.attachment,
  );
  if (earlier.some((record) => record.generation > generation)) {
    throw new NetbusError('ended', `generation ${generation} of the swap is over here: ${staleText(earlier[0])}`);
  }
  const isOurs = stale.length > 0 && earlier.length === stale.length;
  if (!overwrite && !isOurs) {
    if (stale.length > 0) throw notBlank(name, staleText(stale[0]));
    if (!blank) throw notBlank(name, 'there is data on it');
  }
  return { blank, stale };
}

/** As far as that can be known: see BackendSource. */
export async function isBlank(target: Export): Promise<boolean> {
  return target.state.name === 'ready' && ((await target.state.source.isBlank?.()) ?? false);
}

/** `id`: of the attachment; `at`: ISO time. */
export function fillingRecord(place: Place, request: FillRequest, id: string, at: string): AttachmentRecord {
  const { from, generation, vm, name, profile, writeCache, holdMs, fenceAfterMs } = request;
  return {
    version: 1,
    id,
    export: request.export,
    ...place,
    vm,
    name,
    profile,
    writeCache,
    ...(holdMs !== undefined && { holdMs }),
    ...(fenceAfterMs !== undefined && { fenceAfterMs }),
    lease: { epoch: 0, holder: null },
    generation,
    copy: { state: 'filling', generation, from, since: at },
    createdAt: at,
  };
}

/** Where a swap under this generation brings the device from, or brought it. */
export function fromOf({ copy, swapped }: AttachmentRecord, generation: number): CopyEnd | undefined {
  if (swapped?.generation === generation) return swapped.from;
  return copy !== undefined && isTarget(copy) && copy.generation === generation ? copy.from : undefined;
}

export function isTry(record: AttachmentRecord, { from, generation }: Pick<FillRequest, 'from' | 'generation'>): boolean {
  return fromOf(record, generation)?.attachment === from.attachment;
}

function notBlank(name: string, what: string): NetbusError {
  return new NetbusError('in_use', `export ${name}: ${what}; to lose it: --overwrite`);
}

/** `present` as it is, `promised` as the driver was told. Throws `usage` with what does not fit. */
function checkSimilar(name: string, present: Profile, promised: Profile): void {
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
