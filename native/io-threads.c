/*
 * System calls on libuv's pool: every operation where io_uring is forbidden, and the ioctls, which io_uring does not have.
 *
 * A work per operation would cost two thread hops for each. A work per batch would let one slow operation hold up the rest.
 * So operations wait in one list and a few runners take them from it, each one operation at a time: a batch costs few hops,
 * and a slow operation holds up only its runner. Completions are announced at once, and many announcements become one wake-up.
 */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Operations that a runner does before it goes to the end of the pool's queue, where others may be waiting. */
#define RUN_OPERATIONS_MAX 64

static int64_t transfer(const struct io_operation *operation) {
  const struct iovec *segments = operation->segments + operation->segment_first;
  int count = (int)(operation->segment_count - operation->segment_first);
  off_t position = (off_t)(operation->position + operation->done);
  if (operation->code == IO_READ) return preadv(operation->fd, segments, count, position);
  return pwritev2(operation->fd, segments, count, position, operation->code == IO_WRITE_DURABLE ? RWF_DSYNC : 0);
}

static int64_t run_once(const struct io_operation *operation) {
  uint64_t range[2] = {operation->position, operation->length};
  switch ((enum io_code)operation->code) {
    case IO_READ:
    case IO_WRITE:
    case IO_WRITE_DURABLE:
      return transfer(operation);
    case IO_FLUSH:
      return fdatasync(operation->fd);
    case IO_PUNCH_HOLE:
      return fallocate(operation->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range[0], (off_t)range[1]);
    case IO_ZERO_RANGE:
      return fallocate(operation->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)range[0], (off_t)range[1]);
    case IO_BLOCK_DISCARD:
      return ioctl(operation->fd, BLKDISCARD, range);
    case IO_BLOCK_ZERO_OUT:
      return ioctl(operation->fd, BLKZEROOUT, range);
  }
  errno = EINVAL;
  return -1;
}

/* On a pool thread. While the slot is in no list it is this thread's alone. */
static void run_operations(uv_work_t *work) {
  struct io_engine *engine = ((struct io_runner *)work->data)->engine;
  struct io_threads *threads = &engine->threads;
  for (uint32_t count = 0; count < RUN_OPERATIONS_MAX; count++) {
    uv_mutex_lock(&threads->mutex);
    uint32_t index = io_list_pop(engine, &threads->waiting);
    uv_mutex_unlock(&threads->mutex);
    if (index == IO_NONE) return;
    struct io_operation *operation = &engine->operations[index];
    int64_t returned;
    do {
      returned = run_once(operation);
    } while (!io_operation_advance(operation, returned < 0 ? -errno : returned));
    uv_mutex_lock(&threads->mutex);
    io_list_push(engine, &threads->done, index);
    if (threads->open) uv_async_send(&threads->announcement);
    uv_mutex_unlock(&threads->mutex);
  }
}

static void run_ended(uv_work_t *work, int status) {
  (void)status;
  struct io_runner *runner = work->data;
  struct io_engine *engine = runner->engine;
  runner->busy = false;
  /* Queued after this runner last looked, or more than one run: someone has to do it. */
  uv_mutex_lock(&engine->threads.mutex);
  bool waiting = engine->threads.waiting.first != IO_NONE;
  uv_mutex_unlock(&engine->threads.mutex);
  if (waiting) io_threads_start(engine, 1);
  io_engine_handle_closed(engine);
}

static void on_announcement(uv_async_t *announcement) {
  struct io_engine *engine = announcement->data;
  if (engine->environment->closing) return;
  io_threads_harvest(engine);
  io_engine_announce(engine);
}

int io_threads_open(struct io_engine *engine) {
  struct io_threads *threads = &engine->threads;
  threads->waiting = io_list_empty();
  threads->done = io_list_empty();
  int status = uv_mutex_init(&threads->mutex);
  if (status < 0) return status;
  threads->made = true;
  status = uv_async_init(engine->environment->loop, &threads->announcement, on_announcement);
  if (status < 0) return status;
  threads->open = true;
  threads->announcement.data = engine;
  uv_unref((uv_handle_t *)&threads->announcement);
  engine->open_handles++;
  for (uint32_t each = 0; each < IO_RUNNERS_MAX; each++) {
    threads->runners[each].engine = engine;
    threads->runners[each].work.data = &threads->runners[each];
  }
  return 0;
}

void io_threads_queue(struct io_engine *engine, uint32_t index) {
  engine->threads.in_flight++;
  uv_mutex_lock(&engine->threads.mutex);
  io_list_push(engine, &engine->threads.waiting, index);
  uv_mutex_unlock(&engine->threads.mutex);
}

void io_threads_start(struct io_engine *engine, uint32_t count) {
  for (uint32_t each = 0; each < IO_RUNNERS_MAX && count > 0; each++) {
    struct io_runner *runner = &engine->threads.runners[each];
    if (runner->busy) continue;
    /* It fails only without a callback, so there is no error to handle. */
    uv_queue_work(engine->environment->loop, &runner->work, run_operations, run_ended);
    runner->busy = true;
    engine->open_handles++;
    count--;
  }
}

void io_threads_harvest(struct io_engine *engine) {
  struct io_threads *threads = &engine->threads;
  uv_mutex_lock(&threads->mutex);
  struct io_list done = threads->done;
  threads->done = io_list_empty();
  uv_mutex_unlock(&threads->mutex);
  for (;;) {
    uint32_t index = io_list_pop(engine, &done);
    if (index == IO_NONE) return;
    threads->in_flight--;
    io_engine_complete(engine, index);
  }
}

static void on_closed(uv_handle_t *handle) { io_engine_handle_closed(handle->data); }

void io_threads_close(struct io_engine *engine) {
  struct io_threads *threads = &engine->threads;
  if (!threads->open) return;
  uv_mutex_lock(&threads->mutex);
  threads->waiting = io_list_empty();
  threads->open = false;
  uv_mutex_unlock(&threads->mutex);
  uv_close((uv_handle_t *)&threads->announcement, on_closed);
}
