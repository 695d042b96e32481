/* Windows: ArrayBuffers straight over a region's memory. */
#include "addon.h"

#include <errno.h>
#include <stdlib.h>

/* The longest typed array of Node 20 (V8 11). */
#define WINDOW_BYTES_MAX UINT32_MAX

/* One ArrayBuffer. Lives until V8 has let its memory go, which may be long after the region is unmapped. */
struct window {
  struct window *next;
  struct window **link; /* What points here in the region's list. */
  struct region *region; /* NULL once the region is gone. */
  napi_ref buffer;       /* Weak: a window that nobody looks through any more may be collected. */
  uint64_t offset;
  uint64_t length;
};

static void unlink_window(struct window *window) {
  *window->link = window->next;
  if (window->next != NULL) window->next->link = window->link;
  window->region = NULL;
}

/* On the environment's thread, after the ArrayBuffer was collected or detached, or when the environment ends. */
static void window_finalized(napi_env env, void *data, void *hint) {
  (void)data;
  struct window *window = hint;
  if (window->region != NULL) {
    unlink_window(window);
    napi_delete_reference(env, window->buffer);
  }
  free(window);
}

/* The window of this range that is still alive, or NULL. */
static napi_value find_window(napi_env env, const struct region *region, uint64_t offset, uint64_t length) {
  for (struct window *each = region->windows; each != NULL; each = each->next) {
    if (each->offset != offset || each->length != length) continue;
    napi_value buffer = NULL;
    if (napi_get_reference_value(env, each->buffer, &buffer) == napi_ok && buffer != NULL) return buffer;
  }
  return NULL;
}

static napi_value add_window(const struct call *call, struct region *region, uint64_t offset, uint64_t length) {
  napi_env env = call->env;
  struct window *window = calloc(1, sizeof *window);
  if (window == NULL) return throw_errno(env, ENOMEM, "calloc", NULL);
  napi_value buffer;
  napi_status status = napi_create_external_arraybuffer(env, region->base + offset, length, window_finalized, window, &buffer);
  if (status != napi_ok) {
    /* The record is not freed: whether V8 has already taken it over depends on where it failed. */
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    return pending ? NULL : throw_errno(env, ENOTSUP, "napi_create_external_arraybuffer", NULL);
  }
  /*
   * V8 counts the window as external memory: it may collect once for each large window that is made, and no more while it is
   * used. Taking the length off the count again (napi_adjust_external_memory) ends the process on Node 24, which checks it.
   */
  window->offset = offset;
  window->length = length;
  if (napi_create_reference(env, buffer, 0, &window->buffer) != napi_ok) {
    napi_detach_arraybuffer(env, buffer); /* Untracked, it could outlive the mapping. */
    return throw_errno(env, ENOMEM, "napi_create_reference", NULL);
  }
  window->region = region;
  window->next = region->windows;
  window->link = &region->windows;
  if (window->next != NULL) window->next->link = &window->next;
  region->windows = window;
  return buffer;
}

static napi_value region_window(napi_env env, napi_callback_info info) {
  struct call call;
  struct region *region;
  uint64_t offset;
  uint64_t length;
  if (!call_begin(&call, env, info, 3) || !call_region(&call, 0, &region) ||
      !call_integer(&call, 1, "offset", 0, region->length, &offset) ||
      !call_integer(&call, 2, "length", 1, WINDOW_BYTES_MAX, &length)) {
    return NULL;
  }
  if (!region_contains(region, offset, length)) {
    return throw_range(env, "a window of %llu bytes at %llu reaches beyond the region's %llu", (unsigned long long)length,
                       (unsigned long long)offset, (unsigned long long)region->length);
  }
  napi_value known = find_window(env, region, offset, length);
  return known != NULL ? known : add_window(&call, region, offset, length);
}

void windows_close(struct region *region, bool detach) {
  napi_env env = region->environment->env;
  while (region->windows != NULL) {
    struct window *window = region->windows;
    napi_value buffer = NULL;
    if (detach) napi_get_reference_value(env, window->buffer, &buffer);
    napi_delete_reference(env, window->buffer);
    unlink_window(window);
    if (buffer != NULL) napi_detach_arraybuffer(env, buffer); /* The finalizer frees the record, now or later. */
  }
}

const struct native_function window_functions[] = {
    {"regionWindow", region_window},
    {NULL, NULL},
};
