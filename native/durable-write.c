/* A write into a file that is there, on stable storage when it is answered: one job on a thread of libuv's pool. */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define WRITE_BYTES_MAX (4u * 1024 * 1024)

struct durable_write {
  uv_work_t work;
  struct environment *environment;
  napi_ref callback;
  int result;
  off_t position;
  size_t length;
  char path[PATH_MAX];
  uint8_t bytes[]; /* A copy: the caller's may change meanwhile. */
};

/* All bytes, or a negative errno. */
static int write_all(int fd, const struct durable_write *write) {
  size_t done = 0;
  while (done < write->length) {
    struct iovec rest = {.iov_base = (void *)(write->bytes + done), .iov_len = write->length - done};
    ssize_t count = pwritev2(fd, &rest, 1, write->position + (off_t)done, RWF_DSYNC);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -errno;
    if (count == 0) return -EIO;
    done += (size_t)count;
  }
  return 0;
}

/* On a pool thread. */
static void run(uv_work_t *work) {
  struct durable_write *write = work->data;
  int fd = open(write->path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    write->result = -errno;
    return;
  }
  write->result = write_all(fd, write);
  close(fd);
}

static void on_done(uv_work_t *work, int status) {
  (void)status; /* Nobody cancels it. */
  struct durable_write *write = work->data;
  struct environment *environment = write->environment;
  napi_env env = environment->env;
  napi_handle_scope scope;
  if (!environment->closing && napi_open_handle_scope(env, &scope) == napi_ok) {
    napi_value result;
    if (napi_create_int32(env, write->result, &result) == napi_ok) {
      environment_call(environment, write->callback, 1, &result);
    }
    napi_delete_reference(env, write->callback);
    napi_close_handle_scope(env, scope);
  }
  free(write);
  environment_handle_closed(environment);
}

static napi_value write_durably(napi_env env, napi_callback_info info) {
  struct call call;
  char path[PATH_MAX];
  uint64_t position;
  struct bytes bytes;
  if (!call_begin(&call, env, info, 6) || !call_text(&call, 0, "path", "open", path, sizeof path) ||
      !call_integer(&call, 1, "position", 0, EXACT_INTEGER_MAX, &position) || !call_bytes(&call, 2, &bytes)) {
    return NULL;
  }
  if (bytes.length > WRITE_BYTES_MAX) return throw_range(env, "%zu bytes are more than %u", bytes.length, WRITE_BYTES_MAX);
  struct durable_write *write = malloc(sizeof *write + bytes.length);
  if (write == NULL) return throw_errno(env, ENOMEM, "malloc", NULL);
  if (!call_function(&call, 5, "callback", &write->callback)) {
    free(write);
    return NULL;
  }
  write->work.data = write;
  write->environment = call.environment;
  write->position = (off_t)position;
  write->length = bytes.length;
  memcpy(write->path, path, strlen(path) + 1);
  if (bytes.length > 0) memcpy(write->bytes, bytes.data, bytes.length);
  call.environment->open_handles++;
  /* It fails only without a callback, so there is no error to handle. */
  uv_queue_work(call.environment->loop, &write->work, run, on_done);
  return NULL;
}

const struct native_function durable_write_functions[] = {
    {"writeDurably", write_durably},
    {NULL, NULL},
};
