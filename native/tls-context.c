/* TLS contexts: a host's certificate and key, whom it trusts, and which protocol it speaks. */
#include "tls.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PEM_BYTES_MAX (1024u * 1024u)
/* RFC 7301, 3.1. */
#define PROTOCOL_BYTES_MAX 255

/* An ALPN list with the one protocol of a context: its length and its name. */
struct protocol {
  unsigned char bytes[1 + PROTOCOL_BYTES_MAX];
};

void tls_take_reason(char *out, size_t capacity) {
  unsigned long error = ERR_peek_error();
  const char *reason = error == 0 ? NULL : ERR_reason_error_string(error);
  snprintf(out, capacity, "%s", reason == NULL ? "unknown" : reason);
  ERR_clear_error();
}

/* Throws an Error with code ERR_SSL_…, as Node's own TLS does. */
static napi_value throw_tls(napi_env env, const char *what) {
  char reason[TLS_FAILURE_BYTES_MAX];
  tls_take_reason(reason, sizeof reason);
  char text[2 * TLS_FAILURE_BYTES_MAX];
  snprintf(text, sizeof text, "%s: %s", what, reason);
  napi_throw_error(env, "ERR_SSL", text);
  return NULL;
}

/* A string property of the first argument, to be freed; NULL after a throw. */
static char *call_property(const struct call *call, const char *name) {
  napi_value value;
  size_t length;
  if (napi_get_named_property(call->env, call->values[0], name, &value) != napi_ok) return NULL;
  if (napi_get_value_string_utf8(call->env, value, NULL, 0, &length) != napi_ok || length > PEM_BYTES_MAX) {
    throw_range(call->env, "%s is not a string of at most %u bytes", name, PEM_BYTES_MAX);
    return NULL;
  }
  char *text = malloc(length + 1);
  if (text == NULL) {
    throw_errno(call->env, ENOMEM, "malloc", NULL);
  } else if (napi_get_value_string_utf8(call->env, value, text, length + 1, &length) != napi_ok) {
    free(text);
    return NULL;
  }
  return text;
}

/* A key with a passphrase is refused; without this OpenSSL would ask at the terminal. */
static int no_passphrase(char *buffer, int size, int writing, void *data) {
  (void)buffer;
  (void)size;
  (void)writing;
  (void)data;
  return -1;
}

/* Calls `use` with each certificate of a PEM text, which it must keep a reference of its own to. Returns false where there is none or one is bad. */
static bool each_certificate(const char *pem, bool (*use)(SSL_CTX *, X509 *, bool first), SSL_CTX *context) {
  BIO *bio = BIO_new_mem_buf(pem, -1);
  if (bio == NULL) return false;
  size_t count = 0;
  bool good = true;
  X509 *certificate;
  while (good && (certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
    good = use(context, certificate, count++ == 0);
    X509_free(certificate);
  }
  BIO_free(bio);
  if (!good || count == 0) return false;
  /* The reader stops at the end of the text as at any other error. */
  bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (at_end) ERR_clear_error();
  return at_end;
}

static bool use_own(SSL_CTX *context, X509 *certificate, bool first) {
  return (first ? SSL_CTX_use_certificate(context, certificate) : (int)SSL_CTX_add1_chain_cert(context, certificate)) == 1;
}

static bool trust(SSL_CTX *context, X509 *certificate, bool first) {
  (void)first;
  return X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate) == 1;
}

static bool use_key(SSL_CTX *context, const char *pem) {
  BIO *bio = BIO_new_mem_buf(pem, -1);
  EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
  bool good = key != NULL && SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
  EVP_PKEY_free(key);
  BIO_free(bio);
  return good;
}

/* The handshake ends well in any case: the verdict is read afterwards, so that the peer can be told in words. */
static int any_certificate(int preverified, X509_STORE_CTX *store) {
  (void)preverified;
  (void)store;
  return 1;
}

static int select_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *offered,
                           unsigned int offered_length, void *data) {
  (void)ssl;
  struct protocol *protocol = data;
  unsigned char *selected;
  int status = SSL_select_next_proto(&selected, out_length, protocol->bytes, 1u + protocol->bytes[0], offered, offered_length);
  *out = selected;
  return status == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void free_protocol(void *parent, void *pointer, CRYPTO_EX_DATA *data, int index, long number, void *argument) {
  (void)parent;
  (void)data;
  (void)index;
  (void)number;
  (void)argument;
  free(pointer);
}

static int protocol_index = -1;
static pthread_once_t protocol_once = PTHREAD_ONCE_INIT;

static void make_protocol_index(void) { protocol_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_protocol); }

/* The context frees the protocol's name with itself, which may be after its handle: connections refer to it. */
static bool use_protocol(SSL_CTX *context, const char *name) {
  pthread_once(&protocol_once, make_protocol_index);
  size_t length = strlen(name);
  struct protocol *protocol = malloc(sizeof *protocol);
  if (protocol_index < 0 || protocol == NULL || length == 0 || length > PROTOCOL_BYTES_MAX ||
      SSL_CTX_set_ex_data(context, protocol_index, protocol) != 1) {
    free(protocol);
    return false;
  }
  protocol->bytes[0] = (unsigned char)length;
  memcpy(protocol->bytes + 1, name, length);
  SSL_CTX_set_alpn_select_cb(context, select_protocol, protocol);
  /* Of all its functions this one alone returns 0 for success. */
  return SSL_CTX_set_alpn_protos(context, protocol->bytes, 1u + (unsigned int)length) == 0;
}

static void use_no_sessions(SSL_CTX *context) {
  /* A resumed session would bring an old verdict along. */
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(context, 0);
}

static napi_value create_context(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 1)) return NULL;
  char *certificate = NULL;
  char *key = NULL;
  char *authority = NULL;
  char *ciphers = NULL;
  char *protocol = NULL;
  napi_value result = NULL;
  SSL_CTX *context = NULL;
  uint32_t handle;
  if ((certificate = call_property(&call, "certificate")) == NULL || (key = call_property(&call, "key")) == NULL ||
      (authority = call_property(&call, "authority")) == NULL || (ciphers = call_property(&call, "ciphers")) == NULL ||
      (protocol = call_property(&call, "protocol")) == NULL) {
    goto done;
  }
  ERR_clear_error();
  context = SSL_CTX_new(TLS_method());
  const char *failed = context == NULL                                                      ? "a TLS context"
                       : SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1        ? "TLS 1.3"
                       : SSL_CTX_set_ciphersuites(context, ciphers) != 1                    ? "the ciphers"
                       : *certificate != 0 && !each_certificate(certificate, use_own, context) ? "the certificate"
                       : *certificate != 0 && !use_key(context, key)                        ? "the key"
                       : *authority != 0 && !each_certificate(authority, trust, context)    ? "the CA's certificate"
                       : !use_protocol(context, protocol)                                   ? "the protocol's name"
                                                                                            : NULL;
  if (failed != NULL) {
    throw_tls(env, failed);
    goto done;
  }
  use_no_sessions(context);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, any_certificate);
  int status = handle_add(&call.environment->tls_contexts, context, &handle);
  if (status < 0) {
    throw_errno(env, -status, "a TLS context", NULL);
    goto done;
  }
  context = NULL;
  result = answer_number(&call, handle);
done:
  SSL_CTX_free(context);
  free(certificate);
  if (key != NULL) OPENSSL_cleanse(key, strlen(key));
  free(key);
  free(authority);
  free(ciphers);
  free(protocol);
  return result;
}

SSL_CTX *call_tls_context(const struct call *call, size_t index) {
  double handle;
  SSL_CTX *context = NULL;
  if (napi_get_value_double(call->env, call->values[index], &handle) == napi_ok) {
    context = handle_find(&call->environment->tls_contexts, handle);
  }
  if (context == NULL) throw_range(call->env, "not the handle of a TLS context");
  return context;
}

static napi_value destroy_context(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 1)) return NULL;
  SSL_CTX *context = call_tls_context(&call, 0);
  double handle;
  if (context == NULL || napi_get_value_double(env, call.values[0], &handle) != napi_ok) return NULL;
  handle_remove(&call.environment->tls_contexts, (uint32_t)handle);
  SSL_CTX_free(context);
  return NULL;
}

void tls_contexts_close(struct environment *environment) {
  struct handle_table *table = &environment->tls_contexts;
  for (uint32_t number = 0; number < table->size; number++) SSL_CTX_free(table->slots[number].item);
}

const struct native_function tls_context_functions[] = {
    {"createTlsContext", create_context},
    {"destroyTlsContext", destroy_context},
    {NULL, NULL},
};
