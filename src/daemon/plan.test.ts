import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planStart, type Records } from './plan.ts';
import type { AttachmentRecord, ExportRecord } from './records.ts';

const exported = (name: string, readOnly = false): ExportRecord => {
  return { version: 1, name, disk: `/${name}`, readOnly, direct: false, allow: [], reopened: 0, createdAt: '1' };
};
const attachment = (id: string, name: string, createdAt: string) => {
  return { version: 1, id, export: name, host: 'm2', vm: 'v', name: id, createdAt } as AttachmentRecord;
};

function plan(exports: ExportRecord[], attachments: AttachmentRecord[]): string[] {
  const records: Records = {
    exports: new Map(exports.map((record) => [record.name, record])),
    attachments: new Map(attachments.map((record) => [record.id, record])),
    virtualDevices: new Map(),
  };
  return planStart(records).map((action) => {
    if (action.type === 'restore-export')
      return `export ${action.record.name}: ${action.attachments.map(({ id }) => id).join(' ')}`;
    if (action.type === 'restore-virtual-device') return `device ${action.record.name}`;
    return `${action.subject}: ${action.reason}`;
  });
}

test('an export comes back with its attachments', () => {
  assert.deepEqual(plan([exported('a'), exported('b')], [attachment('1', 'b', '1')]), ['export a: ', 'export b: 1']);
});

test('a shared export has several, oldest first', () => {
  assert.deepEqual(plan([exported('a', true)], [attachment('1', 'a', '2'), attachment('2', 'a', '1')]), ['export a: 2 1']);
});

test('an exclusive export never has two, whatever the files say', () => {
  const actions = plan([exported('a')], [attachment('1', 'a', '2'), attachment('2', 'a', '1')]);
  assert.deepEqual(actions, ['attachment 1 of m2:v/1: export a is exclusive, and attachment 2 is older', 'export a: 2']);
});

test('marks of stale copies are in nobody’s way', () => {
  const marked = (id: string, createdAt: string, state: string) =>
    ({ ...attachment(id, 'a', createdAt), copy: { state } }) as AttachmentRecord;
  assert.deepEqual(
    plan([exported('a')], [marked('1', '1', 'superseded'), marked('2', '2', 'filling'), attachment('3', 'a', '3')]),
    ['export a: 1 2 3'],
  );
  assert.deepEqual(
    plan([exported('a')], [attachment('1', 'a', '1'), marked('2', '2', 'aborted'), marked('3', '3', 'complete')]),
    ['attachment 3 of m2:v/3: export a is exclusive, and attachment 1 is older', 'export a: 1 2'],
  );
});

test('an attachment without its export is told', () => {
  assert.deepEqual(plan([], [attachment('1', 'a', '1')]), ['attachment 1 of m2:v/1: export a is not there any more']);
});
