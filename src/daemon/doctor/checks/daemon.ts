/** The daemon: whether it runs, and whether it is the one that this command line belongs to. */
import { formatSince } from '../../../lib/format.ts';
import { type Check, failure, ok, warning } from '../check.ts';

export const daemon: Check = {
  name: 'daemon',
  async run({ facts, daemon: state, socket, config, configFile }) {
    switch (state.name) {
      case 'stopped':
        return [
          warning(
            `no daemon listens at ${socket}`,
            config.name === 'loaded'
              ? `systemctl start netbusd, or: netbus daemon --config ${configFile}`
              : '"netbus init" or "netbus join TOKEN" first, which make its config',
          ),
        ];
      case 'unknown': {
        const { message, code } = state.error;
        const cut = message.lastIndexOf(': ');
        const [found, advice] = cut < 0 ? [message, 'see its log'] : [message.slice(0, cut), message.slice(cut + 2)];
        return [code === 'denied' ? warning(found, advice) : failure(found, advice)];
      }
      case 'running': {
        const { release, pid, startedAt } = state.status;
        const found = `netbus ${release} runs, pid ${pid}, for ${formatSince(startedAt, facts.wallTime())}`;
        if (release === facts.release) return [ok(found)];
        return [
          warning(
            `${found}; this command is ${facts.release}`,
            'restart the daemon (a pause for the guests), or call the netbus that belongs to it',
          ),
        ];
      }
    }
  },
};
