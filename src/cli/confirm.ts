/** What cannot be undone is asked first: a person is, and a script has to say that it means it. */
import { createInterface } from 'node:readline';
import { NetbusError } from '../device/errors.ts';
import type { Context } from './context.ts';

/** Asks `question`. Throws `usage` with `unasked` where there is nobody to ask, and with `refused` where the answer is no. */
export async function confirm(context: Context, question: string, texts: { unasked: string; refused: string }): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) throw new NetbusError('usage', texts.unasked);
  const answer = await ask(context, `${question} [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim())) throw new NetbusError('usage', texts.refused);
}

/** What is typed, without the end of the line; nothing at the end of the input (Ctrl-D). Ctrl-C is what it is everywhere. */
function ask(context: Context, question: string): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  return new Promise((resolve) => {
    // The question stays on its line, whatever comes.
    const leave = (then: () => void) => () => {
      terminal.off('close', atEnd);
      terminal.close();
      process.stderr.write('\n');
      then();
    };
    const atEnd = leave(() => resolve(''));
    terminal.on('close', atEnd);
    terminal.on('SIGINT', leave(context.interrupt));
    terminal.question(question, (answer) => {
      terminal.off('close', atEnd);
      terminal.close();
      resolve(answer);
    });
  });
}
