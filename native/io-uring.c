/*
 * The kernel's ring, by its three system calls alone. Barriers: the kernel's tail and head are loaded with acquire, ours are
 * stored with release, each once per batch; io_uring_enter orders the rest.
 *
 * Completions are noticed by polling the ring's own descriptor, which is readable exactly while there are any: no eventfd to
 * be written by the kernel and drained by us, and no wake-up for completions that ioReap has already taken.
 */
#include "io.h"

#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* RW_CUR_POS came with Linux 5.6, as did the youngest of the operations that are used here. */
#define FEATURES_NEEDED (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_RW_CUR_POS)
/* Where one thread submits and often enters the kernel anyway, completions need no interrupt to it (Linux 6.0). */
#define SETUP_FLAGS_WANTED (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL)
/* A single read or write moves 2 GiB - 4 KiB at most; longer ones go as vectors, whose length is not in 32 bits. */
#define SINGLE_BYTES_MAX 0x7ffff000u

static int ring_setup(uint32_t entries, struct io_uring_params *parameters) {
  return (int)syscall(SYS_io_uring_setup, entries, parameters);
}

static int ring_enter(int fd, uint32_t submitted, uint32_t awaited, uint32_t flags) {
  int status = (int)syscall(SYS_io_uring_enter, fd, submitted, awaited, flags, NULL, 0);
  return status < 0 ? -errno : status;
}

static int map_ring(struct io_ring *ring, const struct io_uring_params *parameters) {
  size_t submission = parameters->sq_off.array + parameters->sq_entries * sizeof(uint32_t);
  size_t completion = parameters->cq_off.cqes + parameters->cq_entries * sizeof(struct io_uring_cqe);
  ring->rings_length = submission > completion ? submission : completion;
  ring->entries_length = parameters->sq_entries * sizeof(struct io_uring_sqe);
  int flags = MAP_SHARED | MAP_POPULATE;
  void *rings = mmap(NULL, ring->rings_length, PROT_READ | PROT_WRITE, flags, ring->fd, IORING_OFF_SQ_RING);
  if (rings == MAP_FAILED) return -errno;
  ring->rings = rings;
  void *entries = mmap(NULL, ring->entries_length, PROT_READ | PROT_WRITE, flags, ring->fd, IORING_OFF_SQES);
  if (entries == MAP_FAILED) return -errno;
  ring->entries = entries;
  ring->submission_head = (uint32_t *)(ring->rings + parameters->sq_off.head);
  ring->submission_tail = (uint32_t *)(ring->rings + parameters->sq_off.tail);
  ring->submission_mask = parameters->sq_entries - 1;
  ring->completion_head = (uint32_t *)(ring->rings + parameters->cq_off.head);
  ring->completion_tail = (uint32_t *)(ring->rings + parameters->cq_off.tail);
  ring->completion_mask = parameters->cq_entries - 1;
  ring->completions = (struct io_uring_cqe *)(ring->rings + parameters->cq_off.cqes);
  /* Entries are used in order, so the array of indices between queue and entries never changes. */
  uint32_t *array = (uint32_t *)(ring->rings + parameters->sq_off.array);
  for (uint32_t index = 0; index < parameters->sq_entries; index++) array[index] = index;
  return 0;
}

int io_ring_open(struct io_ring **out, uint32_t entries) {
  struct io_ring *ring = calloc(1, sizeof *ring);
  if (ring == NULL) return -ENOMEM;
  struct io_uring_params parameters = {.flags = SETUP_FLAGS_WANTED};
  ring->fd = ring_setup(entries, &parameters);
  if (ring->fd < 0 && errno == EINVAL) {
    parameters = (struct io_uring_params){0};
    ring->fd = ring_setup(entries, &parameters);
  }
  if (ring->fd < 0) {
    int error = errno;
    free(ring);
    return -error;
  }
  int status = (parameters.features & FEATURES_NEEDED) == FEATURES_NEEDED ? map_ring(ring, &parameters) : -ENOSYS;
  if (status < 0) {
    io_ring_close(ring);
    return status;
  }
  *out = ring;
  return 0;
}

void io_ring_close(struct io_ring *ring) {
  if (ring->entries != NULL) munmap(ring->entries, ring->entries_length);
  if (ring->rings != NULL) munmap(ring->rings, ring->rings_length);
  close(ring->fd);
  free(ring);
}

static void prepare_transfer(struct io_uring_sqe *entry, const struct io_operation *operation) {
  bool reading = operation->code == IO_READ;
  const struct iovec *segments = operation->segments + operation->segment_first;
  uint32_t count = operation->segment_count - operation->segment_first;
  entry->off = operation->position + operation->done;
  entry->rw_flags = operation->code == IO_WRITE_DURABLE ? RWF_DSYNC : 0;
  if (count == 1 && segments->iov_len <= SINGLE_BYTES_MAX) {
    entry->opcode = reading ? IORING_OP_READ : IORING_OP_WRITE;
    entry->addr = (uint64_t)(uintptr_t)segments->iov_base;
    entry->len = (uint32_t)segments->iov_len;
  } else {
    entry->opcode = reading ? IORING_OP_READV : IORING_OP_WRITEV;
    entry->addr = (uint64_t)(uintptr_t)segments;
    entry->len = count;
  }
}

static void prepare_range(struct io_uring_sqe *entry, const struct io_operation *operation, uint32_t mode) {
  entry->opcode = IORING_OP_FALLOCATE;
  entry->off = operation->position;
  entry->addr = operation->length;
  entry->len = mode | FALLOC_FL_KEEP_SIZE;
}

void io_ring_prepare(struct io_engine *engine, uint32_t index) {
  struct io_ring *ring = engine->ring;
  const struct io_operation *operation = &engine->operations[index];
  struct io_uring_sqe *entry = &ring->entries[ring->tail++ & ring->submission_mask];
  memset(entry, 0, sizeof *entry);
  entry->fd = operation->fd;
  entry->user_data = index;
  switch ((enum io_code)operation->code) {
    case IO_READ:
    case IO_WRITE:
    case IO_WRITE_DURABLE:
      prepare_transfer(entry, operation);
      break;
    case IO_FLUSH:
      entry->opcode = IORING_OP_FSYNC;
      entry->fsync_flags = IORING_FSYNC_DATASYNC;
      break;
    case IO_PUNCH_HOLE:
      prepare_range(entry, operation, FALLOC_FL_PUNCH_HOLE);
      break;
    case IO_ZERO_RANGE:
      prepare_range(entry, operation, FALLOC_FL_ZERO_RANGE);
      break;
    case IO_BLOCK_DISCARD:
    case IO_BLOCK_ZERO_OUT: /* io_uring has no ioctl: these go to the threads. */
      entry->opcode = IORING_OP_NOP;
      break;
  }
}

uint32_t io_ring_submit(struct io_ring *ring, uint32_t count, int *error) {
  uint32_t taken = 0;
  *error = 0;
  __atomic_store_n(ring->submission_tail, ring->tail, __ATOMIC_RELEASE);
  while (taken < count) {
    int status = ring_enter(ring->fd, count - taken, 0, 0);
    if (status == -EINTR) continue;
    if (status <= 0) {
      *error = status < 0 ? -status : EAGAIN;
      break;
    }
    taken += (uint32_t)status;
  }
  /* Without SQPOLL the kernel reads the queue only within enter, so what it has not taken can be taken back. */
  ring->tail = __atomic_load_n(ring->submission_head, __ATOMIC_ACQUIRE);
  __atomic_store_n(ring->submission_tail, ring->tail, __ATOMIC_RELEASE);
  ring->in_flight += taken;
  return taken;
}

static void restart(struct io_engine *engine, struct io_list *unfinished) {
  uint32_t count = 0;
  for (uint32_t index = unfinished->first; index != IO_NONE; index = engine->operations[index].next) {
    io_ring_prepare(engine, index);
    count++;
  }
  int error;
  uint32_t taken = io_ring_submit(engine->ring, count, &error);
  for (uint32_t position = 0; position < count; position++) {
    uint32_t index = io_list_pop(engine, unfinished);
    if (position < taken) continue;
    engine->operations[index].result = -error;
    io_engine_complete(engine, index);
  }
}

void io_ring_harvest(struct io_engine *engine) {
  struct io_ring *ring = engine->ring;
  struct io_list unfinished = io_list_empty();
  uint32_t head = *ring->completion_head; /* Only this thread writes it. */
  uint32_t tail = __atomic_load_n(ring->completion_tail, __ATOMIC_ACQUIRE);
  if (head == tail) return;
  for (; head != tail; head++) {
    const struct io_uring_cqe *completion = &ring->completions[head & ring->completion_mask];
    uint32_t index = (uint32_t)completion->user_data;
    ring->in_flight--;
    if (io_operation_advance(&engine->operations[index], completion->res)) {
      io_engine_complete(engine, index);
    } else {
      io_list_push(engine, &unfinished, index);
    }
  }
  /* The kernel may overwrite the completions from here on. */
  __atomic_store_n(ring->completion_head, head, __ATOMIC_RELEASE);
  if (unfinished.first != IO_NONE) restart(engine, &unfinished);
}

void io_ring_wait(struct io_engine *engine) {
  while (engine->ring->in_flight > 0) {
    int status = ring_enter(engine->ring->fd, 0, 1, IORING_ENTER_GETEVENTS);
    if (status < 0 && status != -EINTR && status != -EAGAIN && status != -EBUSY) return;
    io_ring_harvest(engine);
  }
}
