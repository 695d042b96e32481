/** What happens on the bus, as events. */
import type { BusObserver } from '../bus/observer.ts';
import type { EventRecorder } from './events.ts';
import type { Exports } from './exports.ts';

export function busEvents(events: EventRecorder, exports: Exports): BusObserver {
  return {
    linkUp: (peer) => events.record({ type: 'link.up', subject: peer, message: `the link with ${peer} is up` }),
    linkDown: (peer, { code, message }) =>
      events.record({
        type: 'link.down',
        subject: peer,
        message: `the link with ${peer} is down: ${message}`,
        details: { code, reason: message },
      }),
    sessionLost: (_peer, attachment, cause) => exports.sessionLost(attachment, cause),
  };
}
