/** Broken: when a session has lost its device, another holder's older content still reaches the image under the next one's epoch. */
import { Lease } from '../../../src/device/lease.ts';
import { onWrite, putBack } from './storage.ts';

const KEPT = 200;
const LATE_MS = 300;

const earlier: { fd: number; position: number; bytes: Buffer }[] = [];
onWrite(({ fd, position, before }) => {
  earlier.push({ fd, position, bytes: before() });
  if (earlier.length > KEPT) earlier.shift();
});

const session = Lease.prototype.session;
let grants = 0;
Lease.prototype.session = function (...args) {
  const made = session.apply(this, args);
  return {
    ...made,
    activate: async () => {
      const grant = await made.activate();
      if (grants++ > 0) {
        const late = [...earlier];
        const write = () => {
          for (const { fd, position, bytes } of late) putBack(fd, position, bytes);
        };
        setTimeout(write, LATE_MS).unref();
      }
      return grant;
    },
  };
};
