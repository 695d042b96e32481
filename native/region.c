/* Regions: mappings that system calls read and write, counted by their users. */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* More than a process's address space on any machine that Linux runs on; keeps all sums far from overflow. */
#define REGION_BYTES_MAX (UINT64_C(1) << 47)

bool call_region(const struct call *call, size_t index, struct region **region) {
  double handle;
  if (napi_get_value_double(call->env, call->values[index], &handle) != napi_ok) {
    napi_throw_type_error(call->env, NULL, "region is not a number");
    return false;
  }
  *region = region_find(call->environment, handle);
  if (*region != NULL) return true;
  throw_range(call->env, "%.17g is not the handle of a region", handle);
  return false;
}

/* Takes the mapping over: on failure it is unmapped, and an error thrown. */
static napi_value add_region(const struct call *call, struct region region) {
  struct region *added = malloc(sizeof *added);
  uint32_t handle = 0;
  int status = added == NULL ? -ENOMEM : handle_add(&call->environment->regions, added, &handle);
  if (status < 0) {
    if (region.guard >= 0) fault_guard_remove(region.guard);
    munmap(region.base, region.mapped_length);
    free(added);
    return throw_errno(call->env, -status, "mmap", "too many regions");
  }
  region.environment = call->environment;
  region.references = 1;
  *added = region;
  call->environment->region_count++;
  return answer_number(call, handle);
}

void region_release(struct region *region) {
  if (--region->references != 0) return;
  /* Unguarded first: once unmapped, the addresses may be someone else's. */
  if (region->guard >= 0) fault_guard_remove(region->guard);
  munmap(region->base, region->mapped_length);
  region->environment->region_count--;
  free(region);
}

/* Pages of the mapping: huge ones for a file on hugetlbfs (a huge memfd is one). */
static size_t page_size_of(int fd) {
  struct statfs information;
  if (fstatfs(fd, &information) == 0 && (uint32_t)information.f_type == HUGETLBFS_MAGIC) return (size_t)information.f_bsize;
  return (size_t)sysconf(_SC_PAGESIZE);
}

static napi_value map_region(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint64_t offset;
  uint64_t length;
  if (!call_begin(&call, env, info, 3) || !call_descriptor(&call, 0, &fd) ||
      !call_integer(&call, 1, "offset", 0, EXACT_INTEGER_MAX, &offset) ||
      !call_integer(&call, 2, "length", 1, REGION_BYTES_MAX, &length)) {
    return NULL;
  }
  struct stat file;
  if (fstat(fd, &file) < 0) return throw_errno(env, errno, "fstat", NULL);
  /* Sealed before the size is looked at, so that it cannot shrink in between. A file that takes no seals has the guard. */
  fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
  if (fstat(fd, &file) < 0) return throw_errno(env, errno, "fstat", NULL);
  if (!S_ISREG(file.st_mode) || (uint64_t)file.st_size < length || (uint64_t)file.st_size - length < offset) {
    return throw_errno(env, EINVAL, "mmap", "beyond the end of the file");
  }
  size_t page = page_size_of(fd);
  uint64_t mapped_length = (length + page - 1) / page * page;
  void *base = mmap(NULL, mapped_length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
  if (base == MAP_FAILED) return throw_errno(env, errno, "mmap", NULL);
  int guard = fault_guard_add(base, mapped_length, page);
  if (guard < 0) {
    munmap(base, mapped_length);
    return throw_errno(env, -guard, "mmap", "too many regions in this process");
  }
  return add_region(&call, (struct region){.base = base, .length = length, .mapped_length = mapped_length, .guard = guard});
}

static napi_value allocate_region(napi_env env, napi_callback_info info) {
  struct call call;
  uint64_t length;
  if (!call_begin(&call, env, info, 1) || !call_integer(&call, 0, "length", 1, REGION_BYTES_MAX, &length)) return NULL;
  void *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return throw_errno(env, errno, "mmap", NULL);
  return add_region(&call, (struct region){.base = base, .length = length, .mapped_length = length, .guard = -1});
}

static bool call_range(const struct call *call, size_t index, uint64_t length, uint8_t **place) {
  struct region *region;
  uint64_t offset;
  if (!call_region(call, index, &region)) return false;
  if (!call_integer(call, index + 1, "offset", 0, region->length, &offset)) return false;
  if (!region_contains(region, offset, length)) {
    throw_range(call->env, "%llu bytes at %llu reach beyond the region's %llu", (unsigned long long)length,
                (unsigned long long)offset, (unsigned long long)region->length);
    return false;
  }
  *place = region->base + offset;
  return true;
}

static napi_value copy_region(napi_env env, napi_callback_info info) {
  struct call call;
  uint64_t length;
  uint8_t *target;
  uint8_t *source;
  if (!call_begin(&call, env, info, 5) || !call_integer(&call, 4, "length", 0, REGION_BYTES_MAX, &length) ||
      !call_range(&call, 0, length, &target) || !call_range(&call, 2, length, &source)) {
    return NULL;
  }
  memmove(target, source, length);
  return NULL;
}

static napi_value region_faults(napi_env env, napi_callback_info info) {
  struct call call;
  struct region *region;
  if (!call_begin(&call, env, info, 1) || !call_region(&call, 0, &region)) return NULL;
  return answer_number(&call, region->guard < 0 ? 0 : (double)fault_guard_count(region->guard));
}

static napi_value unmap_region(napi_env env, napi_callback_info info) {
  struct call call;
  struct region *region;
  double handle;
  if (!call_begin(&call, env, info, 1) || !call_region(&call, 0, &region)) return NULL;
  napi_get_value_double(env, call.values[0], &handle);
  handle_remove(&call.environment->regions, (uint32_t)handle);
  windows_close(region, true);
  region_release(region);
  return NULL;
}

static napi_value region_count(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(&call, env, info, 0)) return NULL;
  return answer_number(&call, call.environment->region_count);
}

void regions_close(struct environment *environment) {
  for (uint32_t number = 0; number < environment->regions.size; number++) {
    struct region *region = environment->regions.slots[number].item;
    if (region == NULL) continue;
    windows_close(region, false);
    region_release(region);
  }
}

const struct native_function region_functions[] = {
    {"mapRegion", map_region},       {"allocateRegion", allocate_region}, {"copyRegion", copy_region},
    {"regionFaults", region_faults}, {"unmapRegion", unmap_region},       {"regionCount", region_count},
    {NULL, NULL},
};
