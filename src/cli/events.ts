/** `netbus events`: what happened on this host, and with --watch what happens. */
import { type Command, InvalidArgumentError } from 'commander';
import type { EventFilter } from '../api/client.ts';
import type { EventEntry } from '../api/events.ts';
import { formatTable, type Style } from '../lib/format.ts';
import { Context } from './context.ts';
import { parseSince } from './since.ts';
import { localTime, shortTime } from './words.ts';

/** The newest, unless something else is asked for. */
const LIMIT_DEFAULT = 100;
const WATCH_LIMIT_DEFAULT = 10;
const LIMIT_MAX = 1000;
/** In a watch the columns cannot know what comes. */
const TYPE_COLUMN_CHARACTERS = 20;
const SUBJECT_COLUMN_CHARACTERS = 14;

interface EventsOptions {
  since?: string;
  limit?: number;
  type?: string;
  watch?: true;
}

export function addEvents(program: Command): void {
  program
    .command('events')
    .summary('show what happened on this host')
    .description(
      'Shows what happened on this host, the oldest first: devices and VMs that came and went, links and sessions that were lost and are back, trouble with disks, members and certificates. It goes back over restarts of the daemon.',
    )
    .option('--since <when>', 'only what happened since then: 90s, 15min, 1h, 2d ago, or a time such as 14:03 or 2030-01-31')
    .option(
      '--limit <n>',
      `the newest N (default: ${LIMIT_DEFAULT}, with --watch ${WATCH_LIMIT_DEFAULT}; with --since all)`,
      limit,
    )
    .option('--type <type>', 'only these: a type such as link.down, or the first part of one such as link')
    .option('--watch', 'go on with what happens, until Ctrl-C; with --json a line of JSON for each')
    .addHelpText(
      'after',
      `
Examples:
  netbus events --since 1h
  netbus events --watch --type session
  netbus events --json | jq -r '.events[] | select(.severity == "error") | .message'
`,
    )
    .action(async (options: EventsOptions, command: Command) => {
      const context = new Context(command);
      const filter = makeFilter(options, Date.now());
      if (options.watch) await watch(context, filter);
      const history = await context.client.events(filter);
      context.print(history, (style) => describe(history.events, style));
    });
}

async function watch(context: Context, filter: EventFilter): Promise<never> {
  return context.client.watchEvents(filter, (entry) => {
    context.print(entry, (style) => `${eventLine(entry, style)}\n`);
  });
}

function makeFilter({ since, limit, type, watch }: EventsOptions, nowMs: number): EventFilter {
  const sinceMs = since === undefined ? undefined : parseSince(since, nowMs);
  const fallback = sinceMs === undefined ? (watch ? WATCH_LIMIT_DEFAULT : LIMIT_DEFAULT) : undefined;
  const newest = limit ?? fallback;
  return {
    ...(sinceMs !== undefined && { since: new Date(sinceMs).toISOString() }),
    ...(newest !== undefined && { limit: newest }),
    ...(type !== undefined && { type }),
  };
}

function describe(events: readonly EventEntry[], style: Style): string {
  if (events.length === 0) return 'no events\n';
  return formatTable(
    ['TIME', 'TYPE', 'SUBJECT', 'WHAT HAPPENED'],
    events.map((entry) => [localTime(entry.lastTime), typeOf(entry, style), style.bold(entry.subject), whatOf(entry)]),
    style,
  );
}

function eventLine(entry: EventEntry, style: Style): string {
  const type = typeOf(entry, style) + ' '.repeat(Math.max(0, TYPE_COLUMN_CHARACTERS - entry.type.length));
  const subject = style.bold(entry.subject) + ' '.repeat(Math.max(0, SUBJECT_COLUMN_CHARACTERS - entry.subject.length));
  return `${localTime(entry.lastTime)}  ${type}  ${subject}  ${whatOf(entry)}`;
}

/** The severity is its colour; without colours the words of the type say enough. */
function typeOf({ type, severity }: EventEntry, style: Style): string {
  switch (severity) {
    case 'info':
      return type;
    case 'warning':
      return style.warn(type);
    case 'error':
      return style.bad(type);
  }
}

function whatOf({ message, count, time, lastTime }: EventEntry): string {
  return count === 1 ? message : `${message} (${count} times since ${shortTime(time, Date.parse(lastTime))})`;
}

function limit(value: string): number {
  const number = Number(value);
  if (/^\d+$/.test(value) && number <= LIMIT_MAX) return number;
  throw new InvalidArgumentError(`It is a number from 0 to ${LIMIT_MAX}.`);
}
