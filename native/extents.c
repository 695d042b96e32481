/* Where the data of a file is, and where its holes are. On libuv's pool: of a fragmented file the file system may have to read its map from the disk. */
#include "addon.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Ranges of one answer, so that it is short and the pool's thread is free again soon. */
#define EXTENTS_MAX 1000

struct look {
  napi_async_work work;
  napi_deferred answer;
  int fd;
  int error;
  uint64_t from;
  uint64_t end;
  uint64_t next;
  uint32_t count;
  uint64_t ranges[EXTENTS_MAX][2]; /* Position and length. */
};

/* On a pool thread. The file may change meanwhile: whatever the kernel says is kept in [from, end) and in order. */
static void run_look(napi_env env, void *data) {
  (void)env;
  struct look *look = data;
  look->next = look->from;
  for (uint32_t tried = 0; tried < EXTENTS_MAX && look->next < look->end; tried++) {
    off_t start = lseek(look->fd, (off_t)look->next, SEEK_DATA);
    /* ENXIO: no data from there on, or the file ends before. */
    off_t hole = start < 0 ? start : lseek(look->fd, start, SEEK_HOLE);
    if (hole < 0 && errno != ENXIO) {
      look->error = errno;
      return;
    }
    if (hole < 0 || (uint64_t)start >= look->end) {
      look->next = look->end;
      return;
    }
    uint64_t first = (uint64_t)start < look->next ? look->next : (uint64_t)start;
    uint64_t last = (uint64_t)hole > look->end ? look->end : (uint64_t)hole;
    if (last <= first) continue;
    look->ranges[look->count][0] = first;
    look->ranges[look->count][1] = last - first;
    look->count++;
    look->next = last;
  }
}

static napi_value look_answer(napi_env env, const struct look *look) {
  size_t length = 1 + 2 * (size_t)look->count;
  void *memory;
  napi_value buffer;
  napi_value array;
  if (napi_create_arraybuffer(env, length * sizeof(double), &memory, &buffer) != napi_ok ||
      napi_create_typedarray(env, napi_float64_array, length, buffer, 0, &array) != napi_ok) {
    return NULL;
  }
  double *values = memory;
  values[0] = (double)look->next;
  for (uint32_t i = 0; i < look->count; i++) {
    values[1 + 2 * i] = (double)look->ranges[i][0];
    values[2 + 2 * i] = (double)look->ranges[i][1];
  }
  return array;
}

/* Where the environment is being torn down nothing can be told any more. */
static void look_ended(napi_env env, napi_status status, void *data) {
  struct look *look = data;
  if (look->error == 0 && status == napi_ok) {
    napi_value array = look_answer(env, look);
    if (array != NULL) napi_resolve_deferred(env, look->answer, array);
  } else {
    napi_value error;
    throw_errno(env, look->error == 0 ? ECANCELED : look->error, "lseek", "SEEK_DATA");
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_reject_deferred(env, look->answer, error);
  }
  napi_delete_async_work(env, look->work);
  free(look);
}

static napi_value data_extents(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint64_t from;
  uint64_t end;
  if (!call_begin(&call, env, info, 3) || !call_descriptor(&call, 0, &fd) ||
      !call_integer(&call, 1, "from", 0, EXACT_INTEGER_MAX, &from) ||
      !call_integer(&call, 2, "end", from, EXACT_INTEGER_MAX, &end)) {
    return NULL;
  }
  struct look *look = calloc(1, sizeof *look);
  if (look == NULL) return throw_errno(env, ENOMEM, "lseek", NULL);
  look->fd = fd;
  look->from = from;
  look->end = end;
  napi_value name;
  napi_value promise;
  if (napi_create_string_utf8(env, "netbus:extents", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_create_async_work(env, NULL, name, run_look, look_ended, look, &look->work) == napi_ok) {
    if (napi_create_promise(env, &look->answer, &promise) == napi_ok && napi_queue_async_work(env, look->work) == napi_ok) {
      return promise;
    }
    napi_delete_async_work(env, look->work);
  }
  free(look);
  return throw_errno(env, ENOMEM, "lseek", NULL);
}

const struct native_function extent_functions[] = {
    {"dataExtents", data_extents},
    {NULL, NULL},
};
