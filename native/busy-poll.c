/* Keeps the event loop from sleeping for a moment: what comes meanwhile costs no wake-up. */
#include "addon.h"

#include <sched.h>

#define BUSY_POLL_US_MAX 1000

static void on_idle(uv_idle_t *idle) {
  struct environment *environment = idle->data;
  if (uv_hrtime() >= environment->busy_poll_end) uv_idle_stop(idle);
  /* Whoever wants this processor gets it at once, among them perhaps the one that is waited for. */
  else sched_yield();
}

/* libuv asks for events without waiting for them while an idle handle is active. */
static napi_value busy_poll(napi_env env, napi_callback_info info) {
  struct call call;
  uint64_t microseconds;
  if (!call_begin(&call, env, info, 1) || !call_integer(&call, 0, "microseconds", 0, BUSY_POLL_US_MAX, &microseconds)) {
    return NULL;
  }
  struct environment *environment = call.environment;
  environment->busy_poll_end = uv_hrtime() + microseconds * 1000;
  if (microseconds == 0) uv_idle_stop(&environment->busy_poll);
  else uv_idle_start(&environment->busy_poll, on_idle);
  return NULL;
}

static void on_closed(uv_handle_t *handle) { environment_handle_closed(handle->data); }

void busy_poll_open(struct environment *environment) {
  uv_idle_init(environment->loop, &environment->busy_poll); /* Cannot fail. */
  environment->busy_poll.data = environment;
  environment->open_handles++;
}

void busy_poll_close(struct environment *environment) { uv_close((uv_handle_t *)&environment->busy_poll, on_closed); }

const struct native_function busy_poll_functions[] = {
    {"busyPoll", busy_poll},
    {NULL, NULL},
};
