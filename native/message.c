/* Messages with descriptors (SCM_RIGHTS). */
#include "addon.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* vhost-user and usbredir need 8 at most; the kernel would take 253. */
#define MESSAGE_FDS_MAX 16

/* Room for the descriptors of one message, aligned as the kernel wants it. */
union control {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
};

static bool call_descriptors(const struct call *call, size_t index, int *fds, uint32_t *count) {
  napi_env env = call->env;
  if (napi_get_array_length(env, call->values[index], count) != napi_ok) {
    napi_throw_type_error(env, NULL, "fds is not an array");
    return false;
  }
  if (*count > MESSAGE_FDS_MAX) {
    throw_range(env, "%u descriptors, allowed are %d", *count, MESSAGE_FDS_MAX);
    return false;
  }
  for (uint32_t each = 0; each < *count; each++) {
    struct call element = {.env = env, .environment = call->environment};
    if (napi_get_element(env, call->values[index], each, &element.values[0]) != napi_ok) return false;
    if (!call_descriptor(&element, 0, &fds[each])) return false;
  }
  return true;
}

static napi_value send_message(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  struct bytes bytes;
  int fds[MESSAGE_FDS_MAX];
  uint32_t count;
  if (!call_begin(&call, env, info, 5) || !call_descriptor(&call, 0, &fd) || !call_bytes(&call, 1, &bytes) ||
      !call_descriptors(&call, 4, fds, &count)) {
    return NULL;
  }
  if (count > 0 && bytes.length == 0) return throw_range(env, "descriptors go with a byte, and there is none");
  struct iovec part = {.iov_base = bytes.data, .iov_len = bytes.length};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  union control control;
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(fd, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return answer_number(&call, sent < 0 ? -errno : (double)sent);
}

/* The descriptors that came with a message; they are ours from now on. */
static uint32_t take_descriptors(struct msghdr *message, int *fds) {
  uint32_t count = 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL; header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t length = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds + count, CMSG_DATA(header), length * sizeof(int));
    count += (uint32_t)length;
  }
  return count;
}

static napi_value make_result(const struct call *call, double bytes, const int *fds, uint32_t count) {
  napi_env env = call->env;
  napi_value result;
  napi_value array;
  bool made = napi_create_object(env, &result) == napi_ok && napi_create_array_with_length(env, count, &array) == napi_ok &&
              napi_set_named_property(env, result, "bytes", answer_number(call, bytes)) == napi_ok &&
              napi_set_named_property(env, result, "fds", array) == napi_ok;
  for (uint32_t each = 0; made && each < count; each++) {
    made = napi_set_element(env, array, each, answer_number(call, fds[each])) == napi_ok;
  }
  if (made) return result;
  for (uint32_t each = 0; each < count; each++) close(fds[each]);
  return NULL;
}

static napi_value receive_message(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  struct bytes bytes;
  if (!call_begin(&call, env, info, 4) || !call_descriptor(&call, 0, &fd) || !call_bytes(&call, 1, &bytes)) return NULL;
  struct iovec part = {.iov_base = bytes.data, .iov_len = bytes.length};
  union control control;
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t received;
  do {
    received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return make_result(&call, -errno, NULL, 0);
  int fds[MESSAGE_FDS_MAX];
  uint32_t count = take_descriptors(&message, fds);
  if ((message.msg_flags & MSG_CTRUNC) == 0) return make_result(&call, (double)received, fds, count);
  /* Some are lost: more than we take, or this process has no more descriptors. A half-understood message is worth nothing. */
  for (uint32_t each = 0; each < count; each++) close(fds[each]);
  return make_result(&call, -EMSGSIZE, NULL, 0);
}

const struct native_function message_functions[] = {
    {"sendMessage", send_message},
    {"receiveMessage", receive_message},
    {NULL, NULL},
};
