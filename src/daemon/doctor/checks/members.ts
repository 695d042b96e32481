/** The other members: whether they are reached, and what time they have. */
import type { MemberProbe } from '../../../api/types.ts';
import { type Check, type Finding, failure, hint, ok, skipped, warning } from '../check.ts';
import type { Situation } from '../situation.ts';

export const members: Check = {
  name: 'members',
  async run(situation) {
    const asked = await situation.probes();
    if ('problem' in asked) return [skipped(`not asked: ${asked.problem}`)];
    if (asked.probes.length === 0) return [ok('there is no other member')];
    return asked.probes.map((probe) => (probe.reachable ? there(probe, situation) : away(probe)));
  },
};

function there({ host, address, release, roundTripMs }: MemberProbe, { facts }: Situation): Finding {
  if (release === undefined || roundTripMs === undefined) {
    return hint(
      `${host} (${address}) answers, and its release does not say which it is`,
      'upgrade it: it is older than this one',
    );
  }
  const found = `${host} (${address}) answers in ${roundTripMs.toFixed(1)} ms, release ${release}`;
  return release === facts.release
    ? ok(found)
    : hint(`${found}; this one is ${facts.release}`, 'upgrade the older one when it suits');
}

/** What heals by itself when the other host is back is a warning; what does not is an error. */
function away({ host, address, error }: MemberProbe): Finding {
  const found = error?.message ?? `${host} (${address}) does not answer`;
  switch (error?.code) {
    case 'timeout':
      return warning(found, `is ${host} up? If it is, a firewall on the way drops TCP to ${address}: let it through`);
    case 'unreachable':
      return warning(
        found,
        `is ${host} up, and netbusd there? Run "netbus doctor" on it; see that TCP to ${address} is let through`,
      );
    case 'denied':
      return failure(
        found,
        `where this host was evicted, let it in again with a new token (docs/operations.md, "Taking a host out"); else run "netbus doctor" on ${host}, too, and compare certificates and members`,
      );
    case 'protocol':
      return failure(found, `is it netbusd that listens at ${address}, and is its release a neighbour of this one?`);
    default:
      return failure(found, `see the log of netbusd on ${host}`);
  }
}

/** Certificates are valid from 5 minutes before they are made: a clock that is off by more refuses them. */
const CLOCK_MS_MAX = 5 * 60_000;
/** Beyond this the times in logs and records of two hosts cannot be compared. */
const CLOCK_MS_WANTED = 2_000;

export const clock: Check = {
  name: 'clock',
  async run({ probes }) {
    const asked = await probes();
    const clocks = 'probes' in asked ? asked.probes.filter((probe) => probe.clockAheadMs !== undefined) : [];
    if (clocks.length === 0) return [skipped('there is no other host to compare the clock with')];
    return clocks.map(compare);
  },
};

function compare({ host, clockAheadMs = 0, roundTripMs = 0 }: MemberProbe): Finding {
  const offMs = Math.max(0, Math.abs(clockAheadMs) - roundTripMs / 2);
  const words = `the clock of ${host} is ${duration(offMs)} ${clockAheadMs > 0 ? 'ahead of' : 'behind'} this one`;
  const advice = 'see which one is right (timedatectl), and let both be set by NTP';
  if (offMs > CLOCK_MS_MAX) return failure(`${words}: new certificates are refused`, advice);
  if (offMs > CLOCK_MS_WANTED) return warning(words, advice);
  return ok(`the clock of ${host} is within ${duration(Math.max(offMs, roundTripMs, 1))} of this one`);
}

function duration(ms: number): string {
  if (ms < 1_000) return `${Math.ceil(ms)} ms`;
  if (ms < 120_000) return `${(ms / 1_000).toFixed(1)} s`;
  return ms < 2 * 3_600_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`;
}
