/** Broken: while the device's host is away, requests are answered with errors instead of waiting. */
import { DiskStatus } from '../../../src/device/disk.ts';
import { FailedDevice } from '../../../src/device/failed-device.ts';
import { Slot } from '../../../src/device/slot.ts';

const deviceLost = Slot.prototype.deviceLost;
Slot.prototype.deviceLost = function (cause) {
  deviceLost.call(this, cause);
  // Once the lost device has left, as the next session's would come.
  setImmediate(() => this.install(new FailedDevice(this.profile, this.depth, DiskStatus.ioError)));
};
