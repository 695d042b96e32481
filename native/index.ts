/**
 * The system calls that Node does not have, and TLS on a socket (docs/decisions/0009). No policy lives here: every function does one thing, checks its bounds in C,
 * and leaves decisions to the caller.
 *
 * Two styles of failure, by how often a function is called:
 * - set-up functions throw an Error with `code` ("ENOENT", …), `errno` (positive) and `syscall`;
 * - functions of the data path (marked "hot") return a negative errno and never throw for what the world can do.
 *   They throw a RangeError or TypeError for arguments that only a bug can produce.
 *
 * The message of an Error starts with code and system call: "ENOENT: bind /run/x.sock (No such file or directory)".
 *
 * Memory that system calls use lives in regions. A region is a mapping known by a small integer handle. I/O in flight keeps
 * its region mapped: `unmapRegion` takes the owner's reference away, and the pages go when the last user is done.
 */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Outcome of `receiveMessage`. */
export interface ReceivedMessage {
  /** Bytes written into the buffer; 0 means the peer closed; negative errno otherwise (-EAGAIN: nothing there). */
  bytes: number;
  /** Descriptors that came along (close-on-exec); the caller owns them. */
  fds: number[];
}

/** What `ioCreate` is asked for. */
export interface IoOptions {
  /** Most operations in flight at a time, 1 to 4096. */
  entries: number;
  /** `io_uring` throws (ENOSYS, EPERM, …) where it is forbidden; `threads` runs each operation on libuv's pool. */
  engine: 'io_uring' | 'threads';
}

/** Operation codes of `ioSubmit`. */
export const IoOp = {
  /** preadv: fills the segments from `position`. Result: all bytes, fewer at the end of the file only. */
  read: 1,
  /** pwritev: writes the segments at `position`. Result: all bytes or an error, never fewer (some may be written then). */
  write: 2,
  /** pwritev2 with RWF_DSYNC: as write, on stable storage when it completes. */
  writeDurable: 3,
  /** fdatasync. */
  flush: 4,
  /** fallocate(FALLOC_FL_PUNCH_HOLE | KEEP_SIZE) of `length` bytes at `position`. */
  punchHole: 5,
  /** fallocate(FALLOC_FL_ZERO_RANGE | KEEP_SIZE): zeroes, blocks stay allocated. */
  zeroRange: 6,
  /** ioctl(BLKDISCARD), on a pool thread in both engines. */
  blockDiscard: 7,
  /** ioctl(BLKZEROOUT), on a pool thread in both engines. */
  blockZeroOut: 8,
} as const;

/**
 * Doubles per operation in the submission array, before its segments: op, fd, tag, position, length, segment count. `tag` is
 * any number. Reads and writes take their length from the segments and ignore `length`; the other operations have no segments.
 */
export const IO_OPERATION_WORDS = 6;
/** Doubles per segment in the submission array: region handle, offset, length. */
export const IO_SEGMENT_WORDS = 3;
/** Doubles per completion: tag, result (bytes, 0, or a negative errno). */
export const IO_COMPLETION_WORDS = 2;
/** Most segments of one operation (IOV_MAX). */
export const IO_SEGMENTS_MAX = 1024;

/** Ranges of one answer of `dataExtents`. */
export const EXTENTS_MAX = 1000;

/** Least room of `tlsRead`: twice what a record may have left unfinished. */
export const TLS_READ_BYTES_MIN = 2 * (16_384 + 256 + 5);

/** Result of `blockDevice`. */
export interface BlockDeviceInfo {
  sizeBytes: number;
  logicalBlockBytes: number;
  physicalBlockBytes: number;
  readOnly: boolean;
}

/**
 * The addon's functions. Handles (of regions, watches, engines and TLS) are positive 31-bit integers of the calling thread's
 * environment, at most 16384 of each kind at a time, and no handle is ever given twice: a stale one is a RangeError.
 */
export interface Native {
  // --- regions -----------------------------------------------------------------------------------------------------
  /**
   * Maps `length` bytes of `fd` at `offset` (page aligned; on hugetlbfs, huge-page aligned), shared, read and write. Throws
   * EINVAL where the file is shorter than offset + length or no regular file. Tries to seal a memfd against shrinking; where
   * that is not possible a page that disappears later reads as zeroes instead of killing the process (see `regionFaults`;
   * a system call that meets such a page first returns -EFAULT instead). The descriptor may be closed afterwards.
   */
  mapRegion(fd: number, offset: number, length: number): number;
  /** A private anonymous region, zeroed; its pages cost nothing until they are used. */
  allocateRegion(length: number): number;
  /**
   * A window: an ArrayBuffer straight over region bytes [offset, offset + length), at most 4 GiB - 1. The same memory as the
   * guest's, so it changes while it is looked at. `unmapRegion` detaches it (byteLength becomes 0). The same range gives the
   * same ArrayBuffer while that is alive. Never call its `transfer()`: the copy that this makes would not be detached.
   */
  regionWindow(region: number, offset: number, length: number): ArrayBuffer;
  /** Hot. Copies between regions; the ranges may overlap. */
  copyRegion(target: number, targetOffset: number, source: number, sourceOffset: number, length: number): void;
  /** Times that the region's backing file turned out to be gone under an access (SIGBUS, answered with a zero page). */
  regionFaults(region: number): number;
  /** Ends the owner's use: detaches all windows; unmapped now, or when the last I/O in flight on it completes. */
  unmapRegion(region: number): void;
  /** Regions that are still mapped in this environment, those that only I/O in flight keeps included (for leak tests). */
  regionCount(): number;

  // --- descriptors -------------------------------------------------------------------------------------------------
  close(fd: number): void;
  /** fcntl(F_DUPFD_CLOEXEC): the same open file, the lowest free descriptor from 3 on. */
  duplicate(fd: number): number;
  /** memfd_create with MFD_CLOEXEC | MFD_ALLOW_SEALING, `length` bytes long. */
  createMemoryFile(name: string, length: number): number;
  /** eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC). */
  createEvent(): number;
  /** Hot. Adds 1. Returns 0 or a negative errno (-EAGAIN: counter full; harmless). */
  signalEvent(fd: number): number;
  /** Hot. Takes the counter to 0 and returns its old value (0 where it was 0), or a negative errno. */
  drainEvent(fd: number): number;
  /** O_NONBLOCK on. */
  setNonBlocking(fd: number): void;

  // --- readiness ---------------------------------------------------------------------------------------------------
  /**
   * Watches `fd` on this thread's event loop (uv_poll, level-triggered): `callback(error, readable, writable)`, error a
   * negative errno or 0. Keeps the loop alive until `unwatch`. Microtasks run after each callback, as after any of Node's;
   * what it throws is an uncaught exception of the process.
   *
   * An error is the socket's own (SO_ERROR, which this takes), else -EIO; nothing more is reported until `rewatch`. libuv sets
   * O_NONBLOCK. Throws EEXIST where the descriptor is watched already, EPERM for one that cannot be polled (a regular file).
   */
  watch(
    fd: number,
    interest: { readable: boolean; writable: boolean },
    callback: (error: number, readable: boolean, writable: boolean) => void,
  ): number;
  /** Changes what a watch waits for; nothing at all is allowed, and the loop is still kept alive. */
  rewatch(watch: number, interest: { readable: boolean; writable: boolean }): void;
  /** Ends a watch; its callback is not called again, and the descriptor may be closed right after. Twice is once. */
  unwatch(watch: number): void;
  /**
   * Hot. For so many microseconds from now (1000 at most; 0 ends it) this thread's event loop polls instead of sleeping: an event that comes
   * meanwhile costs no wake-up, and the processor is busy.
   */
  busyPoll(microseconds: number): void;

  // --- unix sockets with descriptors ---------------------------------------------------------------------------------
  /**
   * socket, bind, chmod(mode), listen: a non-blocking SOCK_STREAM listener. Throws EADDRINUSE where the path exists, ENAMETOOLONG
   * where it has more than 107 bytes. `close` does not remove the path.
   */
  listenUnix(path: string, mode: number): number;
  /** Next connection (non-blocking, close-on-exec), or a negative errno (-EAGAIN: none). */
  acceptConnection(listener: number): number;
  /** Connects at once, never waits; the result is non-blocking. Throws EAGAIN where the listener's backlog is full. */
  connectUnix(path: string): number;
  /** socketpair(AF_UNIX, SOCK_STREAM), both ends non-blocking. */
  socketPair(): [number, number];
  /** Hot. sendmsg with MSG_NOSIGNAL; `fds` (16 at most) go with the first byte. Bytes sent or a negative errno. */
  sendMessage(fd: number, buffer: Uint8Array, offset: number, length: number, fds: readonly number[]): number;
  /**
   * Hot. recvmsg with MSG_CMSG_CLOEXEC. Where descriptors are lost (more than 16 in a message, or this process may not have that
   * many) all that came are closed and bytes = -EMSGSIZE: the stream has lost its meaning, close it.
   */
  receiveMessage(fd: number, buffer: Uint8Array, offset: number, length: number): ReceivedMessage;
  /** SO_PEERCRED. */
  peerCredentials(fd: number): { pid: number; uid: number; gid: number };
  /**
   * Sends one datagram, from a socket of no name, to the unix datagram socket at `path`; where that begins with "@", to the one of
   * that abstract name. Never waits: throws EAGAIN where the receiver's queue is full, ENOENT or ECONNREFUSED where nobody is there,
   * EMSGSIZE where the datagram is too long for the kernel, ENAMETOOLONG for more than 107 bytes of path.
   */
  sendDatagram(path: string, buffer: Uint8Array, offset: number, length: number): void;

  // --- TCP ---------------------------------------------------------------------------------------------------------
  /** A non-blocking listener at an IP address ("::" takes IPv4, too); port 0: a free one. Throws EADDRINUSE, EADDRNOTAVAIL, EACCES; EINVAL for a name. */
  listenTcp(address: string, port: number): number;
  /** A socket that connects to an IP address: writable when it has, an error of `watch` where it cannot. Throws what is known at once (ENETUNREACH …). */
  connectTcp(address: string, port: number): number;
  /** TCP_NODELAY, and keep-alive probes after so many seconds of silence (3 of them, 5 s apart). */
  setTcpOptions(fd: number, keepAliveAfterS: number): void;
  /** shutdown(SHUT_WR). Returns 0 or a negative errno (-ENOTCONN: the peer has cut it). */
  endSocket(fd: number): number;
  localAddress(fd: number): { address: string; port: number };
  /** Throws ENOTCONN where the peer has gone. */
  peerAddress(fd: number): { address: string; port: number };

  // --- TLS ---------------------------------------------------------------------------------------------------------
  /**
   * An SSL_CTX of Node's own OpenSSL: TLS 1.3 only, no resumption, for both roles. Certificates (the host's own first, then its chain;
   * `authority`: whom it trusts) and key are PEM texts; empty for a peer without one. Asks the peer for a certificate and refuses
   * none: read `tlsPeer` before anything else. `protocol` is the one ALPN: a client that offers only others is refused. Throws
   * an Error with code ERR_SSL that says which part OpenSSL does not take.
   */
  createTlsContext(options: {
    certificate: string;
    key: string;
    authority: string;
    /** For TLS 1.3, best first: "TLS_AES_128_GCM_SHA256:…". */
    ciphers: string;
    protocol: string;
  }): number;
  /** Connections that were opened with it live on. */
  destroyTlsContext(context: number): void;
  /** TLS on a connected socket, which stays the caller's. `server`: 1 or 0. */
  openTls(context: number, fd: number, server: number): number;
  /**
   * Goes on with the handshake: 0 when it is done, -EAGAIN when the peer has to say something, -EPROTO where it failed (see
   * `tlsFailure`), -ECONNRESET where the peer closed. Read right after it is done: what came along does not make the socket readable.
   */
  tlsHandshake(tls: number): number;
  /**
   * Hot. One recv, and everything that it brought as plaintext: bytes, 0 at the peer's end (with or without close_notify), -EAGAIN where
   * no whole record is there, -EPROTO (see `tlsFailure`) or the socket's error. `length` at least TLS_READ_BYTES_MIN. Nothing that was
   * received waits outside the socket afterwards, except for the rest of a record.
   */
  tlsRead(tls: number, buffer: Uint8Array, offset: number, length: number): number;
  /**
   * Hot. Takes all bytes, 64 KiB at most, and sends what the socket takes. Returns how many bytes of ciphertext wait in memory, which
   * `tlsFlush` sends; until they have gone nothing is taken (-EAGAIN).
   */
  tlsWrite(tls: number, buffer: Uint8Array, offset: number, length: number): number;
  /** Sends what waits; returns what still does. */
  tlsFlush(tls: number): number;
  /** close_notify, behind everything else. Returns what waits. The socket's own end is `endSocket`. */
  tlsEnd(tls: number): number;
  /** After the handshake: the peer's certificate (DER; absent: none), the X509_V_… verdict on its chain with OpenSSL's words, the agreed ALPN ("" : none). */
  tlsPeer(tls: number): { certificate?: Uint8Array; verdict: number; reason: string; protocol: string; resumed: boolean };
  /** OpenSSL's reason for the first -EPROTO, "wrong version number"; empty where there was none. */
  tlsFailure(tls: number): string;
  closeTls(tls: number): void;

  // --- files -------------------------------------------------------------------------------------------------------
  /**
   * Open-file-description lock (F_OFD_SETLK) on [start, start + length), length 0 = to the end. False where another open file
   * holds it. Belongs to the open file: outlives a killed process until the kernel is done with its I/O.
   */
  lockFile(fd: number, mode: 'shared' | 'exclusive', start: number, length: number): boolean;
  /** BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKROGET. Throws ENOTTY where `fd` is not a block device. */
  blockDevice(fd: number): BlockDeviceInfo;
  /**
   * Where data is in [from, end), by SEEK_DATA and SEEK_HOLE, on a thread of the pool: [next, position, length, position, length, …], at most EXTENTS_MAX ranges in
   * order. What lies before `next` and in no range is a hole; `next` is `end` where all was looked at, and `from` at least. `fd` stays open until it
   * resolves. Rejects with the system's error.
   */
  dataExtents(fd: number, from: number, end: number): Promise<Float64Array>;

  /**
   * Writes over a part of a file that is there (open, pwritev2 with RWF_DSYNC, close), as one job on libuv's pool, which keeps the loop alive. The bytes, at
   * most 4 MiB, are copied first. `callback` gets 0 when all is on stable storage, or a negative errno (-ENOENT: no such file), and then some may be.
   */
  writeDurably(
    path: string,
    position: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    callback: (result: number) => void,
  ): void;

  // --- file I/O in batches -------------------------------------------------------------------------------------------
  /**
   * Makes an I/O engine. `onCompletion()` is called on this thread, from the event loop (never from within `ioSubmit` or `ioReap`),
   * while completions can be reaped that `ioReap` has not returned yet: again in each turn of the loop, until all are reaped.
   * An engine keeps the loop alive only while operations are in flight or not reaped.
   */
  ioCreate(options: IoOptions, onCompletion: () => void): number;
  /**
   * Hot. Submits the first `count` operations of `operations`, one system call for all (io_uring). Layout: per operation
   * IO_OPERATION_WORDS doubles, then its segments of IO_SEGMENT_WORDS each. `tag` comes back with the completion. The array
   * may be reused at once. Returns how many were taken, from the front (fewer, also 0, where `entries` are in flight), or a
   * negative errno where the kernel took none. Where it throws (RangeError, for what only a bug can produce) none is taken.
   * Short reads and writes are resumed inside; a read that meets the end of the file completes with the bytes so far.
   * What the world does to an operation (-EBADF, -EIO, -ENOSPC, -EOPNOTSUPP) is its completion's result. Operations may
   * finish in any order.
   */
  ioSubmit(engine: number, operations: Float64Array, count: number): number;
  /**
   * Hot. Moves finished operations into `completions` (IO_COMPLETION_WORDS each), as many as fit, and returns how many. Also
   * useful right after ioSubmit: page-cache hits are done then, and what is reaped here is not announced.
   */
  ioReap(engine: number, completions: Float64Array): number;
  /** Operations in flight, those completed but not reaped included. */
  ioPending(engine: number): number;
  /** Frees the engine. Throws EBUSY while operations are in flight or not reaped: wait for them, they use the caller's memory. */
  ioDestroy(engine: number): void;
}

/**
 * Finds the finished addon: beside the program (`dist/netbus.node`; this may stand in `dist/chunks/`) or where the build puts it (`native/build/`).
 * NETBUS_ADDON names another file; it is there for the tests, which run the same suite on the sanitized build.
 */
function load(): Native {
  const require = createRequire(import.meta.url);
  const chosen = process.env.NETBUS_ADDON;
  if (chosen !== undefined && chosen !== '') return require(chosen) as Native;
  const places = ['./netbus.node', '../netbus.node', './build/netbus.node'];
  const candidates = places.map((path) => fileURLToPath(new URL(path, import.meta.url)));
  const path = candidates.find(existsSync);
  if (path === undefined) {
    throw new Error(`the addon netbus.node is missing (looked for ${candidates.join(' and ')}): run "npm run build"`);
  }
  return require(path) as Native;
}

export const native: Native = load();
