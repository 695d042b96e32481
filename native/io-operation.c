/* One operation: read from the submission, continued after short transfers, and let go. */
#include "io.h"

#include <errno.h>
#include <stdlib.h>

/* A transfer that is still not done after so many starts is an error: the file is not one that can be waited for. */
#define CONTINUATIONS_MAX 64
#define SEGMENTS_MIN 4

static bool grow(struct io_operation *operation, uint32_t count) {
  if (count <= operation->segment_capacity) return true;
  uint32_t capacity = operation->segment_capacity == 0 ? SEGMENTS_MIN : operation->segment_capacity;
  while (capacity < count) capacity *= 2;
  struct iovec *segments = realloc(operation->segments, capacity * sizeof *segments);
  if (segments != NULL) operation->segments = segments;
  struct region **regions = realloc(operation->regions, capacity * sizeof *regions);
  if (regions != NULL) operation->regions = regions;
  if (segments == NULL || regions == NULL) return false;
  operation->segment_capacity = capacity;
  return true;
}

static bool read_segment(struct environment *environment, struct io_operation *operation, const double *words) {
  struct region *region = region_find(environment, words[0]);
  uint64_t offset;
  uint64_t length;
  if (region == NULL) {
    throw_range(environment->env, "%.17g is not the handle of a region", words[0]);
    return false;
  }
  if (!exact_integer(words[1], &offset) || !exact_integer(words[2], &length) || !region_contains(region, offset, length)) {
    throw_range(environment->env, "a segment of %.17g bytes at %.17g reaches beyond the region's %llu", words[2], words[1],
                (unsigned long long)region->length);
    return false;
  }
  region_reference(region);
  operation->regions[operation->segment_count] = region;
  operation->segments[operation->segment_count] = (struct iovec){.iov_base = region->base + offset, .iov_len = length};
  operation->segment_count++;
  operation->length += length; /* At most IO_SEGMENTS_MAX times a region: no overflow. */
  return true;
}

/* The words are read once each: the array may be shared with another thread. */
static bool read_words(struct environment *environment, struct io_operation *operation, const double *words, uint64_t *segments) {
  uint64_t code;
  uint64_t fd;
  if (!exact_integer(words[0], &code) || code < IO_READ || code > IO_BLOCK_ZERO_OUT) {
    throw_range(environment->env, "operation code is %.17g", words[0]);
    return false;
  }
  operation->code = (uint8_t)code;
  if (!exact_integer(words[1], &fd) || fd > INT32_MAX) {
    throw_range(environment->env, "file descriptor is %.17g", words[1]);
    return false;
  }
  operation->fd = (int)fd;
  operation->tag = words[2];
  if (!exact_integer(words[3], &operation->position)) {
    throw_range(environment->env, "position is %.17g", words[3]);
    return false;
  }
  operation->length = 0;
  if (!io_operation_transfers(operation) && !exact_integer(words[4], &operation->length)) {
    throw_range(environment->env, "length is %.17g", words[4]);
    return false;
  }
  if (!exact_integer(words[5], segments) || *segments > (io_operation_transfers(operation) ? IO_SEGMENTS_MAX : 0)) {
    throw_range(environment->env, "segment count is %.17g", words[5]);
    return false;
  }
  return true;
}

bool io_operation_read(struct environment *environment, struct io_operation *operation, struct io_reader *reader) {
  uint64_t count = 0;
  operation->continuations = 0;
  operation->done = 0;
  operation->segment_count = 0;
  operation->segment_first = 0;
  if (reader->length - reader->at < IO_OPERATION_WORDS) {
    throw_range(environment->env, "the submission ends within an operation");
    return false;
  }
  if (!read_words(environment, operation, reader->words + reader->at, &count)) return false;
  reader->at += IO_OPERATION_WORDS;
  if ((reader->length - reader->at) / IO_SEGMENT_WORDS < count) {
    throw_range(environment->env, "the submission ends within an operation's segments");
    return false;
  }
  if (!grow(operation, (uint32_t)count)) {
    throw_errno(environment->env, ENOMEM, "realloc", NULL);
    return false;
  }
  for (uint64_t each = 0; each < count; each++) {
    if (!read_segment(environment, operation, reader->words + reader->at)) return false;
    reader->at += IO_SEGMENT_WORDS;
  }
  if (operation->length <= EXACT_INTEGER_MAX - operation->position) return true;
  throw_range(environment->env, "position %.17g and length reach beyond 2^53", (double)operation->position);
  return false;
}

static void skip(struct io_operation *operation, uint64_t bytes) {
  while (operation->segment_first < operation->segment_count) {
    struct iovec *segment = &operation->segments[operation->segment_first];
    if (bytes < segment->iov_len) {
      segment->iov_base = (uint8_t *)segment->iov_base + bytes;
      segment->iov_len -= bytes;
      return;
    }
    bytes -= segment->iov_len;
    operation->segment_first++;
  }
}

static bool finish(struct io_operation *operation, int64_t result) {
  operation->result = result;
  return true;
}

bool io_operation_advance(struct io_operation *operation, int64_t returned) {
  if (returned == -EINTR || returned == -EAGAIN) {
    return operation->continuations++ < CONTINUATIONS_MAX ? false : finish(operation, returned);
  }
  if (returned < 0) {
    /* O_DIRECT: the rest after an unaligned end of file cannot be asked for, and there is none. */
    bool ended = returned == -EINVAL && operation->code == IO_READ && operation->done > 0;
    return finish(operation, ended ? (int64_t)operation->done : returned);
  }
  if (!io_operation_transfers(operation)) return finish(operation, 0);
  operation->done += (uint64_t)returned;
  if (operation->done >= operation->length) return finish(operation, (int64_t)operation->done);
  if (returned == 0 && operation->code == IO_READ) return finish(operation, (int64_t)operation->done);
  /* A write that makes no progress would be tried for ever, and a short one is no success. */
  if (returned == 0 || operation->continuations++ == CONTINUATIONS_MAX) return finish(operation, -EIO);
  skip(operation, (uint64_t)returned);
  return false;
}

void io_operation_release(struct io_operation *operation) {
  for (uint32_t each = 0; each < operation->segment_count; each++) region_release(operation->regions[each]);
  operation->segment_count = 0;
}
