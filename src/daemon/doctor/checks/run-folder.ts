/** The run folder, with the sockets, and the other place of shared memory. */
import { type Check, type Finding, failure, hint, ok, skipped } from '../check.ts';
import { errorCode, errorText } from '../facts.ts';
import { checkSpace, checkWrite } from '../space.ts';

const MIB = 1024 * 1024;
const CONSEQUENCE = 'no virtual device gets its socket';

export const runFolder: Check = {
  name: 'run folder',
  async run({ facts, runDir, socket, daemon }) {
    const folder = await facts.stat(runDir).catch((thrown: unknown) => ({ thrown }));
    if ('thrown' in folder) {
      if (errorCode(folder.thrown) !== 'ENOENT') return [skipped(`${runDir} cannot be looked at: ${errorText(folder.thrown)}`)];
      if (daemon.name !== 'running') return [hint(`${runDir} is not there yet`, 'nothing: the daemon makes it when it starts')];
      return [failure(`${runDir} is not there, and the daemon runs: ${CONSEQUENCE}`, 'restart the daemon')];
    }
    if (folder.type !== 'folder') return [failure(`${runDir} is not a folder`, 'name another one in the config (runDir)')];
    const findings: Finding[] = [
      await checkSpace(facts, { path: runDir, minBytes: 64 * 1024, wantedBytes: 8 * MIB, consequence: CONSEQUENCE }),
    ];
    const { uid } = facts.user;
    if (uid === 0 || uid === folder.uid) {
      const trouble = await checkWrite(facts, runDir, CONSEQUENCE);
      if (trouble !== undefined) findings.push(trouble);
    }
    const left = await facts.stat(socket).catch(() => undefined);
    if (left !== undefined && left.type !== 'socket') {
      findings.push(failure(`${socket} is not a socket`, 'remove it, then restart the daemon'));
    } else if (left !== undefined && daemon.name === 'stopped') {
      findings.push(hint(`${socket} was left by a daemon that did not end in order`, 'nothing: the next one replaces it'));
    }
    return findings;
  },
};

export const sharedMemory: Check = {
  name: 'shared memory',
  async run({ facts }) {
    const path = '/dev/shm';
    const folder = await facts.stat(path).catch(() => undefined);
    if (folder?.type !== 'folder') {
      return [
        hint(`there is no ${path}`, "mount a tmpfs there for guests' memory in files; memory-backend-memfd does without"),
      ];
    }
    const { freeBytes } = await facts.space(path);
    if (freeBytes >= MIB) return [ok((await checkSpace(facts, { path, minBytes: 0, wantedBytes: 0, consequence: '' })).found)];
    return [hint(`${path} is full`, 'remove what was left there; guests with memory-backend-memfd do without it')];
  },
};
