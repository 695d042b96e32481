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

/** The same log, with `fields` in each line: for parts that do not know whom they work for. */
export function bindFields(log: Log, fields: object): Log {
  return {
    debug: (more, message) => log.debug({ ...fields, ...more }, message),
    info: (more, message) => log.info({ ...fields, ...more }, message),
    warn: (more, message) => log.warn({ ...fields, ...more }, message),
    error: (more, message) => log.error({ ...fields, ...more }, message),
  };
}
