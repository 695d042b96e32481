/** Broken: every twentieth write is answered before it is done. It is done a second later; a daemon that is killed never does it. */
import { onWrite, putBack } from './storage.ts';

const LATE_MS = 1_000;

onWrite((write) => {
  if (write.number % 20 !== 0) return;
  const bytes = write.bytes();
  write.drop();
  setTimeout(() => putBack(write.fd, write.position, bytes), LATE_MS).unref();
});
