/* The module: what it exports, and the life of its state in one environment (the main thread or a worker). */
#include "addon.h"

#include <errno.h>
#include <stdlib.h>

static const struct native_function *const function_tables[] = {
    region_functions,      window_functions,  descriptor_functions, watch_functions,
    unix_socket_functions, message_functions, file_functions,       extent_functions, io_functions,
    tcp_socket_functions,  tls_context_functions, tls_functions, busy_poll_functions,
    datagram_functions,    extent_functions,        durable_write_functions,
};

void environment_hold(struct environment *environment) {
  if (environment->keepalive_users++ == 0) uv_ref((uv_handle_t *)&environment->keepalive);
}

void environment_release(struct environment *environment) {
  if (--environment->keepalive_users == 0) uv_unref((uv_handle_t *)&environment->keepalive);
}

void environment_call(struct environment *environment, napi_ref function, size_t count, const napi_value *values) {
  napi_env env = environment->env;
  napi_value callee;
  napi_value receiver;
  if (napi_get_reference_value(env, function, &callee) != napi_ok || napi_get_global(env, &receiver) != napi_ok) return;
  /* napi_make_callback runs the microtasks and the next-tick queue afterwards, as for every callback of Node's own. */
  napi_status status = napi_make_callback(env, environment->async_context, receiver, callee, count, values, NULL);
  if (status != napi_pending_exception) return; /* Other failures: the environment stops, and there is nobody to tell. */
  napi_value exception;
  if (napi_get_and_clear_last_exception(env, &exception) == napi_ok) napi_fatal_exception(env, exception);
}

void environment_handle_closed(struct environment *environment) {
  if (--environment->open_handles != 0 || !environment->closing) return;
  napi_async_cleanup_hook_handle hook = environment->cleanup_hook;
  regions_close(environment);
  handle_table_free(&environment->regions);
  handle_table_free(&environment->watches);
  handle_table_free(&environment->engines);
  handle_table_free(&environment->tls_connections);
  handle_table_free(&environment->tls_contexts);
  free(environment);
  napi_remove_async_cleanup_hook(hook);
}

static void keepalive_closed(uv_handle_t *handle) { environment_handle_closed(handle->data); }

/* Node runs the loop until environment_handle_closed has removed the hook: every close callback and work gets its turn. */
static void environment_close(napi_async_cleanup_hook_handle hook, void *data) {
  struct environment *environment = data;
  environment->cleanup_hook = hook;
  environment->closing = true;
  busy_poll_close(environment);
  watches_close(environment);
  engines_close(environment);
  tls_connections_close(environment);
  tls_contexts_close(environment);
  napi_async_destroy(environment->env, environment->async_context);
  uv_close((uv_handle_t *)&environment->keepalive, keepalive_closed);
}

static bool export_functions(struct environment *environment, napi_value exports) {
  napi_env env = environment->env;
  for (size_t table = 0; table < sizeof function_tables / sizeof *function_tables; table++) {
    for (const struct native_function *each = function_tables[table]; each->name != NULL; each++) {
      napi_value function;
      if (napi_create_function(env, each->name, NAPI_AUTO_LENGTH, each->callback, environment, &function) != napi_ok ||
          napi_set_named_property(env, exports, each->name, function) != napi_ok) {
        return false;
      }
    }
  }
  return true;
}

NAPI_MODULE_INIT() {
  struct environment *environment = calloc(1, sizeof *environment);
  if (environment == NULL) return throw_errno(env, ENOMEM, "calloc", NULL);
  environment->env = env;
  napi_value name;
  if (napi_get_uv_event_loop(env, &environment->loop) != napi_ok ||
      napi_create_string_utf8(env, "netbus", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_async_init(env, NULL, name, &environment->async_context) != napi_ok) {
    free(environment);
    return NULL;
  }
  int status = uv_async_init(environment->loop, &environment->keepalive, NULL);
  if (status < 0) {
    free(environment);
    return throw_errno(env, -status, "uv_async_init", NULL);
  }
  environment->keepalive.data = environment;
  environment->open_handles = 1;
  busy_poll_open(environment);
  uv_unref((uv_handle_t *)&environment->keepalive);
  /* From here on the state goes with the environment, also where the exports cannot be made. */
  if (napi_add_async_cleanup_hook(env, environment_close, environment, NULL) != napi_ok ||
      napi_set_instance_data(env, environment, NULL, NULL) != napi_ok || !export_functions(environment, exports)) {
    return NULL;
  }
  return exports;
}
