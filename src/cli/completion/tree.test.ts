import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Argument, Command, Option } from 'commander';
import { bashScript } from './bash.ts';
import { argumentBranches, commandSubjects, optionBranches } from './cases.ts';
import { fishScript } from './fish.ts';
import { commandTree } from './tree.ts';
import { zshScript } from './zsh.ts';

function program(): Command {
  const made = new Command('netbus').version('1').option('--run-dir <dir>', 'where').option('--json', 'as JSON');
  made.command('evict').summary('put a host out').argument('<host>', 'which').option('-f, --force', "don't ask");
  const keys = made.command('keys').description('keys');
  keys
    .command('renew')
    .argument('[vm/name...]', 'which')
    .addOption(new Option('--format <format>', 'how').choices(['a', 'b']))
    .addOption(new Option('--secret <file>', 'hidden').hideHelp());
  made.command('shell').addArgument(new Argument('<shell>', 'which').choices(['bash', 'zsh']));
  made.command('hidden', { hidden: true });
  return made;
}

test("a verb appears with what its definition says: summary, options, arguments' kinds, verbs below it", () => {
  const tree = commandTree(program());
  assert.deepEqual(
    tree.map(({ path }) => path),
    ['', 'evict', 'keys', 'keys renew', 'keys help', 'shell', 'help'],
  );
  assert.deepEqual(commandSubjects(tree).slice(0, 2), [' evict', ' keys']);
  const evict = tree[1];
  assert.deepEqual(
    evict.flags.map(({ name }) => name),
    ['--force', '--help', '--run-dir', '--json'],
  );
  assert.equal(tree[0].commands[0].description, 'put a host out');
  assert.ok(tree[0].flags.some(({ name }) => name === '--version'));
});

test('branches: by placeholder, by choices, of the program behind every verb', () => {
  const tree = commandTree(program());
  const options = optionBranches(tree);
  assert.deepEqual(options, [
    { subject: 'keys renew --format', match: 'all of it', value: 'choices a b' },
    { subject: ' --run-dir', match: 'its end', value: 'folders' },
  ]);
  const byArgument = Object.fromEntries(argumentBranches(tree).map(({ subject, value }) => [subject, value]));
  assert.equal(byArgument['evict 1'], 'names host');
  assert.equal(byArgument['keys renew '], 'names attachment');
  assert.equal(byArgument['shell 1'], 'choices bash zsh');
});

test('descriptions with quotes do not end the text that they stand in', () => {
  const tree = commandTree(program());
  assert.match(zshScript(tree), /'--force:don'\\''t ask'/);
  assert.match(fishScript(tree), /'--force\tdon\\'t ask'/);
  assert.match(bashScript(tree), /evict\) commands=\(\) options=\(--force --help --run-dir --json\)/);
});
