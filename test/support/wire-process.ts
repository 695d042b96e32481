/** The process of `wire.ts`: proxies in a host's network, which do what the parent says. */
import { systemClock } from '../../src/lib/clock.ts';
import { TcpProxy } from './tcp-proxy.ts';
import type { WireCommand, WireReply } from './wire.ts';

const paths = new Map<string, TcpProxy[]>();

async function execute(command: WireCommand): Promise<void> {
  switch (command.what) {
    case 'listen': {
      const proxy = await TcpProxy.listen(command.listen, command.target, systemClock);
      const proxies = paths.get(command.path);
      if (proxies === undefined) paths.set(command.path, [proxy]);
      else proxies.push(proxy);
      return;
    }
    case 'set':
      for (const proxy of paths.get(command.path) ?? []) proxy.set(command.conditions);
      return;
  }
}

process.on('message', ({ id, command }: { id: number; command: WireCommand }) => {
  const answer = (error?: string) => process.send?.({ id, ...(error !== undefined && { error }) } satisfies WireReply);
  execute(command).then(
    () => answer(),
    (error: Error) => answer(error.message),
  );
});
process.on('disconnect', () => process.exit());
// Ctrl-C reaches the whole process group; the parent decides.
process.on('SIGINT', () => {});
