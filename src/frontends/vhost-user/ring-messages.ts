/** The messages that describe a ring: SET_VRING_NUM to SET_VRING_ERR. */
import { NetbusError } from '../../device/errors.ts';
import type { FrontendMessage, RingAddresses } from '../../protocols/vhost-user/index.ts';
import { isQueueSize, QUEUE_SIZE_MAX } from '../../protocols/virtqueue/index.ts';
import type { Descriptors } from './descriptors.ts';
import type { Ring } from './ring.ts';

export type RingMessage = Extract<
  FrontendMessage,
  {
    name: 'setVringNum' | 'setVringBase' | 'setVringAddr' | 'setVringEnable' | 'setVringKick' | 'setVringCall' | 'setVringErr';
  }
>;

/** The index of the ring that a message is about; whether there is such a ring is not known yet. */
export function ringOf(message: RingMessage): number {
  return message.name === 'setVringAddr' ? message.addresses.index : message.index;
}

/** Notes what a message says about its ring. Throws `protocol` for what a ring cannot be, or not while it runs. */
export function setRing(ring: Ring, message: RingMessage, descriptors: Descriptors): void {
  switch (message.name) {
    case 'setVringNum':
      stopped(ring, 'SET_VRING_NUM');
      if (!isQueueSize(message.size))
        throw refused(`ring ${ring.index} cannot have ${message.size} entries: a power of two up to ${QUEUE_SIZE_MAX}`);
      ring.size = message.size;
      break;
    case 'setVringBase':
      stopped(ring, 'SET_VRING_BASE');
      ring.base = message.base;
      break;
    case 'setVringAddr':
      // A migration sends it again to a running ring, to change the flag of the dirty log.
      if (ring.queue !== undefined && !sameAddresses(ring.addresses, message.addresses))
        stopped(ring, 'SET_VRING_ADDR with other addresses');
      ring.addresses = message.addresses;
      break;
    case 'setVringEnable':
      ring.enabled = message.enabled;
      break;
    case 'setVringKick':
      if (!message.hasFd) throw refused(`ring ${ring.index} cannot be polled: SET_VRING_KICK needs a descriptor`);
      ring.setKick(descriptors.take());
      break;
    case 'setVringCall':
      ring.setCall(message.hasFd ? descriptors.take() : -1);
      break;
    case 'setVringErr':
      ring.setErr(message.hasFd ? descriptors.take() : -1);
      break;
  }
}

export function refused(message: string): NetbusError {
  return new NetbusError('protocol', message);
}

function stopped(ring: Ring, title: string): void {
  if (ring.queue !== undefined) throw refused(`${title} for ring ${ring.index}, which is running`);
}

function sameAddresses(a: RingAddresses | undefined, b: RingAddresses): boolean {
  return a !== undefined && a.descriptors === b.descriptors && a.used === b.used && a.available === b.available;
}
