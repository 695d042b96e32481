/** `npm run bench -- disk`: how fast Netbus is, beside the programs that do the same job today. */
import { benchDisk } from './disk.ts';
import { parseDiskBenchOptions, UsageError, usage } from './options.ts';

const EXIT_OK = 0;
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

async function main(argv: readonly string[]): Promise<number> {
  const [bench, ...rest] = argv;
  if (argv.includes('--help') || argv.includes('-h')) {
    process.stdout.write(`${usage}\n`);
    return EXIT_OK;
  }
  try {
    if (bench !== 'disk')
      throw new UsageError(bench === undefined ? 'which benchmark?' : `there is no benchmark "${bench}", only disk`);
    return (await benchDisk(parseDiskBenchOptions(rest))) ? EXIT_OK : EXIT_FAILED;
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n`);
    if (!(error instanceof UsageError)) return EXIT_FAILED;
    process.stderr.write(`${usage}\n`);
    return EXIT_USAGE;
  }
}

process.exitCode = await main(process.argv.slice(2));
