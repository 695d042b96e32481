/* Descriptors, memory files and eventfds. */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

/* memfd_create(2): 249 bytes and the final zero. */
#define MEMORY_FILE_NAME_BYTES_MAX 250
/* 0, 1 and 2 stay free for what every program expects there. */
#define DUPLICATE_FD_MIN 3

static napi_value close_descriptor(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &fd)) return NULL;
  /* Linux frees the descriptor also when close is interrupted, so it is never repeated. */
  if (close(fd) < 0 && errno != EINTR) throw_errno(env, errno, "close", NULL);
  return NULL;
}

static napi_value duplicate(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &fd)) return NULL;
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, DUPLICATE_FD_MIN);
  return copy < 0 ? throw_errno(env, errno, "fcntl", "F_DUPFD_CLOEXEC") : answer_number(&call, copy);
}

static napi_value create_memory_file(napi_env env, napi_callback_info info) {
  struct call call;
  char name[MEMORY_FILE_NAME_BYTES_MAX];
  uint64_t length;
  if (!call_begin(&call, env, info, 2) || !call_text(&call, 0, "name", "memfd_create", name, sizeof name) ||
      !call_integer(&call, 1, "length", 0, EXACT_INTEGER_MAX, &length)) {
    return NULL;
  }
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return throw_errno(env, errno, "memfd_create", name);
  if (ftruncate(fd, (off_t)length) < 0) {
    int error = errno;
    close(fd);
    return throw_errno(env, error, "ftruncate", name);
  }
  return answer_number(&call, fd);
}

static napi_value create_event(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 0)) return NULL;
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return fd < 0 ? throw_errno(env, errno, "eventfd", NULL) : answer_number(&call, fd);
}

static napi_value signal_event(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &fd)) return NULL;
  const uint64_t one = 1;
  ssize_t written;
  do {
    written = write(fd, &one, sizeof one);
  } while (written < 0 && errno == EINTR);
  return answer_number(&call, written < 0 ? -errno : 0);
}

static napi_value drain_event(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &fd)) return NULL;
  uint64_t counter = 0;
  ssize_t bytes;
  do {
    bytes = read(fd, &counter, sizeof counter);
  } while (bytes < 0 && errno == EINTR);
  if (bytes < 0) return answer_number(&call, errno == EAGAIN ? 0 : -errno);
  return answer_number(&call, (double)counter);
}

static napi_value set_non_blocking(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &fd)) return NULL;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return throw_errno(env, errno, "fcntl", "F_GETFL");
  if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return throw_errno(env, errno, "fcntl", "F_SETFL");
  return NULL;
}

const struct native_function descriptor_functions[] = {
    {"close", close_descriptor},   {"duplicate", duplicate},     {"createMemoryFile", create_memory_file},
    {"createEvent", create_event}, {"signalEvent", signal_event}, {"drainEvent", drain_event},
    {"setNonBlocking", set_non_blocking},
    {NULL, NULL},
};
