/** Makes the guest image that tests and demo boot, unless it is there. Called by with-setup.sh, which holds the lock. */

import { buildGuestImage } from '../test/guest/image.ts';

buildGuestImage((line) => console.error(`set-up: ${line}`));
