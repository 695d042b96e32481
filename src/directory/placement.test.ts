import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { lstatSync, readdirSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type PlacementOptions, placeFiles } from './placement.ts';

const base = await mkdtemp(join(tmpdir(), 'netbus-placement-'));
after(() => rm(base, { recursive: true }));

/** Two folders, one inside the other, and three files. */
function plan(name: string): PlacementOptions & { root: string } {
  const root = join(base, name);
  return {
    root,
    journal: join(root, 'etc', '.journal'),
    folders: [
      { path: join(root, 'etc'), mode: 0o755 },
      { path: join(root, 'etc', 'pki'), mode: 0o700 },
      { path: join(root, 'var'), mode: 0o700 },
    ],
    files: [
      { path: join(root, 'etc', 'pki', 'key'), content: 'secret', mode: 0o600 },
      { path: join(root, 'etc', 'config'), content: 'text', mode: 0o644 },
      { path: join(root, 'var', 'list'), content: Buffer.from('list'), mode: 0o644 },
    ],
  };
}

const PLACED = ['etc/config', 'etc/pki/key', 'var/list'];

/** All files below a folder, which may be missing. */
function filesBelow(root: string, folder = root): string[] {
  if (!lstatSync(folder, { throwIfNoEntry: false })) return [];
  return readdirSync(folder, { withFileTypes: true })
    .flatMap((entry) =>
      entry.isDirectory() ? filesBelow(root, join(folder, entry.name)) : [relative(root, join(folder, entry.name))],
    )
    .sort();
}

async function steps(name: string): Promise<string[]> {
  const names: string[] = [];
  await placeFiles({ ...plan(name), step: (step) => names.push(step) });
  return names;
}

test('all files are placed, with their modes under any umask', async () => {
  for (const umask of [0o000, 0o022, 0o077, 0o777]) {
    const options = plan(`umask-${umask}`);
    await mkdir(options.root);
    const before = process.umask(umask);
    try {
      await placeFiles(options);
    } finally {
      process.umask(before);
    }
    assert.deepEqual(filesBelow(options.root), PLACED);
    for (const { path, mode } of [...options.files, ...options.folders]) {
      assert.equal((await stat(path)).mode & 0o777, mode, path);
    }
    assert.equal(await readFile(options.files[0].path, 'utf8'), 'secret');
  }
});

test('a failure at any step leaves nothing, and the next try succeeds', async () => {
  const names = await steps('count');
  assert.ok(names.length >= 10, names.join(', '));
  for (const [i, name] of names.entries()) {
    const options = plan(`failure-${i}`);
    let at = 0;
    const step = () => {
      if (at++ === i) throw new Error('as a test wants it');
    };
    await assert.rejects(placeFiles({ ...options, step }), /as a test wants it/);
    assert.deepEqual(filesBelow(options.root), [], name);
    assert.ok(!lstatSync(options.root, { throwIfNoEntry: false }), `${name}: the folder that was made is gone`);
    await placeFiles(options);
    assert.deepEqual(filesBelow(options.root), PLACED);
  }
});

test('a rehearsal makes nothing that lasts, and says what a placement would', async () => {
  const options = plan('rehearsal');
  const names: string[] = [];
  await placeFiles({ ...options, rehearsal: true, step: (name) => names.push(name) });
  assert.ok(
    names.includes(`stage ${options.files[2].path}`) && !names.some((name) => name.startsWith('link')),
    names.join(', '),
  );
  assert.ok(!lstatSync(options.root, { throwIfNoEntry: false }));
  await placeFiles(options);
  const ifTaken = 'take it away';
  await assert.rejects(placeFiles({ ...options, rehearsal: true, ifTaken }), {
    code: 'in_use',
    message: `${options.files[0].path} is there already, and nothing is overwritten: take it away`,
  });
  assert.deepEqual(filesBelow(options.root), PLACED);
});

test('an abort at any step leaves nothing', async () => {
  for (const [i, name] of (await steps('count-2')).entries()) {
    const options = plan(`abort-${i}`);
    const controller = new AbortController();
    let at = 0;
    const step = () => {
      if (++at === i) controller.abort();
    };
    if (i === 0) controller.abort();
    await assert.rejects(placeFiles({ ...options, step, signal: controller.signal }), { name: 'AbortError' });
    assert.deepEqual(filesBelow(options.root), [], name);
  }
});

test('what a process that was killed at any step left is taken back by the next', async () => {
  const module = fileURLToPath(new URL('./placement.ts', import.meta.url));
  const names = await steps('count-3');
  // Each second one: a process takes a while to start, and neighbours differ little.
  for (const [i, name] of names.entries()) {
    if (i % 2 === 1 && i !== names.length - 1) continue;
    const options = plan(`killed-${i}`);
    const script = `import { placeFiles } from ${JSON.stringify(module)};
      const options = ${JSON.stringify({ ...options, files: options.files.map((file) => ({ ...file, content: 'x' })) })};
      let at = 0;
      await placeFiles({ ...options, step: () => { if (at++ === ${i}) process.kill(process.pid, 'SIGKILL'); } });`;
    const { signal, stderr } = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    assert.equal(signal, 'SIGKILL', stderr);
    await placeFiles(options);
    assert.deepEqual(filesBelow(options.root), PLACED, name);
    assert.equal(await readFile(options.files[0].path, 'utf8'), 'secret', name);
  }
});

test('a process that was killed after the commit has placed its files', async () => {
  const options = plan('committed');
  await placeFiles(options);
  const record = { version: 1, files: options.files.map(({ path }) => path), folders: options.folders.map(({ path }) => path) };
  await writeFile(options.journal, `${JSON.stringify(record)}\ncommitted\n`);
  await writeFile(`${options.files[0].path}.staged`, 'secret');
  await assert.rejects(placeFiles(options), { code: 'in_use' });
  assert.deepEqual(filesBelow(options.root), PLACED);
});

test('nothing is overwritten, neither a file nor a link', async () => {
  for (const [i, { path }] of plan('x').files.entries()) {
    const options = plan(`taken-${i}`);
    const taken = options.files[i].path;
    await mkdir(join(taken, '..'), { recursive: true });
    if (i === 1) await symlink('/nowhere', taken);
    else await writeFile(taken, 'precious');
    await assert.rejects(
      placeFiles(options),
      { code: 'in_use', message: `${taken} is there already, and nothing is overwritten` },
      path,
    );
    assert.deepEqual(filesBelow(options.root), [relative(options.root, taken)]);
    if (i !== 1) assert.equal(await readFile(taken, 'utf8'), 'precious');
  }
});

test('a file that somebody else makes in the middle stays theirs', async () => {
  const options = plan('race');
  const [, { path }] = options.files;
  const { writeFileSync } = await import('node:fs');
  const step = (name: string) => {
    if (name === `link ${path}`) writeFileSync(path, 'precious');
  };
  await assert.rejects(placeFiles({ ...options, step }), { code: 'in_use' });
  assert.deepEqual(filesBelow(options.root), ['etc/config']);
  assert.equal(await readFile(path, 'utf8'), 'precious');
});

test('two at once: one is refused', async () => {
  const options = plan('two');
  const results = await Promise.allSettled([placeFiles(options), placeFiles(options)]);
  const refused = results.filter((result) => result.status === 'rejected');
  assert.equal(refused.length, 1);
  assert.equal(refused[0].reason.code, 'in_use');
  assert.deepEqual(filesBelow(options.root), PLACED);
});

test('trouble is told in one line', async () => {
  const options = plan('trouble');
  await mkdir(options.root);
  await writeFile(join(options.root, 'etc'), '');
  await assert.rejects(placeFiles(options), (error: Error) => {
    assert.match(error.message, /etc.* cannot be made|is there already/);
    return true;
  });
});
