/* What the files of the addon share: the state of one environment, its handle tables, and how a call is read and answered. */
#ifndef NETBUS_ADDON_H
#define NETBUS_ADDON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define NAPI_VERSION 8

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

/* ---- handles (handle-table.c) ------------------------------------------------------------------------------------ */

/* Most things of one kind that an environment may have at a time. */
#define HANDLES_MAX 16384u

struct handle_slot {
  void *item;
  uint32_t generation; /* Part of the handle, so a stale handle never finds the slot's next owner. */
  uint32_t next_free;
};

/* Small integers for pointers. All zeroes is an empty table. */
struct handle_table {
  struct handle_slot *slots;
  uint32_t size; /* Slots that were ever used. */
  uint32_t capacity;
  uint32_t free_first; /* Slot number + 1; 0: none. First in, first out, so that generations are used up evenly. */
  uint32_t free_last;
};

/* Gives `item` a handle that no one had before. Returns 0, -EMFILE at HANDLES_MAX, or -ENOMEM. */
int handle_add(struct handle_table *table, void *item, uint32_t *handle);
/* The item of a handle; NULL where it is stale, was never given, or is no handle at all. */
void *handle_find(const struct handle_table *table, double handle);
/* Makes the handle stale for ever. */
void handle_remove(struct handle_table *table, uint32_t handle);
void handle_table_free(struct handle_table *table);

/* ---- environment (module.c) -------------------------------------------------------------------------------------- */

struct tls_scratch;

/* One JavaScript thread that has loaded the addon. Everything here belongs to that thread. */
struct environment {
  napi_env env;
  uv_loop_t *loop;
  napi_async_context async_context;
  napi_async_cleanup_hook_handle cleanup_hook;
  uv_async_t keepalive; /* Never sent: referenced exactly while `keepalive_users` is not 0. */
  uint32_t keepalive_users;
  uv_idle_t busy_poll;
  uint64_t busy_poll_end; /* By uv_hrtime. */
  uint32_t open_handles; /* libuv handles and works that must end before this memory may go. */
  bool closing;          /* The environment is being torn down: JavaScript can no longer be called. */
  uint32_t region_count;
  struct handle_table regions;
  struct handle_table watches;
  struct handle_table engines;
  struct handle_table tls_contexts;
  struct handle_table tls_connections;
  struct tls_scratch *tls_scratch; /* NULL until the first connection. */
};

/* Holds the event loop, or lets it go. Calls are counted. */
void environment_hold(struct environment *environment);
void environment_release(struct environment *environment);
/* Calls a JavaScript function from the event loop. What it throws becomes an uncaught exception of the process. */
void environment_call(struct environment *environment, napi_ref function, size_t count, const napi_value *values);
/* To be called when something counted in `open_handles` has ended. */
void environment_handle_closed(struct environment *environment);

/* A function that the addon exports; tables of them end with an empty name. */
struct native_function {
  const char *name;
  napi_callback callback;
};

extern const struct native_function region_functions[];
extern const struct native_function window_functions[];
extern const struct native_function descriptor_functions[];
extern const struct native_function watch_functions[];
extern const struct native_function unix_socket_functions[];
extern const struct native_function busy_poll_functions[];
extern const struct native_function tcp_socket_functions[];
extern const struct native_function tls_context_functions[];
extern const struct native_function tls_functions[];
extern const struct native_function message_functions[];
extern const struct native_function datagram_functions[];
extern const struct native_function file_functions[];
extern const struct native_function extent_functions[];
extern const struct native_function durable_write_functions[];
extern const struct native_function io_functions[];

/* ---- calls (arguments.c) ----------------------------------------------------------------------------------------- */

#define ARGUMENTS_MAX 6
/* The largest integer up to which a double holds every one: 2^53 - 1. */
#define EXACT_INTEGER_MAX ((UINT64_C(1) << 53) - 1)

/* One call from JavaScript. The readers below throw and return false for arguments that only a bug can produce. */
struct call {
  napi_env env;
  struct environment *environment;
  napi_value values[ARGUMENTS_MAX];
};

/* A range of a Uint8Array. */
struct bytes {
  uint8_t *data;
  size_t length;
};

/* An integer of JavaScript's exact range, [0, 2^53). */
static inline bool exact_integer(double value, uint64_t *out) {
  if (!(value >= 0 && value <= (double)EXACT_INTEGER_MAX)) return false;
  *out = (uint64_t)value;
  return (double)*out == value;
}

bool call_begin(struct call *call, napi_env env, napi_callback_info info, size_t count);
bool call_integer(const struct call *call, size_t index, const char *name, uint64_t min, uint64_t max, uint64_t *out);
bool call_descriptor(const struct call *call, size_t index, int *fd);
/* Reads (buffer, offset, length) at index, index + 1 and index + 2. */
bool call_bytes(const struct call *call, size_t index, struct bytes *out);
/* Throws ENAMETOOLONG, naming `system_call`, where the text and its final zero are longer than `capacity`. */
bool call_text(const struct call *call, size_t index, const char *name, const char *system_call, char *out, size_t capacity);
bool call_function(const struct call *call, size_t index, const char *name, napi_ref *function);
/* A boolean property of an object. */
bool call_flag(const struct call *call, size_t index, const char *name, bool *out);

napi_value answer_number(const struct call *call, double value);
/* Throws an Error with code, errno and syscall: "ENOENT: bind /run/x.sock (No such file or directory)". `detail` may be NULL. */
napi_value throw_errno(napi_env env, int error, const char *system_call, const char *detail);
napi_value throw_range(napi_env env, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- regions (region.c, window.c, fault.c) ----------------------------------------------------------------------- */

struct window;

struct region {
  struct environment *environment;
  uint8_t *base;
  uint64_t length;
  uint64_t mapped_length; /* Rounded up to whole pages of the mapping, as munmap wants it for huge pages. */
  uint32_t references;    /* The owner's, and one for each use by I/O in flight. */
  int guard;              /* Entry in the table of fault.c, or -1. */
  struct window *windows;
};

/* The region of a handle, or NULL. */
static inline struct region *region_find(const struct environment *environment, double handle) {
  return handle_find(&environment->regions, handle);
}

static inline bool region_contains(const struct region *region, uint64_t offset, uint64_t length) {
  return length <= region->length && offset <= region->length - length;
}

bool call_region(const struct call *call, size_t index, struct region **region);
static inline void region_reference(struct region *region) { region->references++; }
/* Unmaps the region where this was its last user. */
void region_release(struct region *region);
void regions_close(struct environment *environment);
/* Detaches every window. Without `detach` they are only forgotten (at the end of the environment, which detaches by itself). */
void windows_close(struct region *region, bool detach);

/*
 * Puts a mapping under the SIGBUS guard: a page that its file no longer has reads as zeroes. `page` is the mapping's page
 * size. Returns the entry, or -ENOSPC where the process has too many.
 */
int fault_guard_add(uint8_t *base, uint64_t length, size_t page);
void fault_guard_remove(int guard);
uint64_t fault_guard_count(int guard);

/* ---- teardown of the other parts --------------------------------------------------------------------------------- */

void busy_poll_open(struct environment *environment);
void busy_poll_close(struct environment *environment);
void watches_close(struct environment *environment);
void engines_close(struct environment *environment);
void tls_connections_close(struct environment *environment);
void tls_contexts_close(struct environment *environment);

#endif
