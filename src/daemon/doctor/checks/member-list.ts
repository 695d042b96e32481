/** The signed member list, and the file beside it that says how new a list has to be that takes its place: docs/security.md. */
import { join } from 'node:path';
import { parseSerial, SERIAL_FILE } from '../../../directory/signed-directory.ts';
import { directoryFolder } from '../../directory.ts';
import { type Check, type Finding, failure, ok, skipped, warning, withoutConfig } from '../check.ts';
import { errorCode, errorText } from '../facts.ts';
import { storedList } from '../situation.ts';

const COPY = 'copy members.list from another host that is up to date, then restart the daemon';
const RESTART = 'restart the daemon: it writes it again';

export const memberList: Check = {
  name: 'member list',
  async run({ facts, config, stateDir, identity, daemon }) {
    if (config.name !== 'loaded') return [withoutConfig];
    if (config.config.hosts !== undefined) return [ok('the members stand in the config')];
    const known = await identity();
    if ('problem' in known) return [skipped('not looked at: who signs it is not known without the certificates')];
    const folder = directoryFolder(stateDir);
    const read = await storedList(facts, folder, known.identity);
    if ('thrown' in read) {
      if (errorCode(read.thrown) === 'EACCES') return [skipped(`${folder} cannot be read: EACCES`, 'run this as root')];
      return [failure(`${folder} has no member list that can be used: ${errorText(read.thrown)}`, COPY)];
    }
    const text = await facts.readText(join(folder, SERIAL_FILE)).catch(() => undefined);
    return [compare(text, read.list.serial, folder, daemon.name === 'running')];
  },
};

function compare(text: string | undefined, serial: number, folder: string, running: boolean): Finding {
  const path = join(folder, SERIAL_FILE);
  const consequence = 'were the list lost, the issuing host alone could bring it back';
  if (text === undefined) {
    if (!running) return ok(`the member list has serial ${serial}; the daemon makes ${path} when it starts`);
    return warning(`${path} is not there: ${consequence}`, RESTART);
  }
  const noted = parseSerial(text);
  if (noted === undefined) return warning(`${path} has no serial in it: ${consequence}`, RESTART);
  if (noted < serial)
    return warning(
      `${path} says ${noted}, and the list has serial ${serial}: were the list lost, an older one would be taken`,
      RESTART,
    );
  if (noted > serial)
    return warning(
      `the member list has serial ${serial}, and this host had ${noted} once: who was evicted since is let in`,
      COPY,
    );
  return ok(`the member list has serial ${serial}, and so says ${path}`);
}
