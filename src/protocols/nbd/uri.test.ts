import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NetbusError } from '../../device/errors.ts';
import { parseNbdUri } from './uri.ts';

test('each form says where the server listens and which export is meant', () => {
  const tcp = (host: string, port: number) => ({ kind: 'tcp', host, port });
  const cases: [string, string, object, string][] = [
    ['nbd://m1', 'nbd://m1:10809/', tcp('m1', 10_809), ''],
    ['nbd://M1:10810/data', 'nbd://m1:10810/data', tcp('m1', 10_810), 'data'],
    ['nbd://192.0.2.1/a/b%20c', 'nbd://192.0.2.1:10809/a/b%20c', tcp('192.0.2.1', 10_809), 'a/b c'],
    ['nbd://[2001:db8::1]:1/x', 'nbd://[2001:db8::1]:1/x', tcp('2001:db8::1', 1), 'x'],
    ['nbd+unix:///?socket=/run/nbd.sock', 'nbd+unix:///?socket=/run/nbd.sock', { kind: 'unix', path: '/run/nbd.sock' }, ''],
    [
      'nbd+unix:///d%C3%A4ta?socket=%2Frun%2Fa%20b',
      'nbd+unix:///d%C3%A4ta?socket=/run/a%20b',
      { kind: 'unix', path: '/run/a b' },
      'däta',
    ],
  ];
  for (const [text, uri, server, exportName] of cases) assert.deepEqual(parseNbdUri(text), { uri, server, exportName }, text);
});

test('what cannot be used is refused with what to write', () => {
  const cases: [string, RegExp][] = [
    ['data.img', /no NBD URI: write nbd:\/\/HOST/],
    ['http://m1/x', /no NBD URI that Netbus knows/],
    ['nbd:///x', /does not say where/],
    ['nbd://m1:0/x', /does not say where/],
    ['nbd://me@m1/x', /names a user/],
    ['nbd://m1/x?socket=/a', /takes none/],
    ['nbd://m1/%ff', /not UTF-8/],
    ['nbd://m1/a%00b', /not UTF-8/],
    [`nbd://m1/${'x'.repeat(4097)}`, /more than 4096 bytes/],
    [`nbd://m1/${'x'.repeat(20_000)}`, /longer than/],
    ['nbd+unix:///x', /by its whole path/],
    ['nbd+unix:///x?socket=nbd.sock', /by its whole path/],
    ['nbd+unix://m1/x?socket=/a', /by its whole path/],
    [`nbd+unix:///x?socket=/${'a'.repeat(107)}`, /more than 107 bytes/],
    ['nbds://m1/x', /TLS.*nbdkit nbd/],
    ['nbds+unix:///x?socket=/a', /TLS/],
  ];
  for (const [text, message] of cases)
    assert.throws(
      () => parseNbdUri(text),
      (error: NetbusError) => error.code === 'usage' && message.test(error.message),
      text,
    );
});

test('the one form of a URI is its own, whatever the names are', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 50 }), (name) => {
      fc.pre(!name.includes('\0'));
      const target = parseNbdUri(`nbd://m1/${encodeURIComponent(name)}`);
      assert.equal(target.exportName, name);
      assert.deepEqual(parseNbdUri(target.uri), target);
    }),
  );
});

test('any text is a target or a mistake', () => {
  fc.assert(
    fc.property(
      fc.string().map((text) => `nbd${text}`),
      (text) => {
        try {
          parseNbdUri(text);
        } catch (thrown) {
          assert.ok(thrown instanceof NetbusError && thrown.code === 'usage', String(thrown));
        }
      },
    ),
  );
});
