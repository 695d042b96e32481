/**
 * Places several new files at once: all of them, or none, whatever ends the process in the middle; and never over one that is there.
 *
 * A journal says first which files there will be. Each is then written beside its place (NAME.staged), and when all are on stable storage each gets its name by
 * link(2), which fails where the name is taken. Until the journal says "committed", whoever finds it takes everything back: a file in its place is ours as
 * long as it is the same inode as the staged one. After that only the staged names are left to remove.
 */
import { existsSync } from 'node:fs';
import { chmod, type FileHandle, link, lstat, mkdir, open, rmdir, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { native } from '../../native/index.ts';
import { NetbusError } from '../device/errors.ts';
import { removeEmpty, syncFolder, writeNew } from './durable-file.ts';

const STAGED = '.staged';
const COMMITTED = '\ncommitted\n';
const JOURNAL_MODE = 0o600;
/** Of a journal's folder. */
const FOLDER_MODE = 0o755;

export interface NewFile {
  readonly path: string;
  readonly content: string | Uint8Array;
  readonly mode: number;
}

export interface NewFolder {
  readonly path: string;
  readonly mode: number;
}

export interface PlacementOptions {
  /** A file name in a folder that is there or may be made; it is gone when this is done. */
  readonly journal: string;
  /** Made where they are missing, in this order, each in one that is there by then. One that is there keeps its mode. */
  readonly folders: readonly NewFolder[];
  readonly files: readonly NewFile[];
  /** Everything is made but for the names, of the same size and in the same places, and taken back. */
  readonly rehearsal?: boolean;
  /** What to do where one of the files is there: the end of the error's line. */
  readonly ifTaken?: string;
  /** Everything is taken back when it is aborted before the end. */
  readonly signal?: AbortSignal;
  /** Called before each step; for tests, which throw there. */
  readonly step?: (name: string) => void;
}

const journalSchema = z.strictObject({ version: z.literal(1), files: z.array(z.string()), folders: z.array(z.string()) });
type Journal = z.infer<typeof journalSchema>;

/**
 * Throws `in_use` where one of the files is there, or another process is at it; `denied` where this user may not write; `device` for all other trouble; and whatever the
 * signal was aborted with. Whenever it throws, everything is as it was before.
 */
export async function placeFiles(options: PlacementOptions): Promise<void> {
  try {
    const journal = await openJournal(options.journal);
    await placeAll(journal.file, options).finally(() => closeJournal(journal, options.journal));
  } catch (thrown) {
    throw told(thrown, options);
  }
}

async function placeAll(journal: FileHandle, options: PlacementOptions): Promise<void> {
  await undoEarlier(journal);
  const record: Journal = {
    version: 1,
    files: options.files.map(({ path }) => path),
    folders: await missing(options.folders),
  };
  await checkFree(record.files);
  try {
    await stage(journal, record, options);
    if (options.rehearsal !== true) await giveNames(journal, record, options);
  } catch (thrown) {
    await undo(record);
    await journal.truncate(0);
    throw thrown;
  }
  if (options.rehearsal === true) await undo(record);
  else await removeStaged(record);
  await journal.truncate(0);
}

interface OpenJournal {
  readonly file: FileHandle;
  /** The topmost folder that had to be made for it. */
  readonly madeFolder: string | undefined;
}

/** Takes back what a placement that was cut off has left, or finishes it. Nothing to do is no error. Throws as `placeFiles`. */
async function undoEarlier(journal: FileHandle): Promise<void> {
  const text = await journal.readFile('utf8');
  if (text === '') return;
  const [line] = text.split('\n', 1);
  const record = parseJournal(line);
  // A journal that was itself cut off stands alone: nothing is made before it is whole.
  if (record === undefined) return;
  if (text.slice(line.length) === COMMITTED) await removeStaged(record);
  else await undo(record);
  await journal.truncate(0);
}

async function stage(journal: FileHandle, record: Journal, options: PlacementOptions): Promise<void> {
  next(options, 'journal');
  await journal.truncate(0);
  await journal.write(JSON.stringify(record), 0);
  await journal.sync();
  for (const { path, mode } of options.folders) {
    if (!record.folders.includes(path)) continue;
    next(options, `folder ${path}`);
    await makeFolder(path, mode);
  }
  for (const { path, content, mode } of options.files) {
    next(options, `stage ${path}`);
    await writeNew(path + STAGED, content, mode);
  }
}

async function giveNames(journal: FileHandle, record: Journal, options: PlacementOptions): Promise<void> {
  for (const path of record.files) {
    next(options, `link ${path}`);
    await link(path + STAGED, path);
  }
  next(options, 'sync');
  for (const folder of new Set([...record.files, ...record.folders].map((path) => dirname(path)))) await syncFolder(folder);
  next(options, 'commit');
  const { size } = await journal.stat();
  await journal.write(COMMITTED, size);
  await journal.sync();
}

function next({ signal, step }: PlacementOptions, name: string): void {
  signal?.throwIfAborted();
  step?.(name);
}

async function undo(record: Journal): Promise<void> {
  for (const path of record.files) {
    const staged = await lstat(path + STAGED).catch(ignoreMissing);
    if (staged === undefined) continue;
    const placed = await lstat(path).catch(ignoreMissing);
    if (placed?.dev === staged.dev && placed.ino === staged.ino) await unlink(path);
    await unlink(path + STAGED);
  }
  // Only where nobody has put anything else into them.
  for (const path of record.folders.toReversed()) await rmdir(path).catch(() => {});
}

async function removeStaged(record: Journal): Promise<void> {
  for (const path of record.files) await unlink(path + STAGED).catch(ignoreMissing);
}

/** Opened and locked: two at once would take back each other's files. */
async function openJournal(path: string): Promise<OpenJournal> {
  const folder = dirname(path);
  let file: FileHandle | undefined;
  try {
    const made = await mkdir(folder, { recursive: true, mode: FOLDER_MODE });
    if (made !== undefined) await chmod(folder, FOLDER_MODE);
    file = await open(path, 'a+', JOURNAL_MODE);
    // The one before may have removed it just after it was opened here.
    const [own, there] = [await file.stat(), await lstat(path).catch(ignoreMissing)];
    if (own.ino === there?.ino && native.lockFile(file.fd, 'exclusive', 0, 0)) return { file, madeFolder: made };
  } catch (thrown) {
    await file?.close();
    throw thrown;
  }
  await file.close();
  throw new NetbusError('in_use', `another process is making files in ${folder}: wait until it is done`);
}

/** A journal that says nothing any more is removed; one that does, because it could not be followed, stays for the next time. */
async function closeJournal({ file, madeFolder }: OpenJournal, path: string): Promise<void> {
  try {
    const { size } = await file.stat();
    if (size > 0) return;
    await unlink(path).catch(ignoreMissing);
    if (madeFolder !== undefined) await removeEmpty(dirname(path), madeFolder);
  } finally {
    await file.close();
  }
}

async function makeFolder(path: string, mode: number): Promise<void> {
  await mkdir(path, { mode });
  // The umask may have taken bits from the mode.
  await chmod(path, mode);
}

async function missing(folders: readonly NewFolder[]): Promise<string[]> {
  const found = await Promise.all(folders.map(({ path }) => lstat(path).catch(ignoreMissing)));
  return folders.filter((_, i) => found[i] === undefined).map(({ path }) => path);
}

async function checkFree(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const there = await lstat(path).catch(ignoreMissing);
    if (there !== undefined) throw Object.assign(new Error('it is there'), { code: 'EEXIST', path });
  }
}

function parseJournal(line: string): Journal | undefined {
  try {
    return journalSchema.parse(JSON.parse(line));
  } catch {
    return undefined;
  }
}

/** What the system says, for people. Anything else is passed on as it is. */
function told(thrown: unknown, { journal, ifTaken }: PlacementOptions): unknown {
  const { code, path, dest, message } = thrown as NodeJS.ErrnoException & { dest?: string };
  if (thrown instanceof NetbusError || typeof code !== 'string') return thrown;
  const place = (dest ?? path ?? journal).replace(STAGED, '');
  const cause = { cause: thrown };
  switch (code) {
    case 'EACCES':
    case 'EPERM': {
      const advice = process.geteuid?.() === 0 ? `see "ls -ld" and "lsattr -d" of ${folderOf(place)}` : 'run this as root';
      return new NetbusError('denied', `${place} cannot be made by this user (${code}): ${advice}`, cause);
    }
    case 'EROFS':
      return new NetbusError('denied', `${place} is on a read-only filesystem: mount it to be written, or name another`, cause);
    case 'EEXIST': {
      const advice = ifTaken === undefined ? '' : `: ${ifTaken}`;
      return new NetbusError('in_use', `${place} is there already, and nothing is overwritten${advice}`, cause);
    }
    case 'ENOTDIR':
      return new NetbusError('usage', `${place} cannot be made: a part of the path is not a folder`, cause);
    case 'ENOSPC':
    case 'EDQUOT': {
      const folder = folderOf(place);
      const advice = `make room on the filesystem of ${folder} (df ${folder}; df -i ${folder})`;
      return new NetbusError('device', `there is no room for ${place}: ${advice}`, cause);
    }
    case 'EFBIG':
      return new NetbusError('device', `${place} is larger than this user's files may be: raise "ulimit -f"`, cause);
    default:
      return new NetbusError('device', `${place} cannot be made: ${message}`, cause);
  }
}

/** The folder of a file, or the one above it that is there. */
function folderOf(path: string): string {
  const folder = dirname(path);
  return existsSync(folder) || folder === path ? folder : folderOf(folder);
}

function ignoreMissing(thrown: NodeJS.ErrnoException): undefined {
  if (thrown.code !== 'ENOENT') throw thrown;
}
