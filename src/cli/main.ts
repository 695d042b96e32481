#!/usr/bin/env node
/** The program `netbus`; under the name `netbusd` it is `netbus daemon`. */
import { basename } from 'node:path';
import { runProgram } from './program.ts';

// A reader that has seen enough (`netbus ls | head -1`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

// Node leaves the name as it was called: a link, such as /usr/sbin/netbusd, is not followed.
const [, name, ...argv] = process.argv;
process.exitCode = await runProgram(basename(name) === 'netbusd' ? ['daemon', ...argv] : argv);
