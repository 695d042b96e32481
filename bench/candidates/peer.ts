/**
 * The same job as Netbus's with today's C programs: nbdkit exports the file over NBD, QEMU's storage daemon on the other side
 * offers it to the front-end. With TLS both sides show certificates, as Netbus's hosts do.
 */
import { join } from 'node:path';
import { makePeerCertificates } from '../../test/support/peer-certificates.ts';
import { freePort, waitForPort } from '../../test/support/port.ts';
import { startProcess } from '../../test/support/process.ts';
import { startStorageDaemon } from '../../test/support/storage-daemon.ts';
import type { Candidate, CandidateContext, RunningCandidate } from './candidate.ts';

const ADDRESS = '127.0.0.1';

/** `threads`: requests of one connection that nbdkit serves at a time. */
export function peer(threads: number): Candidate {
  return { kind: 'peer', name: `peer -t ${threads}`, start: (context) => start(threads, context) };
}

async function start(threads: number, context: CandidateContext): Promise<RunningCandidate> {
  const { cleanup, directory, imagePath, queues, transport } = context;
  const certificates = transport === 'tls' ? await makePeerCertificates(directory, ADDRESS) : undefined;
  const port = await freePort(ADDRESS);
  const tls =
    certificates === undefined
      ? ['--tls=off']
      : ['--tls=require', `--tls-certificates=${certificates.serverDirectory}`, '--tls-verify-peer'];
  const serve = ['-f', '-t', String(threads), '-i', ADDRESS, '-p', String(port), ...tls, 'file', imagePath];
  const server = startProcess(['nbdkit', ...serve], cleanup);
  await waitForPort(server.pid, ADDRESS, port);

  const socketPath = join(directory, 'disk.sock');
  const credentials = certificates === undefined ? {} : { credentials: certificates.clientDirectory };
  const backend = { kind: 'nbd', address: ADDRESS, port, ...credentials } as const;
  const client = await startStorageDaemon({ cleanup, socketPath, queues, backend });
  return {
    socketPath,
    commandLines: [server.argv.join(' '), client.argv.join(' ')],
    pids: [server.pid, client.pid],
    stop: async () => {
      await client.stop();
      await server.stop();
    },
  };
}
