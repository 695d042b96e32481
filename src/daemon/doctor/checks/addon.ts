/** The addon: without it there is no daemon. */
import { type Check, failure, ok } from '../check.ts';
import { errorText } from '../facts.ts';

export const addon: Check = {
  name: 'addon',
  async run({ facts }) {
    try {
      await facts.loadAddon();
      return [ok(`netbus.node is loaded (${facts.architecture})`)];
    } catch (thrown) {
      const found = `netbus.node cannot be loaded: ${errorText(thrown)}`;
      return [failure(found, `install Netbus anew, for this kind of machine (${facts.architecture})`)];
    }
  },
};
