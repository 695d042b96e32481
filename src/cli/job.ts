/** `netbus job`: shows a job, stays with it, or changes it. */
import type { Command } from 'commander';
import type { ControlClient } from '../api/client.ts';
import type { JobEntry } from '../api/jobs.ts';
import { NetbusError } from '../device/errors.ts';
import { formatBytes } from '../lib/format.ts';
import { Context } from './context.ts';
import { describeJob, endText, isOver } from './job-text.ts';
import { watchJob } from './job-watch.ts';
import { parseRate, type Rate } from './rate.ts';

export interface JobOptions {
  watch?: true;
  pause?: true;
  resume?: true;
  cancel?: true;
  speed?: Rate;
}

export function addJob(program: Command): void {
  program
    .command('job')
    .summary('show, watch, pause, slow down or cancel a job')
    .description('Shows how far a job of this host is, or how it ended. With an option it does that to the job instead.')
    .argument('<job>', 'its id, as `netbus jobs` shows it')
    .option('--watch', 'stay with it until it is over; Ctrl-C leaves it running')
    .option('--pause', 'let it stand still; the guest goes on, and what is copied stays')
    .option('--resume', 'let it go on')
    .option('--cancel', 'give it up: the guest stays with the disk that it has')
    .option('--speed <rate>', 'copy so many bytes a second at most, such as 100M or 1G, or unlimited', parseRate)
    .addHelpText('after', '\nExamples:\n  netbus job j3 --watch\n  netbus job j3 --speed 100M\n')
    .action(async (id: string, options: JobOptions, command: Command) => {
      const context = new Context(command);
      const wanted = Object.keys(options).filter((key) => ['watch', 'pause', 'resume', 'cancel', 'speed'].includes(key));
      if (wanted.length > 1) throw new NetbusError('usage', `one at a time: --${wanted.join(' or --')}`);
      if (options.watch) {
        // With --json each look is a line, as `status --watch` has it.
        const onEntry = (entry: JobEntry) => context.json && context.print(entry, () => '');
        const done = await watchJob(context, await context.client.job(id), onEntry);
        if (!context.json) context.print(done, () => `${endText(done)}\n`);
        return;
      }
      const entry = await change(context.client, id, options);
      context.print(entry, (style) => changeText(entry, options) ?? describeJob(entry, style, Date.now()));
    });
}

function change(client: ControlClient, id: string, { pause, resume, cancel, speed }: JobOptions): Promise<JobEntry> {
  if (cancel) return client.cancelJob(id);
  if (pause || resume) return client.changeJob(id, { paused: pause === true });
  if (speed !== undefined) return client.changeJob(id, { bytesPerSecondMax: speed === 'unlimited' ? null : speed });
  return client.job(id);
}

/** What was done to it; undefined where nothing was. */
export function changeText(entry: JobEntry, { pause, resume, cancel, speed }: JobOptions): string | undefined {
  const job = `job ${entry.id}`;
  if (cancel && isOver(entry)) return `${job} is ${endText(entry)}\n`;
  if (cancel) return `${job} is being cancelled: ${entry.progress?.reason ?? 'not everything is undone yet'}\n`;
  if (pause) return `${job} is paused: "netbus job ${entry.id} --resume" lets it go on\n`;
  if (resume) return `${job} goes on\n`;
  if (speed === undefined) return undefined;
  return `${job} copies ${speed === 'unlimited' ? 'as fast as it can' : `${formatBytes(speed)}/s at most`}\n`;
}
