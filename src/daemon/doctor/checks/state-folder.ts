/** The state folder: what must outlive the daemon is stored there before anything depends on it. */
import { type Check, type Finding, failure, hint, ok, skipped, warning } from '../check.ts';
import { errorCode, errorText, type HostFacts } from '../facts.ts';
import { checkSpace, checkWrite } from '../space.ts';

const MIB = 1024 * 1024;
const CONSEQUENCE = 'no export, attachment or lease can be stored';
/** Bits of its mode that let others in. */
const OTHERS = 0o077;

export const stateFolder: Check = {
  name: 'state folder',
  async run({ facts, stateDir, daemon, owner }) {
    const folder = await facts.stat(stateDir).catch((thrown: unknown) => ({ thrown }));
    if ('thrown' in folder) return [absent(stateDir, folder.thrown, daemon.name === 'running')];
    if (folder.type !== 'folder') return [failure(`${stateDir} is not a folder`, 'name another one in the config (stateDir)')];
    const findings: Finding[] = [];
    if (folder.uid !== owner) {
      findings.push(
        failure(`${stateDir} belongs to user ${folder.uid}, and the daemon is user ${owner}`, `chown -R ${owner} ${stateDir}`),
      );
    }
    if ((folder.mode & OTHERS) !== 0) {
      findings.push(warning(`${stateDir} has mode ${octal(folder.mode)}, which lets others in`, `chmod 0700 ${stateDir}`));
    }
    findings.push(await checkSpace(facts, { path: stateDir, minBytes: MIB, wantedBytes: 64 * MIB, consequence: CONSEQUENCE }));
    const { uid } = facts.user;
    if (uid === 0 || uid === folder.uid) {
      const trouble = await checkWrite(facts, stateDir, CONSEQUENCE);
      if (trouble !== undefined) findings.push(trouble);
      findings.push(...(await damagedRecords(facts, stateDir)));
    } else {
      findings.push(skipped(`whether ${stateDir} can be written was not tried: it is another user's`, 'run this as root'));
    }
    return findings;
  },
};

function absent(stateDir: string, thrown: unknown, running: boolean): Finding {
  if (errorCode(thrown) !== 'ENOENT')
    return skipped(`${stateDir} cannot be looked at: ${errorText(thrown)}`, 'run this as root');
  if (running) {
    return failure(
      `${stateDir} is gone, and the daemon runs: ${CONSEQUENCE}`,
      'was it unmounted? Put it back, then restart the daemon',
    );
  }
  return hint(`${stateDir} is not there yet`, 'nothing: the daemon makes it when it starts');
}

async function damagedRecords(facts: HostFacts, stateDir: string): Promise<Finding[]> {
  const damaged: string[] = [];
  for (const name of await facts.list(stateDir).catch(() => [])) {
    const folder = `${stateDir}/${name}`;
    const files = await facts.list(folder).catch(() => []);
    damaged.push(...files.filter((file) => file.includes('.damaged-')).map((file) => `${folder}/${file}`));
  }
  if (damaged.length === 0) return [ok('no record was set aside as damaged')];
  const which = damaged.length === 1 ? damaged[0] : `${damaged[0]} and ${damaged.length - 1} more`;
  return [warning(`set aside as damaged: ${which}`, 'the log says why; put it back from a backup, or remove it')];
}

export function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}
