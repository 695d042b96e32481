#!/usr/bin/env node
/** The program `netbus`. */
import { runProgram } from './program.ts';

// A reader that has seen enough (`netbus ls | head -1`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

process.exitCode = await runProgram(process.argv.slice(2));
