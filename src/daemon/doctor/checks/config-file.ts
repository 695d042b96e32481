/** The config file, as the daemon would read it. */
import { type Check, failure, hint, ok, skipped } from '../check.ts';

export const configFile: Check = {
  name: 'config',
  async run({ config, configFile: file }) {
    switch (config.name) {
      case 'loaded': {
        const { cluster, host } = config.config;
        return [ok(`${file}: host ${host} of cluster ${cluster}`)];
      }
      case 'wrong':
        return config.problems.map((problem) => failure(problem, `correct ${file}, then restart the daemon`));
      case 'missing':
        return [hint(`there is no ${file}`, '"netbus init" or "netbus join" makes one; or name yours with --config')];
      case 'unreadable':
        return [skipped(`${file} cannot be read: ${config.reason}`, 'run this as root, or correct its mode')];
    }
  },
};
