#define _GNU_SOURCE
#include "call_bench.h"

#include <dlfcn.h>
#include <kvstore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { tokens_per_block = 16 };

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

const char *call_bench_version(void) {
  return TEXT(KVSTORE_VERSION_MAJOR) "." TEXT(KVSTORE_VERSION_MINOR) "." TEXT(KVSTORE_VERSION_PATCH);
}

/* The functions that are timed, found by name: the command is linked with the Swift library, not with this one. */
typedef struct {
  __typeof__(&kvstore_version) version;
  __typeof__(&kvstore_last_error_message) last_error_message;
  __typeof__(&kvstore_config_init) config_init;
  __typeof__(&kvstore_open) open;
  __typeof__(&kvstore_close) close;
  __typeof__(&kvstore_namespace_config_init) namespace_config_init;
  __typeof__(&kvstore_namespace_open) namespace_open;
  __typeof__(&kvstore_offload) offload;
  __typeof__(&kvstore_flush) flush;
  __typeof__(&kvstore_match) match;
  __typeof__(&kvstore_lease_release) lease_release;
  __typeof__(&kvstore_restore) restore;
} api_t;

static int load(void *library, api_t *api) {
#define FIND(name) (*(void **)&api->name = dlsym(library, "kvstore_" #name)) != NULL
  return FIND(version) && FIND(last_error_message) && FIND(config_init) && FIND(open) && FIND(close) &&
         FIND(namespace_config_init) && FIND(namespace_open) && FIND(offload) && FIND(flush) && FIND(match) &&
         FIND(lease_release) && FIND(restore);
#undef FIND
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

/* What two readings of the clock next to one another differ by, at least. */
static uint64_t clock_cost(void) {
  uint64_t least = UINT64_MAX;
  int i;
  for (i = 0; i < 1000; i++) {
    uint64_t start = now(), cost = now() - start;
    if (cost < least) least = cost;
  }
  return least;
}

typedef struct {
  const api_t *api;
  kvstore_t *store;
  kvstore_namespace_t *ns;
  kvstore_prompt_t prompt;
  kvstore_transfer_t transfer;
  char *payload, *target;
  size_t block_bytes;
} bench_t;

static uint64_t elapsed(uint64_t start, uint64_t clock) {
  uint64_t time = now() - start;
  return time > clock ? time - clock : 0;
}

/* The arms take turns, so that a busy moment of the machine meets them all. */
static kvstore_status_t time_calls(bench_t *bench, const call_bench_times_t *times) {
  const api_t *api = bench->api;
  const uint64_t clock = clock_cost();
  kvstore_match_t match = {.struct_size = sizeof match};
  kvstore_status_t status = KVSTORE_OK;
  volatile uint32_t version = 0;
  uint64_t start;
  size_t i;
  for (i = 0; i < times->call_count && status == KVSTORE_OK; i++) {
    start = now();
    version = api->version();
    times->version[i] = elapsed(start, clock);
    start = now();
    status = api->match(bench->ns, &bench->prompt, KVSTORE_MATCH_PEEK, 0, &match);
    times->peek[i] = elapsed(start, clock);
    if (status != KVSTORE_OK) break;
    start = now();
    status = api->match(bench->ns, &bench->prompt, 0, 0, &match);
    if (status == KVSTORE_OK) status = api->lease_release(bench->store, match.lease);
    times->match[i] = elapsed(start, clock);
    if (status != KVSTORE_OK) break;
    memset(bench->target, 0, bench->block_bytes);
    start = now();
    memcpy(bench->target, bench->payload, bench->block_bytes);
    times->copy[i] = elapsed(start, clock);
    memset(bench->target, 0, bench->block_bytes);
    start = now();
    status = api->restore(bench->ns, &bench->prompt, &bench->transfer, NULL);
    times->restore[i] = elapsed(start, clock);
    if (status == KVSTORE_OK && memcmp(bench->target, bench->payload, bench->block_bytes) != 0) status = KVSTORE_E_CORRUPT;
  }
  (void)version;
  return status;
}

static kvstore_status_t run(bench_t *bench, const char *folder, const call_bench_times_t *times) {
  const api_t *api = bench->api;
  const uint64_t region_bytes = bench->block_bytes;
  kvstore_config_t config;
  kvstore_namespace_config_t ns_config;
  kvstore_span_t span = {bench->payload, bench->block_bytes, bench->block_bytes};
  kvstore_status_t status;
  if ((status = api->config_init(&config, sizeof config)) != KVSTORE_OK) return status;
  config.path = folder;
  config.capacity_bytes = UINT64_C(1) << 30;
  config.inline_payload_bytes_max = 0;
  if ((status = api->open(&config, &bench->store)) != KVSTORE_OK) return status;
  if ((status = api->namespace_config_init(&ns_config, sizeof ns_config)) != KVSTORE_OK) return status;
  ns_config.tokens_per_block = tokens_per_block;
  ns_config.region_count = 1;
  ns_config.region_bytes = &region_bytes;
  if ((status = api->namespace_open(bench->store, &ns_config, &bench->ns)) != KVSTORE_OK) return status;
  bench->transfer = (kvstore_transfer_t){.struct_size = sizeof bench->transfer, .spans = &span, .span_count = 1};
  if ((status = api->offload(bench->ns, &bench->prompt, &bench->transfer, NULL)) != KVSTORE_OK) return status;
  if ((status = api->flush(bench->store, 0, NULL)) != KVSTORE_OK) return status;
  span.data = bench->target;
  return time_calls(bench, times);
}

int call_bench_run(const char *library, const char *folder, size_t block_bytes,
                   const call_bench_times_t *times, char *message, size_t message_bytes) {
  uint32_t tokens[tokens_per_block];
  api_t api;
  bench_t bench = {.api = &api, .block_bytes = block_bytes};
  void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  kvstore_status_t status;
  size_t i;
  if (handle == NULL || !load(handle, &api)) {
    snprintf(message, message_bytes, "%s", dlerror());
    return 1;
  }
  bench.payload = malloc(block_bytes);
  bench.target = malloc(block_bytes);
  if (bench.payload == NULL || bench.target == NULL) {
    free(bench.payload);
    free(bench.target);
    snprintf(message, message_bytes, "memory is short");
    return 1;
  }
  for (i = 0; i < block_bytes; i++) bench.payload[i] = (char)(i * 2654435761u >> 13);
  for (i = 0; i < tokens_per_block; i++) tokens[i] = (uint32_t)i * 7919u;
  bench.prompt = (kvstore_prompt_t){
      .struct_size = sizeof bench.prompt, .tokens = tokens, .token_count = tokens_per_block};
  status = run(&bench, folder, times);
  if (status != KVSTORE_OK) snprintf(message, message_bytes, "status %d: %s", (int)status, api.last_error_message());
  if (bench.store != NULL) api.close(bench.store);
  free(bench.payload);
  free(bench.target);
  /* The library stays loaded: it is built never to be unloaded. */
  return status == KVSTORE_OK ? 0 : 1;
}
