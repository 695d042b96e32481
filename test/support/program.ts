/** The program `netbus`, as tests and the demo start it. */
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

/** The command line of what NETBUS_PROGRAM names (the build, in the demo and in CI), or of the source, which takes five times as long to start. */
export function netbusProgram(): string[] {
  const built = process.env.NETBUS_PROGRAM;
  return built ? [process.execPath, built] : [process.execPath, '--import', import.meta.resolve('tsx'), SOURCE];
}
