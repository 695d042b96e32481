import { InstantDevice } from './instant-device.ts';
import type { Profile } from './profile.ts';

/** The device that is left where nothing else can be done: every request is answered with one failure status. */
export class FailedDevice extends InstantDevice {
  constructor(profile: Profile, depth: number, status: number) {
    super(profile, depth, () => status);
  }
}
