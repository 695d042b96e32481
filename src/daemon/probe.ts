/** Asks the other members how they are: whether they are reached, how long that takes, which release and what time they have. For `netbus doctor`. */
import { z } from 'zod';
import type { MemberProbe } from '../api/types.ts';
import type { JsonObject } from '../bus/control-link.ts';
import { NetbusError } from '../device/errors.ts';
import { type Address, formatAddress } from '../lib/address.ts';
import type { Clock } from '../lib/clock.ts';

/** A host that has not answered by then is told as one that does not. */
export const PROBE_MS_MAX = 4_000;

const DESCRIBE = 'host.describe';

/** docs/protocol.md, 7. */
const describedSchema = z.object({
  release: z.string().max(64),
  /** Milliseconds since 1970. */
  wallTime: z.number(),
});

/** Calls of other hosts over control links, which are opened where there are none; `Links` of src/bus. */
export interface Caller {
  call(host: string, method: string, params: object, options: { timeoutMs: number }): Promise<JsonObject>;
}

/** What this host answers to `host.describe`. */
export function describeHost(release: string, clock: Clock): () => Promise<z.infer<typeof describedSchema>> {
  return async () => ({ release, wallTime: clock.wallTime() });
}

/** All hosts of `targets` at once, in their order. */
export function probeMembers(caller: Caller, targets: ReadonlyMap<string, Address>, clock: Clock): Promise<MemberProbe[]> {
  return Promise.all(
    [...targets].map(async ([host, address]): Promise<MemberProbe> => {
      const where = { host, address: formatAddress(address) };
      try {
        return { ...where, reachable: true, ...(await describe(caller, host, clock)) };
      } catch (thrown) {
        const { code, message } = NetbusError.from(thrown);
        return { ...where, reachable: false, error: { code, message } };
      }
    }),
  );
}

async function describe(
  caller: Caller,
  host: string,
  clock: Clock,
): Promise<Pick<MemberProbe, 'release' | 'roundTripMs' | 'clockAheadMs'>> {
  const timeoutMs = PROBE_MS_MAX;
  try {
    // The first call brings the link up; the second one is measured.
    await caller.call(host, DESCRIBE, {}, { timeoutMs });
    const [sentAt, startedAt] = [clock.wallTime(), clock.now()];
    const described = describedSchema.safeParse(await caller.call(host, DESCRIBE, {}, { timeoutMs }));
    const roundTripMs = clock.now() - startedAt;
    if (!described.success) throw new NetbusError('protocol', `host ${host} answered ${DESCRIBE} with something else`);
    const { release, wallTime } = described.data;
    // It read its clock somewhere within the round trip; the middle is off by half of it at most.
    return { release, roundTripMs, clockAheadMs: wallTime - (sentAt + roundTripMs / 2) };
  } catch (thrown) {
    // A release before this one: it is there, and says no more.
    if (thrown instanceof NetbusError && thrown.code === 'not_found') return {};
    throw thrown;
  }
}
