/** A guest that works on one disk (fio verifies, a writer says what it was told is written), and what it gets done meanwhile. */
import { join } from 'node:path';
import { DebugPort } from '../../test/guest/debug-port.ts';
import { type Guest, startGuest } from '../../test/guest/guest.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import { gapsMs } from '../../test/support/gaps.ts';
import type { Host } from '../../test/support/hosts.ts';
import { waitFor } from '../../test/support/wait.ts';
import { FioGuest } from '../faults/fio-guest.ts';
import {
  BlockRecorder,
  checkImage,
  type ImageFindings,
  WRITER_END,
  WRITER_PORT,
  writerCommand,
} from '../migration/recorder.ts';

const MIB = 1024 * 1024;
const SECTOR_BYTES = 512;
/** fio has the disk's beginning, the writer what comes after it. */
const FIO = { disk: 'vda', sizeMiB: 32, depth: 16, blockKiBMax: 64 };
const WRITER_BLOCKS = 1024;
/** All that they write to. */
export const WORK_MIB = 64;
/** Generous: it ends what hangs, and says nothing about speed. In milliseconds. */
const WORK_MS_MAX = 60_000;
const ANSWERS = 20;

/** What a guest got done in a part of the time. */
export interface Done {
  /** Read and written. */
  readonly bytesPerSecond: number;
  /** The times between one answer to the writer and the next, on this process's clock. */
  readonly gapsMs: readonly number[];
}

/** A look at the guest. */
interface Look {
  /** By the guest's clock, in seconds. */
  readonly uptime: number;
  readonly bytes: number;
  /** On this process's clock. */
  readonly atMs: number;
}

export class WorkGuest {
  readonly guest: Guest;
  readonly #recorder: BlockRecorder;
  readonly #answeredAtMs: number[];
  readonly #port: DebugPort;
  readonly #fio: FioGuest;
  #look: Look;

  static async boot(name: string, host: Host, disk: readonly string[], seed: number, cleanup: Cleanup): Promise<WorkGuest> {
    const recorder = new BlockRecorder(WRITER_BLOCKS, seed);
    const answeredAtMs: number[] = [];
    const port = new DebugPort((data, atMs) => {
      const before = recorder.acknowledged;
      recorder.feed(data);
      if (recorder.acknowledged > before) answeredAtMs.push(atMs);
    });
    const path = join(host.folder, `${name}.port`);
    const guest = await startGuest({
      ...{ name, cleanup, host, fio: true },
      arguments: [...disk, ...DebugPort.arguments('writer', WRITER_PORT, path)],
    });
    await port.connect(path);
    cleanup.add(`the port of ${name}`, () => port.close());
    const fio = await FioGuest.start(guest, [FIO], seed);
    await guest.succeed(writerCommand(FIO.sizeMiB * MIB, WRITER_BLOCKS, seed));
    await waitFor('the guest to write', () => recorder.acknowledged >= ANSWERS, WORK_MS_MAX);
    return new WorkGuest({ guest, recorder, answeredAtMs, port, fio, look: await lookAt(guest) });
  }

  private constructor(parts: {
    guest: Guest;
    recorder: BlockRecorder;
    answeredAtMs: number[];
    port: DebugPort;
    fio: FioGuest;
    look: Look;
  }) {
    this.guest = parts.guest;
    this.#recorder = parts.recorder;
    this.#answeredAtMs = parts.answeredAtMs;
    this.#port = parts.port;
    this.#fio = parts.fio;
    this.#look = parts.look;
  }

  /** What it does from now on is counted. */
  async begin(): Promise<void> {
    this.#look = await lookAt(this.guest);
  }

  /** Since `begin`, or since this was asked last. */
  async done(): Promise<Done> {
    const before = this.#look;
    const now = await lookAt(this.guest);
    this.#look = now;
    const seconds = now.uptime - before.uptime;
    const span = { fromMs: before.atMs, toMs: now.atMs };
    return {
      bytesPerSecond: (now.bytes - before.bytes) / seconds,
      gapsMs: gapsMs([...this.#answeredAtMs, now.atMs], span),
    };
  }

  /** The disk answers; what is wrong with it, in words. */
  problems(): Promise<string[]> {
    return this.#fio.problems(WORK_MS_MAX);
  }

  /** Ends the work and the guest. */
  async end(): Promise<void> {
    await this.#fio.stop();
    await this.guest.succeed(WRITER_END);
    await this.guest.powerOff();
    this.#port.close();
  }

  /** After `end`: what of the writer's is not in the image. */
  check(imagePath: string): ImageFindings {
    return checkImage(this.#recorder, imagePath, FIO.sizeMiB * MIB);
  }
}

async function lookAt(guest: Guest): Promise<Look> {
  const fields = (await guest.succeed('cat /proc/uptime /sys/block/vda/stat')).trim().split(/\s+/).map(Number);
  const atMs = performance.now();
  const [uptime, , , , readSectors, , , , writtenSectors] = fields;
  return { uptime: uptime!, bytes: (readSectors! + writtenSectors!) * SECTOR_BYTES, atMs };
}
