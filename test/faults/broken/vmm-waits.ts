/** Broken: a VMM that stops its VM waits until every request is answered, however long that takes. */
import { systemClock } from '../../../src/lib/clock.ts';

/** The bound of GET_VRING_BASE; shorter ones, the heartbeat's among them, are as they are. */
const BOUND_MS = 10_000;
const SHORTER_MS_MAX = 5_000;

const { after } = systemClock;
systemClock.after = (delayMs, callback) => {
  const isBound = delayMs > SHORTER_MS_MAX && delayMs <= BOUND_MS;
  return isBound ? () => {} : after(delayMs, callback);
};
