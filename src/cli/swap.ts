/** `netbus swap`: replaces the device behind a virtual device while its guest uses it. */
import type { Command } from 'commander';
import { Context, splitPair } from './context.ts';
import { endText } from './job-text.ts';
import { watchJob } from './job-watch.ts';
import { parseRate, type Rate } from './rate.ts';

interface SwapOptions {
  to: string;
  overwrite?: true;
  speed?: Rate;
  detach?: true;
}

export function addSwap(program: Command): void {
  program
    .command('swap')
    .summary('replace the device of a running VM by another one')
    .description(
      'Copies the disk that VM, on this host, has as NAME to another export while the guest uses it, and puts that in its place. Checks first, and touches nothing where it cannot be. The daemon does it: Ctrl-C leaves the job running, and "netbus job" finds it again. Until it is done the guest stays with the old disk, whatever fails.',
    )
    .argument('<vm/name>', 'the virtual device, as `netbus status` shows it')
    .requiredOption('--to <host/name>', 'the new device, as `netbus ls` shows it')
    .option('--overwrite', 'although there is data on it, or it is the stale copy of something')
    .option('--speed <rate>', 'copy so many bytes a second at most, such as 100M or 1G (default: unlimited)', parseRate)
    .option('--detach', 'do not wait for the end')
    .addHelpText(
      'after',
      `
Examples:
  netbus swap web/data --to m2/data
  netbus swap web/data --to m2/data --speed 100M --detach && netbus jobs
`,
    )
    .action(async (attachment: string, options: SwapOptions, command: Command) => {
      const context = new Context(command);
      const [vm, name] = splitPair(attachment, 'VM/NAME');
      splitPair(options.to, 'HOST/NAME');
      const { to, overwrite, speed, detach } = options;
      const begun = await context.client.swap(vm, name, {
        to,
        ...(overwrite && { overwrite }),
        ...(typeof speed === 'number' && { bytesPerSecondMax: speed }),
      });
      const { id, from } = begun;
      const what = `job ${id} swaps ${vm}/${name}${from === undefined ? '' : ` from ${from}`} to ${to}`;
      if (detach) {
        context.print(begun, () => `${what}: "netbus job ${id} --watch" shows how far it is\n`);
        return;
      }
      context.note(`${what}\n`);
      const done = await watchJob(context, begun);
      context.print(done, () => `${endText(done)}\n`);
    });
}
