/** Private keys: nobody else may read them, and who may write to their folder may exchange them. */

import { adviceOnMissing } from '../../../directory/identity.ts';
import { type Check, type Finding, failure, hint, ok, skipped, withoutConfig } from '../check.ts';
import { errorCode, errorText } from '../facts.ts';
import { pkiFolder, type Situation } from '../situation.ts';
import { octal } from './state-folder.ts';

/** As the daemon refuses them: src/directory/pem-files.ts. */
const KEY_FORBIDDEN = 0o137;
const FOLDER_FORBIDDEN = 0o022;

export const keys: Check = {
  name: 'keys',
  async run(situation) {
    const { pki, config } = situation;
    if (config.name !== 'loaded') return [withoutConfig];
    const folder = pkiFolder(situation);
    const host = await checkKey(situation, pki.key, "this host's private key");
    const issuing = await checkKey(situation, pki.issuing.key, 'the issuing key');
    const findings = [host ?? failure(`${pki.key} (this host's private key) is not there`, await advice(situation))];
    if (issuing !== undefined) findings.push(issuing);
    const facts = await situation.facts.stat(folder).catch(() => undefined);
    if (facts !== undefined && (facts.mode & FOLDER_FORBIDDEN) !== 0) {
      const found = `${folder} has mode ${octal(facts.mode)}: others may exchange the keys in it`;
      findings.push(failure(found, `chmod go-w ${folder}`));
    }
    return findings;
  },
};

async function advice({ facts, pki }: Situation): Promise<string> {
  return (await adviceOnMissing(pki, (path) => facts.stat(path))).key;
}

/** Undefined where there is none. */
async function checkKey({ facts, owner }: Situation, path: string, what: string): Promise<Finding | undefined> {
  const file = await facts.stat(path).catch((thrown: unknown) => ({ thrown }));
  if ('thrown' in file) {
    if (errorCode(file.thrown) === 'ENOENT') return undefined;
    return skipped(`${path} (${what}) cannot be looked at: ${errorText(file.thrown)}`, 'run this as root');
  }
  if (file.uid !== owner && file.uid !== 0) {
    return failure(
      `${path} (${what}) belongs to user ${file.uid}, who may do with it what they like`,
      `chown ${owner} ${path}`,
    );
  }
  if ((file.mode & KEY_FORBIDDEN) !== 0) {
    return failure(`${path} (${what}) has mode ${octal(file.mode)}, which lets others in`, `chmod 0600 ${path}`);
  }
  return ok(`${path} has mode ${octal(file.mode)}`);
}

/** The root key: whoever has it is the cluster. */
export const rootKey: Check = {
  name: 'root key',
  async run(situation) {
    const { facts, config } = situation;
    if (config.name !== 'loaded') return [withoutConfig];
    const path = `${pkiFolder(situation)}/ca.key`;
    const found = await facts.stat(path).catch((thrown: unknown) => errorCode(thrown));
    if (found === 'ENOENT') return [ok('the root key is not on this host')];
    if (typeof found === 'string') return [skipped(`whether ${path} is there cannot be seen (${found})`, 'run this as root')];
    if ((found.mode & KEY_FORBIDDEN) !== 0) {
      return [failure(`${path} (the root key) has mode ${octal(found.mode)}, which lets others in`, `chmod 0600 ${path}`)];
    }
    // `netbus init` says the same.
    const advice =
      'copy it to a safe place that is not on this host, then delete it here: whoever has it can make any host of the cluster';
    return [hint(`${path} (the root key) is on this host, and only renewing the issuing certificate needs it`, advice)];
  },
};
