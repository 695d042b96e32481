/** What a daemon of host m2 may answer. */
import type { JobEntry } from '../../src/api/jobs.ts';
import type { AttachmentEntry, Devices, ExportEntry, Status } from '../../src/api/types.ts';

export const EXPORT: ExportEntry = {
  name: 'data',
  class: 'disk',
  device: '/srv/data.img',
  readOnly: false,
  shared: false,
  allow: ['m2'],
  capacityBytes: 64 * 1024 ** 2,
  state: 'ready',
  since: '2030-01-01T00:00:00Z',
  backend: { engine: 'io_uring' },
  attachments: [{ host: 'm2', vm: 'web', name: 'data', epoch: 3, active: true }],
};

export const ATTACHMENT: AttachmentEntry = {
  vm: 'web',
  name: 'data',
  device: 'm1/data',
  local: false,
  socket: '/run/netbus/web/data.sock',
  capacityBytes: 64 * 1024 ** 2,
  readOnly: false,
  queues: 1,
  qemuArguments: ['-chardev', 'socket,id=data,path=/run/netbus/web/data.sock', '-device', 'vhost-user-blk-pci,chardev=data'],
  state: 'failed',
  since: '2030-01-01T00:00:00Z',
  reason: 'the device host lost its disk',
  connected: true,
  inFlight: 2,
};

export const JOB: JobEntry = {
  ...{ id: 'j3', kind: 'swap', vm: 'web', name: 'data', from: 'm1/data', to: 'm2/new', overwrite: false, state: 'running' },
  createdAt: '2030-01-01T00:00:00Z',
  progress: {
    ...{ phase: 'copying', totalBytes: 100 * 1024 ** 2, doneBytes: 42 * 1024 ** 2, dirtyBytes: 2 * 1024 ** 2 },
    ...{ bytesPerSecond: 10 * 1024 ** 2, secondsLeft: 5.8 },
  },
};

export const STATUS: Status = {
  host: 'm2',
  cluster: 'lab',
  release: '0.1.0',
  pid: 42,
  startedAt: '2030-01-01T00:00:00Z',
  bootId: 'b',
  time: '2030-01-01T00:00:35Z',
  address: '10.0.0.2:7443',
  certificateExpiresAt: '2040-01-01T00:00:00Z',
  links: [{ host: 'm1', address: '10.0.0.1:7443', state: 'down', since: '2030-01-01T00:00:00Z', reason: 'refused' }],
  exports: [EXPORT],
  attachments: [
    {
      ...ATTACHMENT,
      rates: {
        seconds: 10,
        read: { requestsPerSecond: 1200, bytesPerSecond: 4.5 * 1024 ** 2, errorsPerSecond: 0, p50Ms: 0.12, p99Ms: 0.8 },
        write: { requestsPerSecond: 0, bytesPerSecond: 0, errorsPerSecond: 0 },
        other: { requestsPerSecond: 2.5, bytesPerSecond: 0, errorsPerSecond: 0.5 },
      },
    },
  ],
  sessions: [
    {
      role: 'device',
      peer: 'm2',
      device: 'm1/data',
      attachment: 'web/data',
      state: 'active',
      since: '2030-01-01T00:00:00Z',
      epoch: 3,
      inFlight: 4,
    },
  ],
  jobs: [JOB],
  waits: [
    {
      about: 'attachment',
      subject: 'web/data',
      waitsFor: 'm1',
      since: '2030-01-01T00:00:00Z',
      reason: 'm1 refused the connection',
    },
  ],
  warnings: ['m3 does not answer'],
};

export const DEVICES: Devices = {
  devices: [
    {
      host: 'm1',
      name: 'data',
      class: 'disk',
      capacityBytes: 10 * 1024 ** 3,
      readOnly: false,
      shared: false,
      state: 'ready',
      usedBy: ['m2:web/data'],
    },
    {
      host: 'm1',
      name: 't',
      class: 'disk',
      capacityBytes: 512,
      readOnly: true,
      shared: true,
      state: 'waiting',
      usedBy: [],
    },
  ],
  away: [{ host: 'm3', reason: 'does not answer' }],
  warnings: ['m3: does not answer'],
};
