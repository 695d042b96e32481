import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type ErrorCode, NetbusError } from '../device/errors.ts';
import { ControlClient, controlSocket } from './client.ts';

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nb-api-'));
});
after(() => rmSync(folder, { recursive: true }));

/** Runs `use` with a client of a server that answers by `listener`. */
async function withServer(
  listener: RequestListener,
  use: (client: ControlClient) => Promise<void>,
  timeoutMs = 5_000,
): Promise<void> {
  const socketPath = join(folder, 'netbus.sock');
  const server: Server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  try {
    await use(new ControlClient({ socketPath, timeoutMs }));
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

async function rejectsWith(code: ErrorCode, message: RegExp, promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof NetbusError);
    assert.equal(error.code, code);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

test('each call is its request', async () => {
  const seen: string[] = [];
  const listener: RequestListener = (request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      seen.push(`${request.method} ${request.url} ${request.headers['content-type'] ?? '-'} ${body}`.trim());
      response.setHeader('content-type', 'application/json').end('{"answer":true}');
    });
  };
  await withServer(listener, async (client) => {
    assert.deepEqual(await client.status(), { answer: true });
    await client.devices();
    await client.export({ name: 'a', disk: '/b', allow: ['m2'] });
    await client.unexport('a b');
    await client.attach({ device: 'm1/a', vm: 'v' });
    await client.detach('v', 'a/b');
    await client.detach('v', 'a', { force: true });
    await client.grow('v', 'a');
  });
  assert.deepEqual(seen, [
    'GET /v1/status -',
    'GET /v1/devices -',
    'POST /v1/exports application/json {"name":"a","disk":"/b","allow":["m2"]}',
    'DELETE /v1/exports/a%20b -',
    'POST /v1/attachments application/json {"device":"m1/a","vm":"v"}',
    'DELETE /v1/attachments/v/a%2Fb -',
    'DELETE /v1/attachments/v/a?force=true -',
    'POST /v1/attachments/v/a/grow -',
  ]);
});

test('an error of the daemon keeps its code and message; an unknown code is internal', async () => {
  const answers: [number, string, ErrorCode][] = [
    [404, 'not_found', 'not_found'],
    [409, 'in_use', 'in_use'],
    [418, 'of_the_future', 'internal'],
    [500, 'toString', 'internal'],
  ];
  for (const [status, code, expected] of answers) {
    await withServer(
      (_request, response) => response.writeHead(status).end(JSON.stringify({ error: { code, message: `the ${code} case` } })),
      (client) => rejectsWith(expected, new RegExp(`^the ${code} case$`), client.status()),
    );
  }
});

test('no daemon: unreachable, and what to do', async () => {
  await rejectsWith(
    'unreachable',
    /systemctl start netbusd, or netbus daemon; before that "netbus init" or "netbus join TOKEN"/,
    new ControlClient({ socketPath: join(folder, 'none') }).status(),
  );
  writeFileSync(join(folder, 'file'), '');
  await rejectsWith('unreachable', /--run-dir/, new ControlClient({ socketPath: join(folder, 'file') }).status());
  await rejectsWith('unreachable', /--run-dir/, new ControlClient({ socketPath: join(folder, 'file', 'below') }).status());
});

test('a socket path that is too long', async () => {
  const client = new ControlClient({ socketPath: controlSocket(`/tmp/${'x'.repeat(100)}`) });
  await rejectsWith('usage', /longer than the 107 bytes/, client.status());
});

test('a daemon that hangs up, one that never answers, and something else at the socket', async () => {
  await withServer(
    (request) => request.socket.destroy(),
    (client) => rejectsWith('unreachable', /ended before it answered/, client.status()),
  );
  await withServer(
    () => {},
    (client) => rejectsWith('timeout', /took longer than 0.05 s/, client.status()),
    50,
  );
  await withServer(
    (_request, response) => response.writeHead(502).end('<html>Bad gateway'),
    (client) => rejectsWith('protocol', /without JSON/, client.status()),
  );
  for (const body of ['null', '{}', '{"error":null}', '[1]', '"text"']) {
    await withServer(
      (_request, response) => response.writeHead(500).end(body),
      (client) => rejectsWith('protocol', /without an error/, client.status()),
    );
  }
  await withServer(
    (_request, response) => {
      response.writeHead(200, { 'content-length': 100 }).write('{');
      response.destroy();
    },
    (client) => rejectsWith('unreachable', /ended before it answered/, client.status()),
  );
});
