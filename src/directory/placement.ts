/**
 * Places several new files at once: all of them, or none, whatever ends the process in the middle; and never over one that is there.
 *
 * A journal says first which files there will be. Each is then written beside its place (NAME.staged), and when all are on stable storage each gets its name by
 * link(2), which fails where the name is taken. Until the journal says "committed", whoever finds it takes everything back: a file in its place is ours as
 * long as it is the same inode as the staged one. After that only the staged names are left to remove.
 */
import { chmod, type FileHandle, link, lstat, mkdir, open, rmdir, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { native } from '../../native/index.ts';
import { NetbusError } from '../device/errors.ts';
import { syncFolder, writeNew } from './durable-file.ts';

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
  const journal = await openJournal(options.journal);
  try {
    await undoEarlier(journal.file);
    const record: Journal = {
      version: 1,
      files: options.files.map(({ path }) => path),
      folders: await missing(options.folders),
    };
    await checkFree(record.files);
    try {
      await place(journal.file, record, options);
    } catch (thrown) {
      await undo(record);
      await journal.file.truncate(0);
      throw thrown;
    }
    await removeStaged(record);
    await unlink(options.journal);
  } catch (thrown) {
    await closeUnused(journal, options.journal);
    throw told(thrown);
  } finally {
    await journal.file.close();
  }
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

async function place(journal: FileHandle, record: Journal, { folders, files, signal, step }: PlacementOptions): Promise<void> {
  const next = (name: string) => {
    signal?.throwIfAborted();
    step?.(name);
  };
  next('journal');
  await journal.truncate(0);
  await journal.write(JSON.stringify(record), 0);
  await journal.sync();
  for (const { path, mode } of folders) {
    if (!record.folders.includes(path)) continue;
    next(`folder ${path}`);
    await makeFolder(path, mode);
  }
  for (const { path, content, mode } of files) {
    next(`stage ${path}`);
    await writeNew(path + STAGED, content, mode);
  }
  for (const { path } of files) {
    next(`link ${path}`);
    await link(path + STAGED, path);
  }
  next('sync');
  for (const folder of new Set([...files.map(({ path }) => dirname(path)), ...record.folders.map((path) => dirname(path))])) {
    await syncFolder(folder);
  }
  next('commit');
  const { size } = await journal.stat();
  await journal.write(COMMITTED, size);
  await journal.sync();
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
    throw told(thrown);
  }
  await file.close();
  throw new NetbusError('in_use', `another process is making files in ${folder}: wait until it is done`);
}

/** After a failure: a journal that says nothing any more is removed; one that does stays for the next time. */
async function closeUnused({ file, madeFolder }: OpenJournal, path: string): Promise<void> {
  const { size } = await file.stat();
  if (size > 0) return;
  await unlink(path).catch(ignoreMissing);
  if (madeFolder !== undefined) await removeEmpty(dirname(path), madeFolder);
}

/** From `folder` up to `top`, as far as they are empty. */
async function removeEmpty(folder: string, top: string): Promise<void> {
  for (let each = folder; each.startsWith(top); each = dirname(each)) {
    const removed = await rmdir(each).then(
      () => true,
      () => false,
    );
    if (!removed) return;
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
    const taken = await lstat(path).catch(ignoreMissing);
    if (taken !== undefined) throw new NetbusError('in_use', `${path} is there already, and nothing is overwritten`);
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
function told(thrown: unknown): unknown {
  const { code, path, dest, message } = thrown as NodeJS.ErrnoException & { dest?: string };
  if (thrown instanceof NetbusError || typeof code !== 'string') return thrown;
  const place = (dest ?? path ?? '').replace(STAGED, '');
  switch (code) {
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new NetbusError('denied', `${place} cannot be made by this user (${code}): run this as root`, { cause: thrown });
    case 'EEXIST':
      return new NetbusError('in_use', `${place} is there already, and nothing is overwritten`, { cause: thrown });
    case 'ENOTDIR':
      return new NetbusError('usage', `${place} cannot be made: a part of the path is not a folder`, { cause: thrown });
    default:
      return new NetbusError('device', `${place || 'a file'} cannot be made: ${message}`, { cause: thrown });
  }
}

function ignoreMissing(thrown: NodeJS.ErrnoException): undefined {
  if (thrown.code !== 'ENOENT') throw thrown;
}
