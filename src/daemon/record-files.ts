/** The file operations that records rest on: of the system's file system, or of one that a test makes. */
import { type FileHandle, mkdir, open, readdir, rename, unlink } from 'node:fs/promises';
import { getSystemErrorMap } from 'node:util';
import { native } from '../../native/index.ts';

/** Every call rejects with the system's error. Nothing of a name (made, renamed, removed) is on stable storage before `syncFolder`. */
export interface RecordFiles {
  /** With those above it; one that is there is left as it is. */
  makeFolder(folder: string, mode: number): Promise<void>;
  /** The names in a folder. */
  list(folder: string): Promise<string[]>;
  /** The content, which is on stable storage once it resolves: whoever wrote it may have been killed before it was. */
  read(path: string): Promise<string>;
  /** A file of this content, in place of one that is there; the content is on stable storage once it resolves. Half of it may be there where it rejects. */
  write(path: string, content: string, mode: number): Promise<void>;
  /** Writes over a part of a file that is there, on stable storage once it resolves. Some of it may be there where it rejects. `content` is ASCII. */
  overwrite(path: string, position: number, content: string): Promise<void>;
  /** Replaces `to` at once: whoever looks sees the old file or the new one. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  syncFolder(folder: string): Promise<void>;
}

export const systemFiles: RecordFiles = {
  async makeFolder(folder, mode) {
    await mkdir(folder, { recursive: true, mode });
  },

  list(folder) {
    return readdir(folder);
  },

  async read(path) {
    const file = await open(path, 'r');
    try {
      const content = await file.readFile('utf8');
      await file.datasync();
      return content;
    } finally {
      closeLater(file);
    }
  },

  async write(path, content, mode) {
    const file = await open(path, 'w', mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      closeLater(file);
    }
  },

  overwrite(path, position, content) {
    const bytes = Buffer.from(content, 'latin1');
    return new Promise((resolve, reject) => {
      native.writeDurably(path, position, bytes, 0, bytes.length, (result) => {
        if (result === 0) resolve();
        else reject(systemError(result, 'write', path));
      });
    });
  },

  rename,

  remove: unlink,

  async syncFolder(folder) {
    const handle = await open(folder, 'r');
    try {
      await handle.sync();
    } finally {
      closeLater(handle);
    }
  },
};

/** As those of Node's own file operations. */
function systemError(errno: number, syscall: string, path: string): Error {
  const [code, message] = getSystemErrorMap().get(errno) ?? [`E${-errno}`, 'unknown error'];
  const error = new Error(`${code}: ${message}, ${syscall} '${path}'`);
  return Object.assign(error, { code, errno, syscall, path });
}

/** What is synced is safe, whatever closing says. */
function closeLater(handle: FileHandle): void {
  handle.close().catch(() => {});
}
