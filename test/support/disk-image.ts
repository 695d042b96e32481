import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A folder of its own with an empty image of `bytes`; `remove` takes both away. `under` chooses the filesystem. */
export async function makeImage(
  bytes: number,
  under: string = tmpdir(),
): Promise<{ path: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(under, 'netbus-disk-'));
  const path = join(folder, 'image.raw');
  await writeFile(path, '');
  await truncate(path, bytes);
  return { path, remove: () => rm(folder, { recursive: true, force: true }) };
}
