/* Reading the arguments of a call, and answering it. */
#include "addon.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_BYTES_MAX 512

static bool wrong_type(napi_env env, const char *name, const char *expected) {
  char text[MESSAGE_BYTES_MAX];
  snprintf(text, sizeof text, "%s is not %s", name, expected);
  napi_throw_type_error(env, NULL, text);
  return false;
}

bool call_begin(struct call *call, napi_env env, napi_callback_info info, size_t count) {
  size_t given = ARGUMENTS_MAX;
  void *data;
  if (napi_get_cb_info(env, info, &given, call->values, NULL, &data) != napi_ok) return false;
  call->env = env;
  call->environment = data;
  if (given >= count) return true;
  napi_throw_type_error(env, NULL, "too few arguments");
  return false;
}

bool call_integer(const struct call *call, size_t index, const char *name, uint64_t min, uint64_t max, uint64_t *out) {
  double value;
  *out = 0;
  if (napi_get_value_double(call->env, call->values[index], &value) != napi_ok) {
    return wrong_type(call->env, name, "a number");
  }
  if (exact_integer(value, out) && *out >= min && *out <= max) return true;
  throw_range(call->env, "%s is %.17g, allowed are integers from %llu to %llu", name, value, (unsigned long long)min,
              (unsigned long long)max);
  return false;
}

bool call_descriptor(const struct call *call, size_t index, int *fd) {
  uint64_t value;
  if (!call_integer(call, index, "file descriptor", 0, INT_MAX, &value)) return false;
  *fd = (int)value;
  return true;
}

bool call_bytes(const struct call *call, size_t index, struct bytes *out) {
  void *data;
  size_t size;
  bool is_array;
  /* napi_get_buffer_info answers for every view of an ArrayBuffer in one call, but asserts where it is none. */
  if (napi_is_buffer(call->env, call->values[index], &is_array) != napi_ok || !is_array ||
      napi_get_buffer_info(call->env, call->values[index], &data, &size) != napi_ok) {
    return wrong_type(call->env, "buffer", "a Uint8Array");
  }
  uint64_t offset;
  uint64_t length;
  if (!call_integer(call, index + 1, "offset", 0, size, &offset)) return false;
  if (!call_integer(call, index + 2, "length", 0, size - offset, &length)) return false;
  *out = (struct bytes){.data = (uint8_t *)data + (length == 0 ? 0 : offset), .length = length};
  return true;
}

bool call_text(const struct call *call, size_t index, const char *name, const char *system_call, char *out, size_t capacity) {
  size_t length;
  napi_env env = call->env;
  if (napi_get_value_string_utf8(env, call->values[index], NULL, 0, &length) != napi_ok) {
    return wrong_type(env, name, "a string");
  }
  if (length >= capacity) {
    throw_errno(env, ENAMETOOLONG, system_call, name);
    return false;
  }
  if (napi_get_value_string_utf8(env, call->values[index], out, capacity, &length) != napi_ok) return false;
  if (strlen(out) == length) return true;
  throw_range(env, "%s has a zero byte in it", name);
  return false;
}

bool call_function(const struct call *call, size_t index, const char *name, napi_ref *function) {
  napi_valuetype type;
  if (napi_typeof(call->env, call->values[index], &type) != napi_ok || type != napi_function) {
    return wrong_type(call->env, name, "a function");
  }
  return napi_create_reference(call->env, call->values[index], 1, function) == napi_ok;
}

bool call_flag(const struct call *call, size_t index, const char *name, bool *out) {
  napi_value value;
  if (napi_get_named_property(call->env, call->values[index], name, &value) == napi_ok &&
      napi_get_value_bool(call->env, value, out) == napi_ok) {
    return true;
  }
  bool pending = false;
  napi_is_exception_pending(call->env, &pending);
  return pending ? false : wrong_type(call->env, name, "a boolean");
}

napi_value answer_number(const struct call *call, double value) {
  napi_value result = NULL;
  int32_t small = value >= INT_MIN && value <= INT_MAX ? (int32_t)value : 0;
  /* V8 keeps small integers without an allocation. */
  if ((double)small == value) {
    napi_create_int32(call->env, small, &result);
  } else {
    napi_create_double(call->env, value, &result);
  }
  return result;
}

napi_value throw_errno(napi_env env, int error, const char *system_call, const char *detail) {
  const char *code = strerrorname_np(error);
  if (code == NULL) code = "EUNKNOWN";
  char text[MESSAGE_BYTES_MAX];
  snprintf(text, sizeof text, "%s: %s%s%s (%s)", code, system_call, detail == NULL ? "" : " ", detail == NULL ? "" : detail,
           strerrordesc_np(error) == NULL ? "unknown error" : strerrordesc_np(error));
  napi_value code_value;
  napi_value message;
  napi_value number;
  napi_value call_value;
  napi_value object;
  if (napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value) == napi_ok &&
      napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) == napi_ok &&
      napi_create_error(env, code_value, message, &object) == napi_ok &&
      napi_create_int32(env, error, &number) == napi_ok && napi_set_named_property(env, object, "errno", number) == napi_ok &&
      napi_create_string_utf8(env, system_call, NAPI_AUTO_LENGTH, &call_value) == napi_ok &&
      napi_set_named_property(env, object, "syscall", call_value) == napi_ok) {
    napi_throw(env, object);
  }
  return NULL;
}

napi_value throw_range(napi_env env, const char *format, ...) {
  char text[MESSAGE_BYTES_MAX];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  napi_throw_range_error(env, NULL, text);
  return NULL;
}
