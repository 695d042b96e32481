/** Files that are there completely or not at all, whatever ends the process: beside their place, on stable storage, then renamed. */
import { chmod, open, rename, rm, rmdir } from 'node:fs/promises';
import { dirname } from 'node:path';

/** On stable storage once it resolves; the umask takes nothing from `mode`. Rejects with the error of the system; the old file is then still there. */
export async function writeDurably(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  const temporary = `${path}.${process.pid}.new`;
  try {
    await writeNew(temporary, content, mode);
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (thrown) {
    await rm(temporary, { force: true });
    throw thrown;
  }
}

/** A new file on stable storage (its name is not, until its folder is synced). Never, not even for a moment, may more read it than `mode` says. */
export async function writeNew(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  const file = await open(path, 'wx', mode & 0o700);
  try {
    await file.writeFile(content);
    await file.sync();
  } catch (thrown) {
    // For an open file the system's error has no name.
    throw Object.assign(thrown as Error, { path });
  } finally {
    await file.close();
  }
  await chmod(path, mode);
}

export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** From `folder` up to `top`, as far as they are empty. */
export async function removeEmpty(folder: string, top: string): Promise<void> {
  for (let each = folder; each.startsWith(top); each = dirname(each)) {
    const removed = await rmdir(each).then(
      () => true,
      () => false,
    );
    if (!removed) return;
  }
}
