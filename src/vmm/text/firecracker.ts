/** The request that gives a Firecracker microVM a disk, before it is started. Its memory is shared by itself then. */
import type { VhostUserDisk } from '../disk.ts';

export interface FirecrackerRequest {
  readonly method: 'PUT';
  readonly path: string;
  readonly body: { readonly drive_id: string; readonly socket: string; readonly is_root_device: boolean };
}

export function firecrackerRequest({ id, socket }: VhostUserDisk): FirecrackerRequest {
  const drive = driveId(id);
  return { method: 'PUT', path: `/drives/${drive}`, body: { drive_id: drive, socket, is_root_device: false } };
}

/** Firecracker takes letters, digits and "_" only. */
function driveId(id: string): string {
  return id.replace(/[^A-Za-z0-9_]/g, '_');
}
