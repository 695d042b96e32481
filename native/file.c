/* What files and block devices are asked for beside reading and writing. */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

static napi_value lock_file(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  char mode[16];
  uint64_t start;
  uint64_t length;
  if (!call_begin(&call, env, info, 4) || !call_descriptor(&call, 0, &fd) ||
      !call_text(&call, 1, "mode", "fcntl", mode, sizeof mode) ||
      !call_integer(&call, 2, "start", 0, EXACT_INTEGER_MAX, &start) ||
      !call_integer(&call, 3, "length", 0, EXACT_INTEGER_MAX, &length)) {
    return NULL;
  }
  bool exclusive = strcmp(mode, "exclusive") == 0;
  if (!exclusive && strcmp(mode, "shared") != 0) return throw_range(env, "mode is \"%s\", allowed are shared and exclusive", mode);
  struct flock lock = {
      .l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)length};
  bool locked = fcntl(fd, F_OFD_SETLK, &lock) == 0;
  if (!locked && errno != EAGAIN && errno != EACCES) return throw_errno(env, errno, "fcntl", "F_OFD_SETLK");
  napi_value result;
  return napi_get_boolean(env, locked, &result) == napi_ok ? result : NULL;
}

static napi_value block_device(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!call_begin(&call, env, info, 1) || !call_descriptor(&call, 0, &fd)) return NULL;
  uint64_t size;
  int logical;
  unsigned int physical;
  int read_only;
  const char *failed = ioctl(fd, BLKGETSIZE64, &size) < 0     ? "BLKGETSIZE64"
                       : ioctl(fd, BLKSSZGET, &logical) < 0   ? "BLKSSZGET"
                       : ioctl(fd, BLKPBSZGET, &physical) < 0 ? "BLKPBSZGET"
                       : ioctl(fd, BLKROGET, &read_only) < 0  ? "BLKROGET"
                                                              : NULL;
  if (failed != NULL) return throw_errno(env, errno, "ioctl", failed);
  napi_value result;
  napi_value flag;
  if (napi_create_object(env, &result) != napi_ok || napi_get_boolean(env, read_only != 0, &flag) != napi_ok ||
      napi_set_named_property(env, result, "sizeBytes", answer_number(&call, (double)size)) != napi_ok ||
      napi_set_named_property(env, result, "logicalBlockBytes", answer_number(&call, logical)) != napi_ok ||
      napi_set_named_property(env, result, "physicalBlockBytes", answer_number(&call, physical)) != napi_ok ||
      napi_set_named_property(env, result, "readOnly", flag) != napi_ok) {
    return NULL;
  }
  return result;
}

const struct native_function file_functions[] = {
    {"lockFile", lock_file},
    {"blockDevice", block_device},
    {NULL, NULL},
};
