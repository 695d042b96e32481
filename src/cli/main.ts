#!/usr/bin/env node
/** The program `netbus`; under the name `netbusd` it is `netbus daemon`. */
import { basename } from 'node:path';

// A reader that has seen enough (`netbus ls | head -1`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

// Node leaves the name as it was called: a link, such as /usr/sbin/netbusd, is not followed.
const [, name, ...argv] = process.argv;
if (argv[0] === '__complete') {
  // What a shell asks while somebody waits for the Tab key: nothing is loaded that it does not need.
  const { completeNames } = await import('./completion/names.ts');
  process.stdout.write(await completeNames(argv.slice(1)));
} else {
  const { runProgram } = await import('./program.ts');
  process.exitCode = await runProgram(basename(name) === 'netbusd' ? ['daemon', ...argv] : argv);
}
