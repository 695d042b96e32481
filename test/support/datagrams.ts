/** A unix datagram socket that writes down what it gets, as a service manager's NOTIFY_SOCKET does; Node itself has none. */

import type { Cleanup } from './cleanup.ts';
import { type RunningProcess, startProcess } from './process.ts';
import { waitFor } from './wait.ts';

/** perl-base, with the module Socket, is on every Debian. Each datagram becomes a line of hexadecimal digits. */
const RECEIVER = `
use strict; use Socket; $| = 1;
my ($name, $reads) = @ARGV;
$name =~ s/^@/\\0/;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!";
bind($socket, pack_sockaddr_un($name)) or die "bind: $!";
print "listening\\n";
sleep unless $reads;
while (defined recv($socket, my $datagram, 65536, 0)) { print unpack("H*", $datagram), "\\n" }
`;

export interface DatagramOptions {
  /** False for a receiver that never takes anything out of its queue; true by default. */
  reads?: boolean;
}

export class Datagrams {
  readonly #process: RunningProcess;

  private constructor(process: RunningProcess) {
    this.#process = process;
  }

  /** Listens at `path`, or, where that begins with "@", at the abstract name behind it. */
  static async listen(path: string, cleanup: Cleanup, { reads = true }: DatagramOptions = {}): Promise<Datagrams> {
    const process = startProcess(['perl', '-e', RECEIVER, path, reads ? '1' : ''], cleanup);
    await process.waitForLine(/^listening$/);
    return new Datagrams(process);
  }

  /** What has come so far, oldest first. */
  get received(): string[] {
    // The last element is empty, or a line that has not come in full yet.
    const lines = this.#process.stdout.split('\n').slice(1, -1);
    return lines.map((line) => Buffer.from(line, 'hex').toString());
  }

  /** Waits until a datagram is as `wanted` says, and returns the first such. */
  waitFor(what: string, wanted: (datagram: string) => boolean, timeoutMs?: number): Promise<string> {
    return waitFor(what, () => this.received.find(wanted), timeoutMs);
  }
}
