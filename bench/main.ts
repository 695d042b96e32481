/**
 * `npm run bench -- disk`: how fast Netbus is, beside the programs that do the same job today.
 * `npm run bench -- faults`: what guests notice while everything below them fails, one after the other and together.
 * `npm run bench -- migration`: what is lost and how long everything stands still when a guest moves and its disk does not.
 * `npm run bench -- swap`: how long a guest waits when its disk is replaced by one of another host, and how fast that is beside QEMU's mirror.
 */
import { benchDisk } from './disk.ts';
import { benchFaults } from './faults.ts';
import { benchMigration } from './migration.ts';
import {
  parseDiskBenchOptions,
  parseFaultBenchOptions,
  parseMigrationBenchOptions,
  parseSwapBenchOptions,
  UsageError,
  usage,
} from './options.ts';
import { benchSwap } from './swap.ts';

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
    return (await run(bench, rest)) ? EXIT_OK : EXIT_FAILED;
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n`);
    if (!(error instanceof UsageError)) return EXIT_FAILED;
    process.stderr.write(`${usage}\n`);
    return EXIT_USAGE;
  }
}

function run(bench: string | undefined, argv: readonly string[]): Promise<boolean> {
  switch (bench) {
    case 'disk':
      return benchDisk(parseDiskBenchOptions(argv));
    case 'faults':
      return benchFaults(parseFaultBenchOptions(argv));
    case 'migration':
      return benchMigration(parseMigrationBenchOptions(argv));
    case 'swap':
      return benchSwap(parseSwapBenchOptions(argv));
    case undefined:
      throw new UsageError('which benchmark?');
    default:
      throw new UsageError(`there is no benchmark "${bench}", only disk, faults, migration and swap`);
  }
}

process.exitCode = await main(process.argv.slice(2));
