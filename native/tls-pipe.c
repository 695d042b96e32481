/*
 * Between OpenSSL and the socket. OpenSSL would make two system calls a record to read and one to write; here each call from JavaScript makes one
 * recv and one send, whatever number of records that is.
 */
#include "tls.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Ciphertext that waits for a peer that does not read: a full write, and what a read may have had to answer meanwhile. */
#define UNSENT_BYTES_MAX (2 * sizeof(((struct tls_scratch *)NULL)->out))

static size_t rest_take(struct tls_rest *rest, void *target, size_t length) {
  size_t available = rest->end - rest->offset;
  if (length > available) length = available;
  if (length > 0) memcpy(target, rest->bytes + rest->offset, length);
  rest->offset += length;
  if (rest->offset == rest->end) {
    free(rest->bytes);
    *rest = (struct tls_rest){0};
  }
  return length;
}

/* Returns 0, -ENOBUFS above `limit`, or -ENOMEM. */
static int rest_add(struct tls_rest *rest, const uint8_t *bytes, size_t length, size_t limit) {
  if (length == 0) return 0;
  size_t kept = rest->end - rest->offset;
  if (kept + length > limit) return -ENOBUFS;
  uint8_t *memory = malloc(kept + length);
  if (memory == NULL) return -ENOMEM;
  if (kept > 0) memcpy(memory, rest->bytes + rest->offset, kept);
  memcpy(memory + kept, bytes, length);
  free(rest->bytes);
  *rest = (struct tls_rest){.bytes = memory, .end = kept + length};
  return 0;
}

/* Bytes sent: fewer than `length` where the socket is full or has failed. */
static size_t send_some(struct tls_pipe *pipe, const uint8_t *bytes, size_t length) {
  size_t sent = 0;
  while (sent < length && pipe->error == 0) {
    ssize_t result = send(pipe->fd, bytes + sent, length - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (result >= 0) sent += (size_t)result;
    else if (errno == EAGAIN) break;
    else if (errno != EINTR) pipe->error = errno;
  }
  return sent;
}

static void receive(struct tls_pipe *pipe) {
  size_t length = pipe->receive_max < TLS_RECEIVE_BYTES_MAX ? pipe->receive_max : TLS_RECEIVE_BYTES_MAX;
  /* Once a call: what is left in the socket keeps it readable, and a second recv would nearly always find nothing. */
  pipe->receive_max = 0;
  if (length == 0 || pipe->ended || pipe->error != 0) return;
  ssize_t result;
  do {
    result = recv(pipe->fd, pipe->scratch->in, length, MSG_DONTWAIT);
  } while (result < 0 && errno == EINTR);
  if (result > 0) pipe->in_end = (size_t)result;
  else if (result == 0) pipe->ended = true;
  else if (errno != EAGAIN) pipe->error = errno;
}

static int bio_read(BIO *bio, char *target, int length) {
  struct tls_pipe *pipe = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (length <= 0) return 0;
  size_t taken = rest_take(&pipe->unread, target, (size_t)length);
  if (taken > 0) return (int)taken;
  if (pipe->in_offset == pipe->in_end) {
    pipe->in_offset = pipe->in_end = 0;
    receive(pipe);
  }
  size_t available = pipe->in_end - pipe->in_offset;
  if (available == 0) {
    if (!pipe->ended && pipe->error == 0) BIO_set_retry_read(bio);
    return pipe->ended ? 0 : -1;
  }
  if ((size_t)length < available) available = (size_t)length;
  memcpy(target, pipe->scratch->in + pipe->in_offset, available);
  pipe->in_offset += available;
  return (int)available;
}

static int bio_write(BIO *bio, const char *bytes, int length) {
  struct tls_pipe *pipe = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (length <= 0) return 0;
  if ((size_t)length > sizeof pipe->scratch->out - pipe->out_end) {
    pipe->error = ENOBUFS;
    return -1;
  }
  memcpy(pipe->scratch->out + pipe->out_end, bytes, (size_t)length);
  pipe->out_end += (size_t)length;
  return length;
}

static long bio_control(BIO *bio, int command, long number, void *pointer) {
  (void)bio;
  (void)number;
  (void)pointer;
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

static void make_method(void) {
  BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "netbus");
  if (made == NULL) return;
  if (BIO_meth_set_read(made, bio_read) == 1 && BIO_meth_set_write(made, bio_write) == 1 &&
      BIO_meth_set_ctrl(made, bio_control) == 1) {
    method = made;
  }
}

BIO *tls_pipe_bio(struct tls_pipe *pipe) {
  pthread_once(&method_once, make_method);
  BIO *bio = method == NULL ? NULL : BIO_new(method);
  if (bio == NULL) return NULL;
  BIO_set_data(bio, pipe);
  BIO_set_init(bio, 1);
  return bio;
}

void tls_pipe_begin(struct tls_pipe *pipe, size_t receive_max) {
  pipe->out_end = pipe->in_offset = pipe->in_end = 0;
  pipe->receive_max = receive_max;
}

void tls_pipe_finish(struct tls_pipe *pipe) {
  int status = rest_add(&pipe->unread, pipe->scratch->in + pipe->in_offset, pipe->in_end - pipe->in_offset, TLS_RECEIVE_BYTES_MAX);
  tls_pipe_flush(pipe);
  size_t sent = tls_pipe_unsent(pipe) > 0 ? 0 : send_some(pipe, pipe->scratch->out, pipe->out_end);
  int kept = rest_add(&pipe->unsent, pipe->scratch->out + sent, pipe->out_end - sent, UNSENT_BYTES_MAX);
  if (kept < 0) status = kept;
  if (status < 0 && pipe->error == 0) pipe->error = -status;
  pipe->out_end = pipe->in_offset = pipe->in_end = 0;
}

void tls_pipe_flush(struct tls_pipe *pipe) {
  struct tls_rest *unsent = &pipe->unsent;
  if (unsent->offset == unsent->end) return;
  unsent->offset += send_some(pipe, unsent->bytes + unsent->offset, unsent->end - unsent->offset);
  if (unsent->offset < unsent->end) return;
  free(unsent->bytes);
  *unsent = (struct tls_rest){0};
}

void tls_pipe_free(struct tls_pipe *pipe) {
  free(pipe->unread.bytes);
  free(pipe->unsent.bytes);
}
