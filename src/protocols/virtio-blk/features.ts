/** Feature bits and the profile's feature names. The bits that are offered follow from the frozen profile and nothing else. */
import type { DiskFeature, DiskProfile } from '../../device/profile.ts';
import { BlockFeature } from './numbers.ts';

const bitOfFeature: Readonly<Record<DiskFeature, number>> = {
  flush: BlockFeature.flush,
  discard: BlockFeature.discard,
  'write-zeroes': BlockFeature.writeZeroes,
  'write-cache-control': BlockFeature.configWce,
  'multi-queue': BlockFeature.multiQueue,
};

/** What every disk tells of itself. */
const ALWAYS = [BlockFeature.sizeMax, BlockFeature.segMax, BlockFeature.blockSize, BlockFeature.topology];
/** What a disk that cannot be written has no use for. */
const WRITING: readonly DiskFeature[] = ['discard', 'write-zeroes'];

/** virtio-blk's bits of a disk, as a 64-bit set. */
export function blockFeatureBits(profile: DiskProfile): bigint {
  const names = profile.features.filter((name) => !(profile.readOnly && WRITING.includes(name)));
  const bits = [...ALWAYS, ...names.map((name) => bitOfFeature[name])];
  if (profile.readOnly) bits.push(BlockFeature.readOnly);
  return bits.reduce((set, bit) => set | (1n << BigInt(bit)), 0n);
}

/** The names of what a set of bits contains: for a disk that somebody else serves, and for `status`. */
export function diskFeatureNames(bits: bigint): DiskFeature[] {
  return (Object.keys(bitOfFeature) as DiskFeature[]).filter((name) => ((bits >> BigInt(bitOfFeature[name])) & 1n) === 1n);
}
