/** One try of a hot-swap, at the hosts of both devices: see src/device/copy-mark.ts. */
import { NetbusError } from '../../device/errors.ts';
import type { CopyHost } from './copy-host.ts';

/** A device's host, and the attachment there. */
export interface TryEnd {
  readonly host: CopyHost;
  readonly attachment: string;
}

export interface SwapTry {
  readonly generation: number;
  readonly old: TryEnd;
  readonly next: TryEnd;
}

/** Asks again until there is an answer that does not change by itself. Rejects with that, or when the caller gives up. */
export interface Persistent {
  persist<T>(ask: () => Promise<T>): Promise<T>;
}

/**
 * What became of a try that may have been decided: the new device's host says so, and where it was not, it never will be from then on; only then the old one's host is
 * told, and the guest may go on there. The order is what lets no stale copy come back.
 */
export async function settle({ generation, old, next }: SwapTry, asker: Persistent): Promise<'decided' | 'given up'> {
  const { decided } = await asker.persist(() => next.host.abort(next.attachment, generation));
  if (decided) return 'decided';
  await asker.persist(() => old.host.abort(old.attachment, generation));
  return 'given up';
}

/** Whether asking again may help: the host is away, or its device is for now. */
export function mayPass(thrown: unknown): boolean {
  const { code } = NetbusError.from(thrown);
  return (
    code === 'unreachable' ||
    code === 'timeout' ||
    code === 'ended' ||
    code === 'device' ||
    code === 'in_use' ||
    code === 'limit'
  );
}
