/* The smallest complete program: restore what is stored of a prompt, compute and store the rest.
 *
 *   cc restore.c $(pkg-config --cflags --libs kvstore) -o restore && ./restore FOLDER
 *
 * The first run computes all blocks, the second one none. An engine has its KV where `memory` is. */
#include <inttypes.h>
#include <kvstore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { blocks = 64, tokens_per_block = 16, regions = 2, region_bytes = 32768 };

static void check(kvstore_status_t status) {
  if (status >= 0) return; /* a miss or a timeout is an answer, not an error */
  fprintf(stderr, "%s: %s\n", kvstore_status_string(status), kvstore_last_error_message());
  exit(1);
}

/* Stands for prefill. */
static unsigned char kv_byte(size_t block) { return (unsigned char)(block * 31 + 7); }

int main(int argument_count, char **arguments) {
  /* A store is a folder that never takes more than its capacity. */
  kvstore_config_t config;
  check(kvstore_config_init(&config, sizeof config));
  config.path = argument_count > 1 ? arguments[1] : "store";
  config.capacity_bytes = UINT64_C(1) << 30;
  kvstore_t *store;
  check(kvstore_open(&config, &store));

  /* A namespace holds what changes the bytes of KV: here a model with one layer, K and V. */
  static const uint64_t sizes[regions] = {region_bytes, region_bytes};
  kvstore_namespace_config_t identity;
  check(kvstore_namespace_config_init(&identity, sizeof identity));
  identity.model_name = "example";
  identity.tokens_per_block = tokens_per_block;
  identity.region_count = regions;
  identity.region_bytes = sizes;
  kvstore_namespace_t *ns;
  check(kvstore_namespace_open(store, &identity, &ns));

  uint32_t tokens[blocks * tokens_per_block];
  for (uint32_t i = 0; i < blocks * tokens_per_block; i++) tokens[i] = i;
  kvstore_prompt_t prompt = {
      .struct_size = sizeof prompt, .tokens = tokens, .token_count = blocks * tokens_per_block};

  /* Where the KV of each block and region is: paged memory of an engine is read and filled in place. */
  unsigned char *memory = calloc(blocks * regions, region_bytes);
  kvstore_span_t spans[blocks * regions];
  for (size_t i = 0; i < blocks * regions; i++)
    spans[i] = (kvstore_span_t){memory + i * region_bytes, region_bytes, region_bytes};

  /* The longest stored prefix, protected from eviction until the lease is released. */
  kvstore_match_t match = {.struct_size = sizeof match};
  check(kvstore_match(ns, &prompt, 0, 0, &match));
  kvstore_transfer_t transfer = {.struct_size = sizeof transfer, .block_count = match.blocks_matched,
                                 .spans = spans, .span_count = match.blocks_matched * regions};
  kvstore_transfer_result_t done = {.struct_size = sizeof done};
  if (match.blocks_matched > 0) check(kvstore_restore(ns, &prompt, &transfer, &done));
  if (match.lease) check(kvstore_lease_release(store, match.lease));
  for (size_t i = 0; i < done.blocks_done * regions * region_bytes; i++)
    if (memory[i] != kv_byte(i / (regions * region_bytes))) return 1;
  printf("restored %" PRIu64 " of %d blocks\n", done.blocks_done, blocks);

  /* Compute the rest, and store it. Durable once flush returns. */
  for (size_t i = done.blocks_done; i < blocks; i++)
    memset(memory + i * regions * region_bytes, kv_byte(i), regions * region_bytes);
  transfer.first_block = done.blocks_done;
  transfer.block_count = blocks - done.blocks_done;
  transfer.spans = spans + done.blocks_done * regions;
  transfer.span_count = transfer.block_count * regions;
  if (transfer.block_count > 0) check(kvstore_offload(ns, &prompt, &transfer, NULL));
  check(kvstore_flush(store, 0, NULL));
  printf("computed and stored %" PRIu64 "\n", transfer.block_count);
  free(memory);
  check(kvstore_close(store)); /* and what was opened in it */
  return 0;
}
