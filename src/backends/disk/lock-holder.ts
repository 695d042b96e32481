import { readdir, readFile, readlink, realpath } from 'node:fs/promises';

/**
 * Who has a lock on the file, for a message: "qemu-system-x86 (pid 123)". The kernel names no owner of an open-file lock, so
 * it is looked for among the open files of all processes that we may look into. Undefined where nobody is found.
 */
export async function lockHolder(path: string): Promise<string | undefined> {
  const target = await realpath(path).catch(() => path);
  const processes = await list('/proc');
  for (const pid of processes) {
    if (!/^\d+$/.test(pid)) continue;
    for (const fd of await list(`/proc/${pid}/fd`)) {
      if ((await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')) !== target) continue;
      if (!(await text(`/proc/${pid}/fdinfo/${fd}`)).includes('lock:')) continue;
      if (Number(pid) === process.pid) return 'netbusd itself, which has it open for another export';
      return `${(await text(`/proc/${pid}/comm`)).trim()} (pid ${pid})`;
    }
  }
  return undefined;
}

function list(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => []);
}

function text(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}
