import pino from 'pino';
import type { Log } from '../lib/log.ts';
import type { LogLevel } from './config.ts';

/**
 * The daemon's log: one JSON object per line on stderr, with the level as a word, ISO time and the host. Written synchronously: the last line before
 * an end is the one that matters.
 */
export function createLog(options: { host: string; level: LogLevel }): Log {
  return pino(
    {
      level: options.level,
      base: { host: options.host },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
    },
    pino.destination({ fd: 2, sync: true }),
  );
}
