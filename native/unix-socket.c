/* Unix stream sockets. Never blocking: a socket is non-blocking from its first moment. */
#include "addon.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG_CONNECTIONS_MAX 128
#define SOCKET_TYPE (SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)

/* A path of at most 107 bytes. */
static bool call_address(const struct call *call, const char *system_call, struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  return call_text(call, 0, "path", system_call, address->sun_path, sizeof address->sun_path);
}

static napi_value fail(napi_env env, int fd, const char *system_call, const char *path) {
  int error = errno;
  close(fd);
  return throw_errno(env, error, system_call, path);
}

static napi_value listen_unix(napi_env env, napi_callback_info info) {
  struct call call;
  struct sockaddr_un address;
  uint64_t mode;
  if (!call_begin(&call, env, info, 2) || !call_address(&call, "bind", &address) ||
      !call_integer(&call, 1, "mode", 0, 0777, &mode)) {
    return NULL;
  }
  int fd = socket(AF_UNIX, SOCKET_TYPE, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", address.sun_path);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return fail(env, fd, "bind", address.sun_path);
  /* Nobody can connect before listen, so the mode is right from the first moment that it matters. */
  const char *failed = chmod(address.sun_path, (mode_t)mode) < 0          ? "chmod"
                       : listen(fd, BACKLOG_CONNECTIONS_MAX) < 0 ? "listen"
                                                                 : NULL;
  if (failed == NULL) return answer_number(&call, fd);
  int error = errno;
  unlink(address.sun_path);
  errno = error;
  return fail(env, fd, failed, address.sun_path);
}

static napi_value accept_connection(napi_env env, napi_callback_info info) {
  struct call call;
  int listener;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &listener)) return NULL;
  int fd;
  do {
    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  return answer_number(&call, fd < 0 ? -errno : fd);
}

static napi_value connect_unix(napi_env env, napi_callback_info info) {
  struct call call;
  struct sockaddr_un address;
  if (!call_begin(&call, env, info, 1) || !call_address(&call, "connect", &address)) return NULL;
  int fd = socket(AF_UNIX, SOCKET_TYPE, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", address.sun_path);
  /* unix(7): a unix socket connects at once, or not at all (EAGAIN: the listener's backlog is full). */
  if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return fail(env, fd, "connect", address.sun_path);
  return answer_number(&call, fd);
}

static napi_value socket_pair(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 0)) return NULL;
  int fds[2];
  if (socketpair(AF_UNIX, SOCKET_TYPE, 0, fds) < 0) return throw_errno(env, errno, "socketpair", NULL);
  napi_value pair;
  if (napi_create_array_with_length(env, 2, &pair) != napi_ok ||
      napi_set_element(env, pair, 0, answer_number(&call, fds[0])) != napi_ok ||
      napi_set_element(env, pair, 1, answer_number(&call, fds[1])) != napi_ok) {
    close(fds[0]);
    close(fds[1]);
    return NULL;
  }
  return pair;
}

static napi_value peer_credentials(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &fd)) return NULL;
  struct ucred peer;
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return throw_errno(env, errno, "getsockopt", "SO_PEERCRED");
  napi_value result;
  if (napi_create_object(env, &result) != napi_ok ||
      napi_set_named_property(env, result, "pid", answer_number(&call, peer.pid)) != napi_ok ||
      napi_set_named_property(env, result, "uid", answer_number(&call, peer.uid)) != napi_ok ||
      napi_set_named_property(env, result, "gid", answer_number(&call, peer.gid)) != napi_ok) {
    return NULL;
  }
  return result;
}

const struct native_function unix_socket_functions[] = {
    {"listenUnix", listen_unix},   {"acceptConnection", accept_connection}, {"connectUnix", connect_unix},
    {"socketPair", socket_pair}, {"peerCredentials", peer_credentials},
    {NULL, NULL},
};
