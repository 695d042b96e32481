/** CPU time of other processes, from /proc. */
import { readFileSync } from 'node:fs';

/** USER_HZ of Linux: the unit of the times in /proc/PID/stat, the same on all its architectures. */
const TICK_MS = 10;

/** User and system time of all threads of these processes since they started, in milliseconds. */
export function cpuTimeMs(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The program's name, in brackets, may have blanks: fields count from behind it. utime and stime are fields 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks * TICK_MS;
}
