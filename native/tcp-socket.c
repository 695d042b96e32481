/* TCP sockets. Never blocking: a socket is non-blocking from its first moment. Addresses are numbers; names are the caller's business. */
#include "addon.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG_CONNECTIONS_MAX 512
/* An IPv6 address with the name of its interface: "fe80::1%enp1s0". */
#define ADDRESS_BYTES_MAX (46 + 1 + 16)
#define PROBE_INTERVAL_S 5
#define PROBES_UNANSWERED_MAX 3

/* Reads (address, port) at 0 and 1. Throws EINVAL for what is no IP address. */
static bool call_tcp_address(const struct call *call, struct sockaddr_storage *address, socklen_t *size, char *text) {
  uint64_t port;
  if (!call_text(call, 0, "address", "getaddrinfo", text, ADDRESS_BYTES_MAX) ||
      !call_integer(call, 1, "port", 0, UINT16_MAX, &port)) {
    return false;
  }
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
  struct addrinfo *found;
  if (getaddrinfo(text, NULL, &hints, &found) != 0) {
    throw_errno(call->env, EINVAL, "getaddrinfo", text);
    return false;
  }
  *size = found->ai_addrlen;
  memcpy(address, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  if (address->ss_family == AF_INET6) ((struct sockaddr_in6 *)address)->sin6_port = htons((uint16_t)port);
  else ((struct sockaddr_in *)address)->sin_port = htons((uint16_t)port);
  return true;
}

static napi_value fail(napi_env env, int fd, const char *system_call, const char *address) {
  int error = errno;
  close(fd);
  return throw_errno(env, error, system_call, address);
}

static int open_socket(const struct sockaddr_storage *address) {
  return socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static napi_value listen_tcp(napi_env env, napi_callback_info info) {
  struct call call;
  struct sockaddr_storage address;
  socklen_t size;
  char text[ADDRESS_BYTES_MAX];
  if (!call_begin(&call, env, info, 2) || !call_tcp_address(&call, &address, &size, text)) return NULL;
  int fd = open_socket(&address);
  if (fd < 0) return throw_errno(env, errno, "socket", text);
  int on = 1;
  /* A daemon that starts again must not wait for connections of its predecessor to time out. */
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) return fail(env, fd, "setsockopt", text);
  if (bind(fd, (struct sockaddr *)&address, size) < 0) return fail(env, fd, "bind", text);
  if (listen(fd, BACKLOG_CONNECTIONS_MAX) < 0) return fail(env, fd, "listen", text);
  return answer_number(&call, fd);
}

static napi_value connect_tcp(napi_env env, napi_callback_info info) {
  struct call call;
  struct sockaddr_storage address;
  socklen_t size;
  char text[ADDRESS_BYTES_MAX];
  if (!call_begin(&call, env, info, 2) || !call_tcp_address(&call, &address, &size, text)) return NULL;
  int fd = open_socket(&address);
  if (fd < 0) return throw_errno(env, errno, "socket", text);
  if (connect(fd, (struct sockaddr *)&address, size) < 0 && errno != EINPROGRESS) return fail(env, fd, "connect", text);
  return answer_number(&call, fd);
}

static napi_value set_tcp_options(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint64_t idle;
  if (!call_begin(&call, env, info, 2) || !call_descriptor(&call, 0, &fd) ||
      !call_integer(&call, 1, "keepAliveAfter", 1, INT16_MAX, &idle)) {
    return NULL;
  }
  const int options[][3] = {
      {IPPROTO_TCP, TCP_NODELAY, 1},
      {SOL_SOCKET, SO_KEEPALIVE, 1},
      {IPPROTO_TCP, TCP_KEEPIDLE, (int)idle},
      {IPPROTO_TCP, TCP_KEEPINTVL, PROBE_INTERVAL_S},
      {IPPROTO_TCP, TCP_KEEPCNT, PROBES_UNANSWERED_MAX},
  };
  for (size_t each = 0; each < sizeof options / sizeof *options; each++) {
    if (setsockopt(fd, options[each][0], options[each][1], &options[each][2], sizeof(int)) < 0) {
      return throw_errno(env, errno, "setsockopt", NULL);
    }
  }
  return NULL;
}

static napi_value end_socket(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &fd)) return NULL;
  return answer_number(&call, shutdown(fd, SHUT_WR) < 0 ? -errno : 0);
}

static napi_value address_of(napi_env env, napi_callback_info info, int (*name)(int, struct sockaddr *, socklen_t *)) {
  struct call call;
  int fd;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &fd)) return NULL;
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  char host[NI_MAXHOST];
  if (name(fd, (struct sockaddr *)&address, &size) < 0) return throw_errno(env, errno, "getsockname", NULL);
  if (getnameinfo((struct sockaddr *)&address, size, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0) {
    return throw_errno(env, EINVAL, "getnameinfo", NULL);
  }
  in_port_t port = address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                 : ((struct sockaddr_in *)&address)->sin_port;
  napi_value result;
  napi_value text;
  if (napi_create_object(env, &result) != napi_ok || napi_create_string_utf8(env, host, NAPI_AUTO_LENGTH, &text) != napi_ok ||
      napi_set_named_property(env, result, "address", text) != napi_ok ||
      napi_set_named_property(env, result, "port", answer_number(&call, ntohs(port))) != napi_ok) {
    return NULL;
  }
  return result;
}

static napi_value local_address(napi_env env, napi_callback_info info) { return address_of(env, info, getsockname); }

static napi_value peer_address(napi_env env, napi_callback_info info) { return address_of(env, info, getpeername); }

const struct native_function tcp_socket_functions[] = {
    {"listenTcp", listen_tcp},        {"connectTcp", connect_tcp},      {"setTcpOptions", set_tcp_options},
    {"endSocket", end_socket},        {"localAddress", local_address},  {"peerAddress", peer_address},
    {NULL, NULL},
};
