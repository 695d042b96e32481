/* Readiness of descriptors on the thread's own event loop. */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

struct watch {
  uv_poll_t poll;
  struct environment *environment;
  napi_ref callback;
  uint32_t handle;
  int fd;
};

static void on_closed(uv_handle_t *handle) {
  struct watch *watch = handle->data;
  struct environment *environment = watch->environment;
  free(watch);
  environment_handle_closed(environment);
}

/* libuv says EBADF for every POLLERR; the socket knows better. */
static int error_of(int fd) {
  if (fcntl(fd, F_GETFD) < 0) return EBADF;
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error != 0 ? error : EIO;
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  struct watch *watch = poll->data;
  struct environment *environment = watch->environment;
  if (environment->closing) return;
  napi_handle_scope scope;
  if (napi_open_handle_scope(environment->env, &scope) != napi_ok) return;
  napi_value values[3];
  int error = status == UV_EBADF ? -error_of(watch->fd) : status;
  if (napi_create_int32(environment->env, error, &values[0]) == napi_ok &&
      napi_get_boolean(environment->env, (events & UV_READABLE) != 0, &values[1]) == napi_ok &&
      napi_get_boolean(environment->env, (events & UV_WRITABLE) != 0, &values[2]) == napi_ok) {
    /* The callback may end this watch: nothing of it is touched afterwards. */
    environment_call(environment, watch->callback, 3, values);
  }
  napi_close_handle_scope(environment->env, scope);
}

static bool call_interest(const struct call *call, size_t index, int *events) {
  bool readable;
  bool writable;
  if (!call_flag(call, index, "readable", &readable) || !call_flag(call, index, "writable", &writable)) return false;
  *events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
  return true;
}

/* libuv sees a duplicate only while the other watch waits for something. */
static bool is_watched(const struct environment *environment, int fd) {
  for (uint32_t number = 0; number < environment->watches.size; number++) {
    const struct watch *watch = environment->watches.slots[number].item;
    if (watch != NULL && watch->fd == fd) return true;
  }
  return false;
}

/* Starts polling a new watch. Returns 0 or a negative errno; then the watch is freed, at once or by libuv. */
static int open_watch(struct watch *watch, int events) {
  struct environment *environment = watch->environment;
  int status = handle_add(&environment->watches, watch, &watch->handle);
  if (status < 0) {
    free(watch);
    return status;
  }
  status = uv_poll_init(environment->loop, &watch->poll, watch->fd);
  if (status < 0) {
    handle_remove(&environment->watches, watch->handle);
    free(watch);
    return status;
  }
  watch->poll.data = watch;
  environment->open_handles++;
  status = uv_poll_start(&watch->poll, events, on_poll);
  if (status < 0) {
    handle_remove(&environment->watches, watch->handle);
    uv_close((uv_handle_t *)&watch->poll, on_closed);
    return status;
  }
  /* The environment's handle holds the loop instead: a watch that waits for nothing just now still does. */
  uv_unref((uv_handle_t *)&watch->poll);
  environment_hold(environment);
  return 0;
}

static napi_value watch_descriptor(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  int events;
  napi_ref callback;
  if (!call_begin(&call, env, info, 3) || !call_descriptor(&call, 0, &fd) || !call_interest(&call, 1, &events) ||
      !call_function(&call, 2, "callback", &callback)) {
    return NULL;
  }
  int status = -EEXIST;
  struct watch *watch = NULL;
  if (!is_watched(call.environment, fd)) {
    watch = calloc(1, sizeof *watch);
    status = -ENOMEM;
    if (watch != NULL) {
      *watch = (struct watch){.environment = call.environment, .callback = callback, .fd = fd};
      status = open_watch(watch, events);
    }
  }
  if (status < 0) {
    napi_delete_reference(env, callback);
    return throw_errno(env, -status, "uv_poll", status == -EEXIST ? "the descriptor is being watched already" : NULL);
  }
  return answer_number(&call, watch->handle);
}

static napi_value rewatch(napi_env env, napi_callback_info info) {
  struct call call;
  double handle;
  int events;
  if (!call_begin(&call, env, info, 2) || !call_interest(&call, 1, &events)) return NULL;
  struct watch *watch = NULL;
  if (napi_get_value_double(env, call.values[0], &handle) == napi_ok) watch = handle_find(&call.environment->watches, handle);
  if (watch == NULL) return throw_range(env, "not the handle of a watch");
  int status = uv_poll_start(&watch->poll, events, on_poll);
  return status < 0 ? throw_errno(env, -status, "uv_poll", NULL) : NULL;
}

/* The poll leaves epoll at once, so the descriptor may be closed right away; the memory goes in on_closed. */
static void close_watch(struct watch *watch) {
  struct environment *environment = watch->environment;
  handle_remove(&environment->watches, watch->handle);
  napi_delete_reference(environment->env, watch->callback);
  uv_poll_stop(&watch->poll);
  uv_close((uv_handle_t *)&watch->poll, on_closed);
  environment_release(environment);
}

static napi_value unwatch(napi_env env, napi_callback_info info) {
  struct call call;
  double handle;
  if (!call_begin(&call, env, info, 1)) return NULL;
  if (napi_get_value_double(env, call.values[0], &handle) != napi_ok) {
    napi_throw_type_error(env, NULL, "watch is not a number");
    return NULL;
  }
  struct watch *watch = handle_find(&call.environment->watches, handle);
  if (watch != NULL) close_watch(watch);
  return NULL;
}

void watches_close(struct environment *environment) {
  for (uint32_t number = 0; number < environment->watches.size; number++) {
    struct watch *watch = environment->watches.slots[number].item;
    if (watch != NULL) close_watch(watch);
  }
}

const struct native_function watch_functions[] = {
    {"watch", watch_descriptor},
    {"rewatch", rewatch},
    {"unwatch", unwatch},
    {NULL, NULL},
};
