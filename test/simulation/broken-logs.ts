/** Write logs that are broken on purpose. */
import type { LogBlocks } from '../../src/filters/write-log/log-blocks.ts';
import { LOG_BLOCK_BYTES } from '../../src/filters/write-log/log-file.ts';
import { WriteLog, type WriteLogOptions } from '../../src/filters/write-log/write-log.ts';

type CreateLog = (options: WriteLogOptions, isFirst: boolean) => WriteLog;

const DROPPED_ONE_IN = 3;

/** The real one, and something of it is done otherwise. */
function changed(change: (log: WriteLog) => void): CreateLog {
  return (options, isFirst) => {
    const log = new WriteLog(options, isFirst);
    change(log);
    return log;
  };
}

/** Writes that `isKept` says no to are not in the log. */
function keeping(isKept: (blocks: LogBlocks, position: number, extent: number) => boolean): CreateLog {
  return changed(({ blocks }) => {
    if (blocks === undefined) return;
    const { write } = blocks;
    blocks.write = (position, extent, source, now) => {
      if (isKept(blocks, position, extent)) write.call(blocks, position, extent, source, now);
    };
  });
}

function always(log: WriteLog, name: 'complete' | 'sending', value: boolean): void {
  Object.defineProperty(log, name, { get: () => value });
}

export const brokenLogs = {
  droppingEntries(): CreateLog {
    let writes = 0;
    return keeping(() => ++writes % DROPPED_ONE_IN !== 0);
  },

  keepingTheFirst(): CreateLog {
    return keeping((blocks, position, extent) => {
      const last = Math.floor((position + extent - 1) / LOG_BLOCK_BYTES);
      for (let block = Math.floor(position / LOG_BLOCK_BYTES); block <= last; block++) if (blocks.entry(block) < 0) return true;
      return false;
    });
  },

  keepingTheOvertaken(): CreateLog {
    return changed(({ blocks }) => {
      if (blocks !== undefined) blocks.drop = () => {};
    });
  },

  releasingTooMuch(): CreateLog {
    return changed((log) => {
      const { flushed } = log;
      log.flushed = (sequence) => flushed.call(log, log.blocks?.sequence ?? sequence);
    });
  },

  neverSent(): CreateLog {
    return changed((log) => always(log, 'sending', false));
  },

  alwaysComplete(): CreateLog {
    return changed((log) => always(log, 'complete', true));
  },

  neverComplete(): CreateLog {
    return changed((log) => always(log, 'complete', false));
  },

  endingWithTheDaemon(): CreateLog {
    return (options) => {
      WriteLog.remove(options.path);
      return new WriteLog(options, true);
    };
  },
};
