/** QEMU's storage daemon straight on the file: a disk that is not remote at all. */
import { join } from 'node:path';
import { startStorageDaemon } from '../../test/support/storage-daemon.ts';
import type { Candidate, CandidateContext, RunningCandidate } from './candidate.ts';

export const local: Candidate = {
  kind: 'local',
  name: 'local',
  async start({ cleanup, directory, imagePath, queues }: CandidateContext): Promise<RunningCandidate> {
    const socketPath = join(directory, 'disk.sock');
    const daemon = await startStorageDaemon({ cleanup, socketPath, queues, backend: { kind: 'file', imagePath } });
    return {
      socketPath,
      commandLines: [daemon.argv.join(' ')],
      pids: [daemon.pid],
      stop: async () => void (await daemon.stop()),
    };
  },
};

/** QEMU's storage daemon with nothing behind it: what the front-end of the benchmark can do at least. Not a disk, so never verified. */
export const nothing: Candidate = {
  kind: 'null',
  name: 'null',
  async start({ cleanup, directory, imageBytes, queues }: CandidateContext): Promise<RunningCandidate> {
    const socketPath = join(directory, 'disk.sock');
    const backend = { kind: 'null', sizeBytes: imageBytes } as const;
    const daemon = await startStorageDaemon({ cleanup, socketPath, queues, backend });
    return {
      socketPath,
      commandLines: [daemon.argv.join(' ')],
      pids: [daemon.pid],
      stop: async () => void (await daemon.stop()),
    };
  },
};
