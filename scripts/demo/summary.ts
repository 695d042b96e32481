/** The demo's end: how fast the remote disk was beside the local one, and what was verified. */

import { formatTable } from '../../src/lib/format.ts';
import type { DiskResult } from './disk.ts';
import type { Story } from './story.ts';

export function tellSummary(story: Story, { remote, local, verifiedBytes, files }: DiskResult): void {
  story.title('\nHow fast it was, in the guest (an emulated CPU, which is the slowest part of it):');
  story.say(
    formatTable(
      ['', 'DISK OF m1, REMOTE', 'DISK OF m2, LOCAL', 'REMOTE/LOCAL'],
      [
        row('write 64 MiB, then fsync', remote.writeMBs, local.writeMBs, 'MB/s'),
        row('read 64 MiB, not cached', remote.readMBs, local.readMBs, 'MB/s'),
        row('4 KiB random reads, 32 at a time', remote.randomReadIops, local.randomReadIops, '/s'),
        row('4 KiB random writes, 32 at a time', remote.randomWriteIops, local.randomWriteIops, '/s'),
      ],
    ),
  );
  story.title('\nWhat happened:');
  story.say(
    `The guest on m2 had a disk that is a file on m1, and saw nothing of it: its own driver, its own filesystem.
Everything between the hosts went through mutual TLS 1.3. ${files} files, ${verifiedBytes} bytes, were found
on m1 as the guest wrote them.`,
  );
}

function row(what: string, remote: number, local: number, unit: string): string[] {
  return [what, `${Math.round(remote)} ${unit}`, `${Math.round(local)} ${unit}`, (remote / local).toFixed(2)];
}
