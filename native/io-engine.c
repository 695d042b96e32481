/* The I/O engine as JavaScript sees it: batches in, completions out. */
#include "io.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

static void free_engine(struct io_engine *engine) {
  struct environment *environment = engine->environment;
  for (uint32_t index = 0; engine->operations != NULL && index < engine->entries; index++) {
    io_operation_release(&engine->operations[index]); /* Those that the end of the environment cut short. */
    free(engine->operations[index].segments);
    free(engine->operations[index].regions);
  }
  free(engine->operations);
  if (engine->threads.made) uv_mutex_destroy(&engine->threads.mutex);
  free(engine);
  environment_handle_closed(environment);
}

void io_engine_handle_closed(struct io_engine *engine) {
  if (--engine->open_handles == 0 && engine->closing) free_engine(engine);
}

/* From so many operations on their way a turn later is no loss. */
#define YIELD_OPERATIONS_MIN 8

static void on_closed(uv_handle_t *handle) { io_engine_handle_closed(handle->data); }

/* Also for an engine that is only half made. Freed when its last handle is closed and its last runner has ended. */
static void close_engine(struct io_engine *engine) {
  engine->closing = true;
  if (engine->handle != 0) handle_remove(&engine->environment->engines, engine->handle);
  if (engine->used > 0) environment_release(engine->environment);
  napi_delete_reference(engine->environment->env, engine->callback);
  io_threads_close(engine);
  uv_close((uv_handle_t *)&engine->reminder, on_closed);
  if (engine->ring == NULL) return;
  uv_poll_stop(&engine->readiness); /* Leaves epoll before the descriptor goes. */
  uv_close((uv_handle_t *)&engine->readiness, on_closed);
  io_ring_close(engine->ring);
}

void engines_close(struct environment *environment) {
  for (uint32_t number = 0; number < environment->engines.size; number++) {
    struct io_engine *engine = environment->engines.slots[number].item;
    if (engine == NULL) continue;
    if (engine->ring != NULL) io_ring_wait(engine);
    close_engine(engine);
  }
}

void io_engine_complete(struct io_engine *engine, uint32_t index) {
  io_operation_release(&engine->operations[index]);
  io_list_push(engine, &engine->completed, index);
}

static void on_reminder(uv_idle_t *reminder) { io_engine_announce(reminder->data); }

void io_engine_announce(struct io_engine *engine) {
  struct environment *environment = engine->environment;
  if (environment->closing || engine->completed.first == IO_NONE) return;
  napi_handle_scope scope;
  if (napi_open_handle_scope(environment->env, &scope) != napi_ok) return;
  environment_call(environment, engine->callback, 0, NULL);
  napi_close_handle_scope(environment->env, scope);
  /* The callback may have destroyed the engine; its memory is there until the close callbacks. */
  if (engine->completed.first != IO_NONE && !engine->closing) uv_idle_start(&engine->reminder, on_reminder);
}

static void on_readiness(uv_poll_t *readiness, int status, int events) {
  (void)status;
  (void)events;
  struct io_engine *engine = readiness->data;
  /* The kernel's worker may want this very processor; what it finishes meanwhile is answered in the same turn. */
  if (engine->ring->in_flight >= YIELD_OPERATIONS_MIN) sched_yield();
  io_ring_harvest(engine);
  io_engine_announce(engine);
}

static int open_ring(struct io_engine *engine) {
  struct io_ring *ring;
  int status = io_ring_open(&ring, engine->entries);
  if (status < 0) return status;
  status = uv_poll_init(engine->environment->loop, &engine->readiness, ring->fd);
  if (status < 0) {
    io_ring_close(ring);
    return status;
  }
  engine->ring = ring;
  engine->open_handles++;
  engine->readiness.data = engine;
  /* Always polled, which costs nothing while idle; what holds the loop is the environment's handle. */
  uv_unref((uv_handle_t *)&engine->readiness);
  return uv_poll_start(&engine->readiness, UV_READABLE, on_readiness);
}

static int open_engine(struct io_engine *engine, bool with_ring) {
  engine->operations = calloc(engine->entries, sizeof *engine->operations);
  if (engine->operations == NULL) return -ENOMEM;
  for (uint32_t index = 0; index < engine->entries; index++) {
    engine->operations[index].next = index + 1 < engine->entries ? index + 1 : IO_NONE;
  }
  engine->completed = io_list_empty();
  int status = io_threads_open(engine);
  if (status == 0 && with_ring) status = open_ring(engine);
  return status < 0 ? status : handle_add(&engine->environment->engines, engine, &engine->handle);
}

static bool call_options(const struct call *call, uint32_t *entries, bool *with_ring) {
  napi_env env = call->env;
  struct call options = {.env = env, .environment = call->environment};
  char name[16];
  uint64_t value;
  if (napi_get_named_property(env, call->values[0], "entries", &options.values[0]) != napi_ok ||
      napi_get_named_property(env, call->values[0], "engine", &options.values[1]) != napi_ok ||
      !call_integer(&options, 0, "entries", 1, IO_ENTRIES_MAX, &value) ||
      !call_text(&options, 1, "engine", "io_uring_setup", name, sizeof name)) {
    return false;
  }
  *entries = (uint32_t)value;
  *with_ring = strcmp(name, "io_uring") == 0;
  if (*with_ring || strcmp(name, "threads") == 0) return true;
  throw_range(env, "engine is \"%s\", allowed are io_uring and threads", name);
  return false;
}

static napi_value io_create(napi_env env, napi_callback_info info) {
  struct call call;
  uint32_t entries;
  bool with_ring;
  napi_ref callback;
  if (!call_begin(&call, env, info, 2) || !call_options(&call, &entries, &with_ring) ||
      !call_function(&call, 1, "onCompletion", &callback)) {
    return NULL;
  }
  struct io_engine *engine = calloc(1, sizeof *engine);
  if (engine == NULL) {
    napi_delete_reference(env, callback);
    return throw_errno(env, ENOMEM, "calloc", NULL);
  }
  *engine = (struct io_engine){.environment = call.environment, .callback = callback, .entries = entries};
  uv_idle_init(call.environment->loop, &engine->reminder);
  engine->reminder.data = engine;
  engine->open_handles = 1;
  call.environment->open_handles++;
  int status = open_engine(engine, with_ring);
  if (status == 0) return answer_number(&call, engine->handle);
  close_engine(engine);
  return throw_errno(env, -status, with_ring ? "io_uring_setup" : "uv_async_init", NULL);
}

static bool call_engine(const struct call *call, size_t index, struct io_engine **engine) {
  double handle;
  *engine = NULL;
  if (napi_get_value_double(call->env, call->values[index], &handle) == napi_ok) {
    *engine = handle_find(&call->environment->engines, handle);
  }
  if (*engine != NULL) return true;
  throw_range(call->env, "not the handle of an I/O engine");
  return false;
}

static bool call_doubles(const struct call *call, size_t index, double **words, size_t *length) {
  napi_typedarray_type type;
  void *data;
  if (napi_get_typedarray_info(call->env, call->values[index], &type, length, &data, NULL, NULL) == napi_ok &&
      type == napi_float64_array) {
    *words = data;
    return true;
  }
  napi_throw_type_error(call->env, NULL, "operations and completions are Float64Arrays");
  return false;
}

static void give_back(struct io_engine *engine, uint32_t index) {
  io_operation_release(&engine->operations[index]);
  engine->operations[index].next = engine->free;
  engine->free = index;
}

static bool goes_to_ring(const struct io_engine *engine, uint32_t index) {
  return engine->ring != NULL && engine->operations[index].code < IO_BLOCK_DISCARD;
}

/* Starts the operations in their order, as many as can be; the others are given back. Returns how many. */
static uint32_t start_batch(struct io_engine *engine, struct io_list *batch, int *error) {
  uint32_t ring_left = 0;
  for (uint32_t index = batch->first; index != IO_NONE; index = engine->operations[index].next) {
    if (!goes_to_ring(engine, index)) continue;
    io_ring_prepare(engine, index);
    ring_left++;
  }
  if (ring_left > 0) ring_left = io_ring_submit(engine->ring, ring_left, error);
  uint32_t taken = 0;
  uint32_t threaded = 0;
  bool refused = false;
  for (uint32_t index = io_list_pop(engine, batch); index != IO_NONE; index = io_list_pop(engine, batch)) {
    bool ring = goes_to_ring(engine, index);
    refused = refused || (ring && ring_left == 0);
    if (refused) {
      give_back(engine, index);
      continue;
    }
    taken++;
    if (ring) {
      ring_left--;
    } else {
      io_threads_queue(engine, index);
      threaded++;
    }
  }
  io_threads_start(engine, threaded);
  return taken;
}

static napi_value io_submit(napi_env env, napi_callback_info info) {
  struct call call;
  struct io_engine *engine;
  double *words;
  uint64_t count;
  struct io_reader reader = {0};
  if (!call_begin(&call, env, info, 3) || !call_engine(&call, 0, &engine) ||
      !call_doubles(&call, 1, &words, &reader.length) || !call_integer(&call, 2, "count", 0, EXACT_INTEGER_MAX, &count)) {
    return NULL;
  }
  reader.words = words;
  struct io_list batch = io_list_empty();
  for (uint64_t each = 0; each < count && engine->free != IO_NONE; each++) {
    uint32_t index = engine->free;
    bool read = io_operation_read(call.environment, &engine->operations[index], &reader);
    engine->free = engine->operations[index].next;
    io_list_push(engine, &batch, index);
    if (read) continue;
    /* A bug: nothing of the batch is started. */
    for (index = io_list_pop(engine, &batch); index != IO_NONE; index = io_list_pop(engine, &batch)) give_back(engine, index);
    return NULL;
  }
  int error = 0;
  uint32_t taken = start_batch(engine, &batch, &error);
  if (engine->used == 0 && taken > 0) environment_hold(call.environment);
  engine->used += taken;
  return answer_number(&call, taken == 0 ? -error : (double)taken);
}

static napi_value io_reap(napi_env env, napi_callback_info info) {
  struct call call;
  struct io_engine *engine;
  double *words;
  size_t length;
  if (!call_begin(&call, env, info, 2) || !call_engine(&call, 0, &engine) || !call_doubles(&call, 1, &words, &length)) {
    return NULL;
  }
  if (engine->ring != NULL) io_ring_harvest(engine);
  if (engine->threads.in_flight > 0) io_threads_harvest(engine);
  uint32_t count = 0;
  for (; engine->completed.first != IO_NONE && (count + 1) * IO_COMPLETION_WORDS <= length; count++) {
    uint32_t index = io_list_pop(engine, &engine->completed);
    words[count * IO_COMPLETION_WORDS] = engine->operations[index].tag;
    words[count * IO_COMPLETION_WORDS + 1] = (double)engine->operations[index].result;
    give_back(engine, index);
  }
  engine->used -= count;
  if (engine->used == 0 && count > 0) environment_release(call.environment);
  if (engine->completed.first == IO_NONE) {
    uv_idle_stop(&engine->reminder);
  } else {
    uv_idle_start(&engine->reminder, on_reminder); /* Harvested here, so the ring no longer announces them. */
  }
  return answer_number(&call, count);
}

static napi_value io_pending(napi_env env, napi_callback_info info) {
  struct call call;
  struct io_engine *engine;
  if (!call_begin(&call, env, info, 1) || !call_engine(&call, 0, &engine)) return NULL;
  return answer_number(&call, engine->used);
}

static napi_value io_destroy(napi_env env, napi_callback_info info) {
  struct call call;
  struct io_engine *engine;
  if (!call_begin(&call, env, info, 1) || !call_engine(&call, 0, &engine)) return NULL;
  if (engine->used > 0) return throw_errno(env, EBUSY, "ioDestroy", "operations are in flight");
  close_engine(engine);
  return NULL;
}

const struct native_function io_functions[] = {
    {"ioCreate", io_create},   {"ioSubmit", io_submit},   {"ioReap", io_reap},
    {"ioPending", io_pending}, {"ioDestroy", io_destroy}, {NULL, NULL},
};
