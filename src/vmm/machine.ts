/**
 * Whether a running QEMU can take a vhost-user disk. Everything is looked at before anything is changed, because QEMU itself takes the disk also
 * where the guest could never use it (its memory is not shared), or stops altogether.
 */
import { NetbusError } from '../device/errors.ts';
import { isObject } from '../protocols/qmp/message.ts';
import { type QmpConnection, refusalOf } from './qmp-connection.ts';
import { getProperty, listProperties } from './qom.ts';

/** What a machine's run state (query-status) means for plugging. */
export type RunState =
  /** The guest runs. */
  | 'running'
  /** It does not, and goes on by `cont`. */
  | 'paused'
  /** It does not go on from here. */
  | 'ended';

/** The state, with QEMU's own word for it. */
export async function runState(qmp: QmpConnection): Promise<{ state: RunState; word: string }> {
  const answer = await qmp.execute('query-status');
  const word = isObject(answer) && typeof answer.status === 'string' ? answer.status : 'unknown';
  switch (word) {
    case 'running':
      return { state: 'running', word };
    case 'paused':
    case 'debug':
    case 'watchdog':
    case 'prelaunch':
    case 'suspended':
    case 'io-error':
    case 'save-vm':
    case 'restore-vm':
      return { state: 'paused', word };
    default:
      // shutdown, internal-error, guest-panicked, inmigrate, postmigrate, finish-migrate, colo, and what later releases add.
      return { state: 'ended', word };
  }
}

/** Throws where nothing can be plugged in as the machine is now. Returns a warning, or undefined. */
export async function checkRunState(qmp: QmpConnection): Promise<string | undefined> {
  const { state, word } = await runState(qmp);
  switch (state) {
    case 'running':
      return undefined;
    case 'paused':
      return `the VM does not run (${word}): its guest sees the device when it goes on`;
    case 'ended':
      throw new NetbusError('device', `the VM takes no device now: its state is "${word}" (query-status)${advice(word)}`);
  }
}

function advice(word: string): string {
  switch (word) {
    case 'shutdown':
    case 'guest-panicked':
    case 'internal-error':
      return '; reset it (system_reset and cont), or start it anew';
    case 'inmigrate':
    case 'finish-migrate':
      return '; wait until the migration is over';
    case 'postmigrate':
      return '; it runs on another host now';
    default:
      return '';
  }
}

/** Memory that a backend can share with us: it has a file descriptor. memory-backend-ram has none, not even with share=on, before QEMU 10. */
const RAM_WITHOUT_FD = 'memory-backend-ram';
const RAM_WITH_FD_FROM_MAJOR = 10;

/** Throws `config` where a part of the guest's memory is not shared: its requests could never be carried out. */
export async function checkSharedMemory(qmp: QmpConnection): Promise<void> {
  const answer = await qmp.execute('query-memdev');
  const backends = Array.isArray(answer) ? answer.filter(isObject) : [];
  // Without any, the machine keeps its memory to itself.
  if (backends.length === 0) throw privateMemory('the VM has no memory backend');
  const types = new Map((await listProperties(qmp, '/objects'))?.map(({ name, type }) => [name, type]));
  for (const { id, share } of backends) {
    const name = typeof id === 'string' ? id : 'without an id';
    if (share !== true) throw privateMemory(`memory backend ${name} has share=off`);
    if (types.get(name) === `child<${RAM_WITHOUT_FD}>` && qmp.greeting.version.major < RAM_WITH_FD_FROM_MAJOR) {
      throw privateMemory(`memory backend ${name} is a ${RAM_WITHOUT_FD}, which nobody else can map`);
    }
  }
}

function privateMemory(what: string): NetbusError {
  return new NetbusError(
    'config',
    `the guest's memory is not shared (${what}), which a vhost-user device needs: start QEMU with -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine ...,memory-backend=mem (SIZE as in -m)`,
  );
}

/** Throws `in_use` where QEMU has a device or a chardev of this id. */
export async function checkIdFree(qmp: QmpConnection, id: string): Promise<void> {
  if ((await listProperties(qmp, `/machine/peripheral/${id}`)) !== undefined) {
    throw new NetbusError(
      'in_use',
      `the VM has a device ${id} already: take it out first (QMP device_del), or choose another name with --as`,
    );
  }
  if ((await listProperties(qmp, `/chardevs/${id}`)) !== undefined) {
    throw new NetbusError(
      'in_use',
      `QEMU has a chardev ${id} already: if no device uses it, remove it (QMP chardev-remove), or choose another name with --as`,
    );
  }
}

/** What QEMU calls the VM (-name), where it does. */
export async function machineName(qmp: QmpConnection): Promise<string | undefined> {
  try {
    const answer = await qmp.execute('query-name');
    return isObject(answer) && typeof answer.name === 'string' ? answer.name : undefined;
  } catch (thrown) {
    if (refusalOf(thrown) !== undefined) return undefined;
    throw thrown;
  }
}

/** The machine type, such as pc-q35-7.2. */
export async function machineType(qmp: QmpConnection): Promise<string> {
  const type = await getProperty(qmp, '/machine', 'type');
  return typeof type === 'string' ? type.replace(/-machine$/, '') : 'unknown';
}
