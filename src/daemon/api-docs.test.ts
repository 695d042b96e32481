/** docs/api.md and the code say the same: paths, requests, errors, event types. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { eventEntrySchema, eventTypes } from '../api/events.ts';
import { attachRequestSchema, exportRequestSchema } from '../api/types.ts';
import { errorCodes } from '../device/errors.ts';
import { createRoutes, type RoutesOptions } from './routes.ts';

const text = readFileSync(new URL('../../docs/api.md', import.meta.url), 'utf8');
/** None of them is called: the paths are what is looked at. */
const app = createRoutes({} as RoutesOptions);
const routes = new Set(app.routes.filter(({ method }) => method !== 'ALL').map(({ method, path }) => `${method} ${path}`));
const headings = [...text.matchAll(/^### ([A-Z]+ \/\S*)$/gm)].map(([, route]) => route);

interface Example {
  method: string;
  path: string;
  body: string | undefined;
}

/** Of the curl commands. */
const examples = [...text.matchAll(/```sh\n(curl [\s\S]*?)\n```/g)].map(([, command]): Example => {
  const body = /-d '([^']*)'/.exec(command)?.[1];
  const method = /-X ([A-Z]+)/.exec(command)?.[1] ?? (body === undefined ? 'GET' : 'POST');
  const url = new URL(/http:\/\/netbus\/[^\s']*/.exec(command)![0]);
  return { method, path: url.pathname, body };
});

test('each route is documented, and nothing else', () => {
  assert.deepEqual([...headings].sort(), [...routes].sort());
});

test('each example is of a route, and each route has one', () => {
  const matches = ({ method, path }: Example, route: string) => {
    const [routeMethod, routePath] = route.split(' ');
    return method === routeMethod && new RegExp(`^${routePath.replace(/:\w+/g, '[^/]+')}$`).test(path);
  };
  for (const example of examples) {
    assert.ok(
      [...routes].some((route) => matches(example, route)),
      `${example.method} ${example.path}`,
    );
  }
  for (const route of routes)
    assert.ok(
      examples.some((example) => matches(example, route)),
      `an example of ${route}`,
    );
});

test('the requests of the examples are taken as they are', () => {
  const schemas: Record<string, { parse(value: unknown): object }> = {
    '/v1/exports': exportRequestSchema,
    '/v1/attachments': attachRequestSchema,
  };
  const checked = examples.filter(({ path, body }) => body !== undefined && Object.hasOwn(schemas, path));
  assert.ok(checked.length >= 2);
  for (const { path, body } of checked) {
    const value: unknown = JSON.parse(body!);
    assert.deepEqual(schemas[path].parse(value), value, path);
  }
});

test('the answers of the examples are JSON, and the event is one', () => {
  const answers = [...text.matchAll(/```json\n([\s\S]*?)\n```/g)].map(([, json]) => JSON.parse(json) as { events?: unknown[] });
  const events = answers.flatMap((answer) => answer.events ?? []);
  assert.ok(events.length > 0);
  for (const event of events) assert.deepEqual(eventEntrySchema.parse(event), event);
});

test('the tables of errors and event types are complete and true', () => {
  const errors = [...text.matchAll(/^\| `(\w+)` \| (\d+) \| (\d+) \|/gm)].map(([, code, http, exit]) => [code, +http, +exit]);
  const expected = Object.entries(errorCodes).map(([code, { exit, http }]) => [code, http, exit]);
  assert.deepEqual(errors.sort(), expected.sort());
  const types = [...text.matchAll(/^\| `([\w.-]+)` \| (\w+) \| (info|warning|error) \| \S/gm)].map(([, ...row]) => row);
  assert.deepEqual(
    types,
    Object.entries(eventTypes).map(([type, { about, severity }]) => [type, about, severity]),
  );
});
