/* Connections with TLS on a socket of the caller. No thread, no callback, no waiting: each function does what can be done now. */
#include "tls.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

static void free_tls(struct tls *tls) {
  SSL_free(tls->ssl);
  tls_pipe_free(&tls->pipe);
  free(tls);
}

static napi_value open_tls(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint64_t server;
  if (!call_begin(&call, env, info, 3)) return NULL;
  SSL_CTX *context = call_tls_context(&call, 0);
  if (context == NULL || !call_descriptor(&call, 1, &fd) || !call_integer(&call, 2, "server", 0, 1, &server)) return NULL;
  struct environment *environment = call.environment;
  if (environment->tls_scratch == NULL) environment->tls_scratch = malloc(sizeof *environment->tls_scratch);
  struct tls *tls = calloc(1, sizeof *tls);
  if (environment->tls_scratch == NULL || tls == NULL) {
    free(tls);
    return throw_errno(env, ENOMEM, "malloc", NULL);
  }
  tls->environment = environment;
  tls->pipe.fd = fd;
  tls->pipe.scratch = environment->tls_scratch;
  tls->ssl = SSL_new(context);
  BIO *bio = tls->ssl == NULL ? NULL : tls_pipe_bio(&tls->pipe);
  uint32_t handle = 0;
  int status = bio == NULL ? -ENOMEM : handle_add(&environment->tls_connections, tls, &handle);
  if (status < 0) {
    BIO_free(bio);
    free_tls(tls);
    ERR_clear_error();
    return throw_errno(env, -status, "a TLS connection", NULL);
  }
  SSL_set_bio(tls->ssl, bio, bio);
  if (server == 1) SSL_set_accept_state(tls->ssl);
  else SSL_set_connect_state(tls->ssl);
  return answer_number(&call, handle);
}

static struct tls *call_tls(const struct call *call) {
  double handle;
  struct tls *tls = NULL;
  if (napi_get_value_double(call->env, call->values[0], &handle) == napi_ok) {
    tls = handle_find(&call->environment->tls_connections, handle);
  }
  if (tls == NULL) throw_range(call->env, "not the handle of a TLS connection");
  return tls;
}

/* What a step of OpenSSL that did not succeed means: 0 at the peer's end, or a negative errno (-EPROTO: see tlsFailure). */
static int outcome_of(struct tls *tls, int result) {
  struct tls_pipe *pipe = &tls->pipe;
  int error = SSL_get_error(tls->ssl, result);
  if (error == SSL_ERROR_WANT_READ) return -EAGAIN;
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  if (pipe->error != 0) return -pipe->error;
  /* Without close_notify, too: frames have lengths, so whoever reads them sees what is missing. */
  if (pipe->ended && SSL_is_init_finished(tls->ssl)) return 0;
  if (pipe->ended) return -ECONNRESET;
  tls_take_reason(tls->failure, sizeof tls->failure);
  return -EPROTO;
}

static napi_value tls_handshake(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 1)) return NULL;
  struct tls *tls = call_tls(&call);
  if (tls == NULL) return NULL;
  if (tls->failure[0] != 0) return answer_number(&call, -EPROTO);
  ERR_clear_error();
  tls_pipe_begin(&tls->pipe, TLS_RECEIVE_BYTES_MAX);
  int result = SSL_do_handshake(tls->ssl);
  int outcome = result == 1 ? 0 : outcome_of(tls, result);
  ERR_clear_error();
  /* An alert that says why goes out as well. */
  tls_pipe_finish(&tls->pipe);
  return answer_number(&call, outcome);
}

/* Fills `out` as far as there is something; returns bytes, 0 at the end, or a negative errno. */
static int64_t read_some(struct tls *tls, struct bytes out) {
  size_t total = 0;
  while (total < out.length) {
    size_t count = 0;
    int result = SSL_read_ex(tls->ssl, out.data + total, out.length - total, &count);
    if (result != 1) {
      int outcome = outcome_of(tls, result);
      /* An end or a failure is found again by the next read. */
      return total > 0 ? (int64_t)total : outcome;
    }
    total += count;
  }
  return (int64_t)total;
}

static napi_value tls_read(napi_env env, napi_callback_info info) {
  struct call call;
  struct bytes out;
  if (!call_begin(&call, env, info, 4) || !call_bytes(&call, 1, &out)) return NULL;
  struct tls *tls = call_tls(&call);
  if (tls == NULL) return NULL;
  if (out.length < TLS_READ_BYTES_MIN) return throw_range(env, "a read needs room for %u bytes", TLS_READ_BYTES_MIN);
  if (tls->failure[0] != 0) return answer_number(&call, -EPROTO);
  ERR_clear_error();
  /* First what is here already: then there is room for all that is taken now. */
  size_t unread = tls->pipe.unread.end - tls->pipe.unread.offset;
  tls_pipe_begin(&tls->pipe, unread > 0 ? 0 : out.length - TLS_UNFINISHED_BYTES_MAX);
  int64_t outcome = read_some(tls, out);
  ERR_clear_error();
  tls_pipe_finish(&tls->pipe);
  return answer_number(&call, (double)outcome);
}

/* What waits after a call that sends, or the socket's error. */
static napi_value answer_unsent(const struct call *call, const struct tls *tls) {
  return answer_number(call, tls->pipe.error != 0 ? -tls->pipe.error : (double)tls_pipe_unsent(&tls->pipe));
}

static napi_value tls_write(napi_env env, napi_callback_info info) {
  struct call call;
  struct bytes bytes;
  if (!call_begin(&call, env, info, 4) || !call_bytes(&call, 1, &bytes)) return NULL;
  struct tls *tls = call_tls(&call);
  if (tls == NULL) return NULL;
  if (bytes.length > TLS_WRITE_BYTES_MAX) return throw_range(env, "a write has at most %u bytes", TLS_WRITE_BYTES_MAX);
  if (tls->failure[0] != 0) return answer_number(&call, -EPROTO);
  if (tls_pipe_unsent(&tls->pipe) > 0) return answer_number(&call, -EAGAIN);
  if (bytes.length == 0) return answer_unsent(&call, tls);
  ERR_clear_error();
  tls_pipe_begin(&tls->pipe, 0);
  size_t written;
  int result = SSL_write_ex(tls->ssl, bytes.data, bytes.length, &written);
  int outcome = result == 1 ? 0 : outcome_of(tls, result);
  ERR_clear_error();
  tls_pipe_finish(&tls->pipe);
  return outcome < 0 ? answer_number(&call, outcome) : answer_unsent(&call, tls);
}

static napi_value tls_flush(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 1)) return NULL;
  struct tls *tls = call_tls(&call);
  if (tls == NULL) return NULL;
  tls_pipe_flush(&tls->pipe);
  return answer_unsent(&call, tls);
}

static napi_value tls_end(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 1)) return NULL;
  struct tls *tls = call_tls(&call);
  if (tls == NULL) return NULL;
  ERR_clear_error();
  tls_pipe_begin(&tls->pipe, 0);
  /* Fails before the end of the handshake and after a failure: then there is nobody who would understand it. */
  if (tls->failure[0] == 0 && SSL_is_init_finished(tls->ssl)) SSL_shutdown(tls->ssl);
  ERR_clear_error();
  tls_pipe_finish(&tls->pipe);
  return answer_unsent(&call, tls);
}

static bool set_text(napi_env env, napi_value object, const char *name, const char *text, size_t length) {
  napi_value value;
  return napi_create_string_utf8(env, text, length, &value) == napi_ok &&
         napi_set_named_property(env, object, name, value) == napi_ok;
}

static bool set_certificate(napi_env env, napi_value object, const SSL *ssl) {
  X509 *certificate = SSL_get1_peer_certificate(ssl);
  if (certificate == NULL) return true;
  unsigned char *der = NULL;
  int length = i2d_X509(certificate, &der);
  X509_free(certificate);
  napi_value value;
  bool good = length > 0 && napi_create_buffer_copy(env, (size_t)length, der, NULL, &value) == napi_ok &&
              napi_set_named_property(env, object, "certificate", value) == napi_ok;
  OPENSSL_free(der);
  return good;
}

static napi_value tls_peer(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 1)) return NULL;
  struct tls *tls = call_tls(&call);
  if (tls == NULL) return NULL;
  const unsigned char *protocol;
  unsigned int protocol_length;
  SSL_get0_alpn_selected(tls->ssl, &protocol, &protocol_length);
  long verdict = SSL_get_verify_result(tls->ssl);
  const char *reason = X509_verify_cert_error_string(verdict);
  napi_value result;
  napi_value resumed;
  if (napi_create_object(env, &result) != napi_ok || !set_certificate(env, result, tls->ssl) ||
      napi_set_named_property(env, result, "verdict", answer_number(&call, (double)verdict)) != napi_ok ||
      !set_text(env, result, "reason", reason, NAPI_AUTO_LENGTH) ||
      !set_text(env, result, "protocol", protocol == NULL ? "" : (const char *)protocol, protocol_length) ||
      napi_get_boolean(env, SSL_session_reused(tls->ssl) == 1, &resumed) != napi_ok ||
      napi_set_named_property(env, result, "resumed", resumed) != napi_ok) {
    return NULL;
  }
  return result;
}

static napi_value tls_failure(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 1)) return NULL;
  struct tls *tls = call_tls(&call);
  napi_value result = NULL;
  if (tls != NULL) napi_create_string_utf8(env, tls->failure, NAPI_AUTO_LENGTH, &result);
  return result;
}

static napi_value close_tls(napi_env env, napi_callback_info info) {
  struct call call;
  double handle;
  if (!call_begin(&call, env, info, 1)) return NULL;
  struct tls *tls = call_tls(&call);
  if (tls == NULL || napi_get_value_double(env, call.values[0], &handle) != napi_ok) return NULL;
  handle_remove(&call.environment->tls_connections, (uint32_t)handle);
  free_tls(tls);
  return NULL;
}

void tls_connections_close(struct environment *environment) {
  struct handle_table *table = &environment->tls_connections;
  for (uint32_t number = 0; number < table->size; number++) {
    if (table->slots[number].item != NULL) free_tls(table->slots[number].item);
  }
  free(environment->tls_scratch);
}

const struct native_function tls_functions[] = {
    {"openTls", open_tls},   {"tlsHandshake", tls_handshake}, {"tlsRead", tls_read}, {"tlsWrite", tls_write},
    {"tlsFlush", tls_flush}, {"tlsEnd", tls_end},             {"tlsPeer", tls_peer}, {"tlsFailure", tls_failure},
    {"closeTls", close_tls}, {NULL, NULL},
};
