/* What the files of the I/O engine share. All of it belongs to the environment's thread, but for what says otherwise. */
#ifndef NETBUS_IO_H
#define NETBUS_IO_H

#include "addon.h"

#include <sys/uio.h>

/* As in index.ts. */
enum io_code {
  IO_READ = 1,
  IO_WRITE = 2,
  IO_WRITE_DURABLE = 3,
  IO_FLUSH = 4,
  IO_PUNCH_HOLE = 5,
  IO_ZERO_RANGE = 6,
  IO_BLOCK_DISCARD = 7,
  IO_BLOCK_ZERO_OUT = 8,
};

#define IO_OPERATION_WORDS 6
#define IO_SEGMENT_WORDS 3
#define IO_COMPLETION_WORDS 2
#define IO_SEGMENTS_MAX 1024
#define IO_ENTRIES_MAX 4096

/* No operation: the end of a list of slots. */
#define IO_NONE UINT32_MAX

/* One slot. The system call may use `segments` until the operation is finished. */
struct io_operation {
  uint32_t next; /* In the one list that the slot is in: free, batch, waiting, done or completed. */
  uint8_t code;
  uint16_t continuations; /* Times that it was started again: after a short transfer, EINTR or EAGAIN. */
  int fd;
  double tag;
  uint64_t position;
  uint64_t length; /* Bytes in all. */
  uint64_t done;   /* Bytes so far. */
  int64_t result;
  struct iovec *segments; /* Grown as needed, kept with the slot. */
  struct region **regions; /* One reference for each segment. */
  uint32_t segment_count;
  uint32_t segment_first; /* Those before it are done. */
  uint32_t segment_capacity;
};

/* First in, first out, through `next` of the slots. */
struct io_list {
  uint32_t first;
  uint32_t last;
};

/* Most pool threads that one engine uses. libuv's pool has 4 in all, which it shares with Node's files and names. */
#define IO_RUNNERS_MAX 4

struct io_engine;

struct io_runner {
  uv_work_t work;
  struct io_engine *engine;
  bool busy; /* From the queueing of the work to its after-work callback. */
};

/* The part that runs system calls on libuv's pool (io-threads.c). */
struct io_threads {
  uv_mutex_t mutex;
  struct io_list waiting; /* Under the mutex, as are the slots in it. */
  struct io_list done;    /* Under the mutex, as are the slots in it. */
  uv_async_t announcement;
  bool made;          /* The mutex is. */
  bool open;          /* Under the mutex: the announcement may be sent. */
  uint32_t in_flight; /* Operations queued and not harvested yet. */
  struct io_runner runners[IO_RUNNERS_MAX];
};

/* The kernel's ring (io-uring.c). */
struct io_ring {
  int fd;
  uint32_t in_flight; /* Operations that the kernel has. */
  uint32_t tail;      /* Of the submission queue, not published yet. */
  uint8_t *rings;
  size_t rings_length;
  struct io_uring_sqe *entries;
  size_t entries_length;
  uint32_t *submission_head;
  uint32_t *submission_tail;
  uint32_t submission_mask;
  uint32_t *completion_head;
  uint32_t *completion_tail;
  uint32_t completion_mask;
  struct io_uring_cqe *completions;
};

struct io_engine {
  struct environment *environment;
  uint32_t handle;
  napi_ref callback;
  struct io_operation *operations;
  uint32_t entries;
  uint32_t used; /* Slots in flight or not reaped. */
  uint32_t free; /* The first free slot; last in, first out, because it is still in the cache. */
  struct io_list completed;
  struct io_ring *ring; /* NULL: every operation goes to the threads. */
  struct io_threads threads;
  uv_poll_t readiness; /* Of the ring; open where `ring` is not NULL. */
  uv_idle_t reminder;  /* Runs while there is something that was announced but not reaped. */
  uint32_t open_handles;
  bool closing;
};

static inline void io_list_push(struct io_engine *engine, struct io_list *list, uint32_t index) {
  engine->operations[index].next = IO_NONE;
  if (list->first == IO_NONE) {
    list->first = index;
  } else {
    engine->operations[list->last].next = index;
  }
  list->last = index;
}

static inline uint32_t io_list_pop(struct io_engine *engine, struct io_list *list) {
  uint32_t index = list->first;
  if (index != IO_NONE) list->first = engine->operations[index].next;
  return index;
}

static inline struct io_list io_list_empty(void) { return (struct io_list){.first = IO_NONE, .last = IO_NONE}; }

/* ---- io-operation.c ---------------------------------------------------------------------------------------------- */

/* Where the parser stands in a submission. */
struct io_reader {
  const double *words;
  size_t length; /* Words in all. */
  size_t at;
};

/* Reads one operation into a slot and takes its references. Throws and returns false for what only a bug can produce. */
bool io_operation_read(struct environment *environment, struct io_operation *operation, struct io_reader *reader);
/*
 * Counts in what a system call returned (bytes, 0, or a negative errno). True: the operation is finished, with its `result`.
 * False: it has to be started again, for the rest.
 */
bool io_operation_advance(struct io_operation *operation, int64_t returned);
/* Drops the references to the regions. */
void io_operation_release(struct io_operation *operation);
static inline bool io_operation_transfers(const struct io_operation *operation) { return operation->code <= IO_WRITE_DURABLE; }

/* ---- io-uring.c -------------------------------------------------------------------------------------------------- */

/* Returns 0 or a negative errno. */
int io_ring_open(struct io_ring **ring, uint32_t entries);
void io_ring_close(struct io_ring *ring);
/* Queues one operation; there is always room for as many as the engine has slots. */
void io_ring_prepare(struct io_engine *engine, uint32_t index);
/* Hands the last `count` prepared operations to the kernel. Returns how many it took; the others are withdrawn, and `error` says why. */
uint32_t io_ring_submit(struct io_ring *ring, uint32_t count, int *error);
/* Moves what the kernel has finished to the engine's completed list and starts the rest of short transfers. */
void io_ring_harvest(struct io_engine *engine);
/* Waits until the kernel has nothing of the engine's any more. */
void io_ring_wait(struct io_engine *engine);

/* ---- io-threads.c ------------------------------------------------------------------------------------------------ */

int io_threads_open(struct io_engine *engine);
void io_threads_queue(struct io_engine *engine, uint32_t index);
/* Starts the runners that `count` queued operations are worth. */
void io_threads_start(struct io_engine *engine, uint32_t count);
/* Moves finished operations to the engine's completed list. */
void io_threads_harvest(struct io_engine *engine);
/* Drops what no thread has begun yet. Whatever is running ends before `open_handles` reaches 0. */
void io_threads_close(struct io_engine *engine);

/* ---- io-engine.c ------------------------------------------------------------------------------------------------- */

/* Puts a finished operation on the completed list. */
void io_engine_complete(struct io_engine *engine, uint32_t index);
/* Calls JavaScript where there is something to reap. */
void io_engine_announce(struct io_engine *engine);
/* To be called when a handle or work of the engine has ended. */
void io_engine_handle_closed(struct io_engine *engine);

#endif
