/* TLS by the OpenSSL that Node carries: what the files of this part share. */
#ifndef NETBUS_TLS_H
#define NETBUS_TLS_H

#include "addon.h"

#include <openssl/ssl.h>

/* Most plaintext of one write: four records. */
#define TLS_WRITE_BYTES_MAX 65536u
/* Most ciphertext that one read takes from the socket. */
#define TLS_RECEIVE_BYTES_MAX 65536u
/*
 * A reader's buffer must have room for this much more than what is taken from the socket: the record that the last read left
 * unfinished (RFC 8446, 5.2: at most 2^14 + 256 bytes, and 5 of header). So a read leaves nothing behind that poll cannot see.
 */
#define TLS_UNFINISHED_BYTES_MAX (16384u + 256u + 5u)
#define TLS_READ_BYTES_MIN (2 * TLS_UNFINISHED_BYTES_MAX)
/* OpenSSL's reasons are far shorter. */
#define TLS_FAILURE_BYTES_MAX 160

/* Ciphertext on its way, between a call and the socket. One for all connections of an environment: no call leaves anything in it. */
struct tls_scratch {
  /* Four full records, each with a header, its type and a tag (22 bytes), and what else a call may say: alerts, key updates. */
  uint8_t out[TLS_WRITE_BYTES_MAX + 4096u];
  uint8_t in[TLS_RECEIVE_BYTES_MAX];
};

/* Ciphertext that had to wait, in memory of its own. All zeroes: none. */
struct tls_rest {
  uint8_t *bytes;
  size_t offset;
  size_t end;
};

/* The socket as OpenSSL sees it. */
struct tls_pipe {
  int fd;
  struct tls_scratch *scratch;
  size_t out_end;          /* Written by OpenSSL in this call. */
  size_t in_offset;        /* Received in this call and not read by OpenSSL yet: in[in_offset, in_end). */
  size_t in_end;
  size_t receive_max;      /* How much this call may still take from the socket. */
  struct tls_rest unread;  /* What the handshake received beyond its own end. */
  struct tls_rest unsent;  /* What the socket did not take. */
  bool ended;              /* The peer will send nothing more. */
  int error;               /* Errno of the socket, 0: none. */
};

/* A BIO on the pipe, owned by the caller; NULL without memory. The pipe must outlive it. */
BIO *tls_pipe_bio(struct tls_pipe *pipe);
/* Begins a call that may take `receive_max` bytes from the socket. */
void tls_pipe_begin(struct tls_pipe *pipe, size_t receive_max);
/* Ends it: sends what OpenSSL wrote, and keeps what cannot go yet or was not read. */
void tls_pipe_finish(struct tls_pipe *pipe);
/* Sends what waits. */
void tls_pipe_flush(struct tls_pipe *pipe);
static inline size_t tls_pipe_unsent(const struct tls_pipe *pipe) { return pipe->unsent.end - pipe->unsent.offset; }
void tls_pipe_free(struct tls_pipe *pipe);

/* One connection. */
struct tls {
  struct environment *environment;
  SSL *ssl;
  struct tls_pipe pipe;
  char failure[TLS_FAILURE_BYTES_MAX]; /* OpenSSL's reason for the first failure; empty: none. */
};

/* The context of a handle, or NULL with a RangeError. */
SSL_CTX *call_tls_context(const struct call *call, size_t index);
/* Takes OpenSSL's first error as text, "unknown" where it has none, and empties its queue. */
void tls_take_reason(char *out, size_t capacity);

#endif
