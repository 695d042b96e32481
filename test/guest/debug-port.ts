/**
 * A port that a guest writes to: what it writes reaches this process at once, with the time at which it came. One port stays one stream while the guest
 * moves from QEMU to QEMU.
 */

import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';

interface Place {
  readonly socket: Socket;
  readonly chunks: { readonly data: Buffer; readonly atMs: number }[];
  ended: boolean;
}

/** What it is in the guest: the next serial port, or QEMU's debug port (isa-debugcon) at this I/O address, which needs no driver. */
export type PortPlace = 'serial' | number;

export class DebugPort {
  readonly #onData: (data: Buffer, atMs: number) => void;
  /** QEMUs that have, had or will have the guest; the first of them is the one that is listened to. */
  readonly #places: Place[] = [];

  /** `onData` gets the bytes in the order in which the guest wrote them, with the `performance.now()` of their arrival. */
  constructor(onData: (data: Buffer, atMs: number) => void) {
    this.#onData = onData;
  }

  /** QEMU's arguments for a port that is `connect`ed at the socket path. */
  static arguments(id: string, place: PortPlace, socketPath: string): string[] {
    const chardev = ['-chardev', `socket,id=${id},path=${socketPath},server=on,wait=off`];
    if (place === 'serial') return [...chardev, '-serial', `chardev:${id}`];
    return [...chardev, '-device', `isa-debugcon,iobase=${place},chardev=${id}`];
  }

  /**
   * Connects to a QEMU that has the guest, or will have it. What the next one sends is kept until the one before has ended, so that a line of which
   * each had a part stays a line.
   */
  async connect(socketPath: string): Promise<void> {
    const socket = createConnection(socketPath);
    await once(socket, 'connect');
    const place: Place = { socket, chunks: [], ended: false };
    this.#places.push(place);
    socket.on('data', (data: Buffer) => {
      place.chunks.push({ data, atMs: performance.now() });
      this.#deliver();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      place.ended = true;
      this.#deliver();
    });
  }

  close(): void {
    for (const { socket } of this.#places.splice(0)) socket.destroy();
  }

  #deliver(): void {
    for (;;) {
      const place = this.#places[0];
      if (place === undefined) return;
      for (const { data, atMs } of place.chunks.splice(0)) this.#onData(data, atMs);
      if (!place.ended) return;
      this.#places.shift();
    }
  }
}

/** The port of image/ticker.c, and the time between two ticks at the least, in milliseconds. */
const TICK_PORT = 0xe9;
const TICK_MS = 1;

/** When the guest ran: a time for each tick of image/ticker.c, on this process's clock. */
export class Ticks {
  readonly timesMs: number[] = [];
  readonly #port = new DebugPort((data, atMs) => {
    // Those that come together have waited for this process, not for the guest.
    for (let i = data.length - 1; i >= 0; i--) this.timesMs.push(Math.max(this.timesMs.at(-1) ?? 0, atMs - i * TICK_MS));
  });

  static arguments(socketPath: string): string[] {
    return DebugPort.arguments('ticks', TICK_PORT, socketPath);
  }

  connect(socketPath: string): Promise<void> {
    return this.#port.connect(socketPath);
  }

  close(): void {
    this.#port.close();
  }
}
