import { execFileSync } from 'node:child_process';
import { makeImage } from './disk-image.ts';

/** A block device over an image of its own; undefined where this host lets us have none (no root, no loop devices). */
export async function makeLoopDevice(
  bytes: number,
  options: readonly string[] = [],
): Promise<{ path: string; imagePath: string; remove: () => Promise<void> } | undefined> {
  const image = await makeImage(bytes);
  try {
    const path = execFileSync('losetup', ['--find', '--show', ...options, image.path], { stdio: ['ignore', 'pipe', 'ignore'] });
    const device = path.toString().trim();
    const remove = async () => {
      execFileSync('losetup', ['--detach', device]);
      await image.remove();
    };
    return { path: device, imagePath: image.path, remove };
  } catch {
    await image.remove();
    return undefined;
  }
}
