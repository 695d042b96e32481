/* One message to a unix datagram socket, as service managers and loggers take them. */
#include "addon.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The length of an address: a path with its final zero, or an abstract name with the zero in front of it and none behind. */
static socklen_t address_length(const struct sockaddr_un *address, size_t text_length) {
  bool abstract = address->sun_path[0] == '\0';
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + text_length + (abstract ? 0 : 1));
}

static napi_value send_datagram(napi_env env, napi_callback_info info) {
  struct call call;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char name[sizeof address.sun_path]; /* As it was given, for messages. */
  struct bytes bytes;
  if (!call_begin(&call, env, info, 4) || !call_text(&call, 0, "path", "sendto", name, sizeof name) ||
      !call_bytes(&call, 1, &bytes)) {
    return NULL;
  }
  /* An abstract name without a character would be the address of nobody, to which the kernel gives a meaning of its own. */
  if (name[0] == '\0' || strcmp(name, "@") == 0) return throw_range(env, "the socket's path is empty");
  memcpy(address.sun_path, name, sizeof name);
  if (name[0] == '@') address.sun_path[0] = '\0'; /* unix(7), "abstract": the zero byte is not part of any path. */
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", name);
  ssize_t sent;
  do {
    sent = sendto(fd, bytes.data, bytes.length, MSG_NOSIGNAL, (struct sockaddr *)&address,
                  address_length(&address, strlen(name)));
  } while (sent < 0 && errno == EINTR);
  int error = errno;
  close(fd);
  if (sent < 0) return throw_errno(env, error, "sendto", name);
  return NULL; /* A datagram goes as a whole or not at all. */
}

const struct native_function datagram_functions[] = {
    {"sendDatagram", send_datagram},
    {NULL, NULL},
};
