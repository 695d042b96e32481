/** Room on a filesystem, for the folders that need some. */
import { formatBytes } from '../../lib/format.ts';
import { type Finding, failure, ok, warning } from './check.ts';
import { errorText, type HostFacts } from './facts.ts';

export interface SpaceNeed {
  readonly path: string;
  /** Free bytes below which it is an error, and below which it is a warning. */
  readonly minBytes: number;
  readonly wantedBytes: number;
  /** What does not work without. */
  readonly consequence: string;
}

/** A record is a file, and so is its successor while it is written. */
const INODES_MIN = 16;

export async function checkSpace(facts: HostFacts, need: SpaceNeed): Promise<Finding> {
  const { path, minBytes, wantedBytes, consequence } = need;
  const { freeBytes, totalBytes, freeInodes, totalInodes } = await facts.space(path);
  const found = `${path} has ${formatBytes(freeBytes)} free of ${formatBytes(totalBytes)}`;
  const advice = `make room on the filesystem of ${path} (df ${path})`;
  if (freeBytes < minBytes) return failure(`${found}: ${consequence}`, advice);
  if (totalInodes > 0 && freeInodes < INODES_MIN) {
    return failure(
      `${path} has ${freeInodes} of ${totalInodes} inodes free: ${consequence}`,
      `remove files there (df -i ${path})`,
    );
  }
  return freeBytes < wantedBytes ? warning(found, advice) : ok(found);
}

/** Whether a block can be written there, by doing it; undefined where it can. */
export async function checkWrite(facts: HostFacts, path: string, consequence: string): Promise<Finding | undefined> {
  try {
    await facts.tryWrite(path);
    return undefined;
  } catch (thrown) {
    return failure(`nothing can be written to ${path}: ${consequence} (${errorText(thrown)})`, adviceFor(thrown, path));
  }
}

function adviceFor(thrown: unknown, path: string): string {
  switch ((thrown as NodeJS.ErrnoException).code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return `make room on the filesystem of ${path} (df ${path}; df -i ${path})`;
    case 'EROFS':
      return `mount it to be written (findmnt -T ${path}); see dmesg for why it is read-only`;
    case 'EACCES':
    case 'EPERM':
      return `correct its owner or mode (ls -ld ${path})`;
    default:
      return 'see dmesg for errors of the disk';
  }
}
