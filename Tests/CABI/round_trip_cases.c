/* Whole prompts there and back: every shape, from RAM and from disk, in the catalog and in slots, each block stored once. */
#include "harness.h"

/* Offload, match, restore from host; flush, reopen, match, restore from disk. */
static void round_trip(shape_t shape) {
    enum { blocks = 9 };
    size_t token_count = blocks * shape.tokens_per_block;
    uint32_t *tokens = make_tokens(11, token_count);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    kvstore_match_t match = match_zero();
    kvstore_transfer_result_t result = result_zero();
    kvstore_flush_result_t flushed = flush_zero();
    uint64_t bytes = payload_bytes(&shape, 5, blocks);

    CHECK_EQ(peek_blocks(ns, tokens, token_count), 0);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, token_count, 0, blocks, 5, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, blocks);
    CHECK_EQ(result.blocks_host, blocks); /* taken now */
    CHECK_EQ(result.blocks_disk, 0);      /* already there */
    CHECK_EQ(result.bytes, bytes);
    /* Visible at once in this process. */
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, blocks);
    CHECK_EQ(match.tokens_matched, token_count);
    CHECK_EQ(match.blocks_host + match.blocks_disk, blocks);
    check_restore(ns, &shape, tokens, blocks, 5);
    CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
    CHECK_EQ(flushed.blocks_durable, blocks);
    CHECK_EQ(flushed.blocks_dropped_full + flushed.blocks_dropped_parent + flushed.blocks_dropped_error, 0);
    flushed = flush_zero();
    CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
    CHECK_EQ(flushed.blocks_durable, 0); /* since the last flush */
    check_restore(ns, &shape, tokens, blocks, 5);
    close_store(store);

    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, blocks);
    CHECK_EQ(match.blocks_disk, blocks); /* a copy in RAM belongs to a process */
    check_restore(ns, &shape, tokens, blocks, 5);
    CHECK_EQ(stats_of(store).blocks_restored_disk, blocks);
    CHECK_EQ(stats_of(store).blocks_stored, blocks);
    CHECK_EQ(stats_of(store).payload_bytes_stored, bytes);
    close_store(store);
    free(tokens);
}

static void round_trip_mha(void) { round_trip(shape_mha()); }
static void round_trip_gqa(void) { round_trip(shape_gqa()); }
static void round_trip_mla(void) { round_trip(shape_mla()); }
static void round_trip_fp8(void) { round_trip(shape_fp8()); }
static void round_trip_blob(void) { round_trip(shape_blob()); }
static void round_trip_large(void) { round_trip(shape_large()); }

static void round_trip_one_token_blocks(void) {
    shape_t shape = shape_gqa();
    shape.tokens_per_block = 1;
    shape.region_count = 1;
    shape.region_bytes[0] = 1; /* the smallest payload there is */
    round_trip(shape);
}

/* Everything in the catalog, and nothing in it: the same answers. */
static void inline_limit_at_both_ends(void) {
    static const uint64_t limits[] = {0, 1024 * 1024};
    shape_t shapes[3];
    size_t l, s;
    shapes[0] = shape_gqa();
    shapes[1] = shape_mla();
    shapes[2] = shape_blob();
    for (l = 0; l < 2; l++) {
        char name[32];
        kvstore_config_t config;
        int round;
        snprintf(name, sizeof name, "store-%zu", l);
        small_config(&config, path_in_dir(name));
        config.inline_payload_bytes_max = limits[l];
        for (round = 0; round < 2; round++) {
            kvstore_t *store = open_store(&config);
            for (s = 0; s < 3; s++) {
                kvstore_namespace_t *ns = open_namespace(store, &shapes[s]);
                if (round == 0) offload_seed(ns, &shapes[s], s, 10);
                check_restore_seed(ns, &shapes[s], s, 10);
            }
            close_store(store);
        }
    }
}

/* A namespace keeps the place of its payloads when the setting changes. */
static void inline_limit_changes_later(void) {
    shape_t shape = shape_gqa();
    uint32_t *tokens = make_tokens(1, 320);
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    small_config(&config, path_in_dir("store"));
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 160, 0, 10, 1, NULL), KVSTORE_OK);
    close_store(store);
    config.inline_payload_bytes_max = 0;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    check_restore(ns, &shape, tokens, 10, 1);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 320, 10, 10, 1, NULL), KVSTORE_OK);
    flush_store(store);
    check_restore(ns, &shape, tokens, 20, 1);
    close_store(store);
    free(tokens);
}

static void blocks_are_stored_once(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160), *branch = make_tokens(1, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_transfer_result_t result = result_zero();
    int round;
    offload_prompt(ns, &shape, tokens, 10, 1);
    for (round = 0; round < 2; round++) { /* still in RAM only; durable */
        CHECK_STATUS(offload_blocks(ns, &shape, tokens, 160, 0, 10, 1, &result), KVSTORE_OK);
        CHECK_EQ(result.blocks_done, 10);
        CHECK_EQ(result.blocks_host, 0);
        CHECK_EQ(result.blocks_disk, 10);
        CHECK_EQ(result.bytes, 0);
        flush_store(store);
    }
    /* A branch off block 4 adds only what is new. */
    vary_tokens(branch, 64, 160, 2);
    CHECK_STATUS(offload_blocks(ns, &shape, branch, 160, 0, 10, 1, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 10);
    CHECK_EQ(result.blocks_host, 6);
    CHECK_EQ(result.blocks_disk, 4);
    flush_store(store);
    CHECK_EQ(stats_of(store).blocks_stored, 16);
    CHECK_EQ(stats_of(store).blocks_offloaded, 16);
    CHECK_EQ(stats_of(store).blocks_deduplicated, 24);
    CHECK_EQ(stats_of(store).payload_bytes_stored, 16 * 8 * 4096);
    check_restore(ns, &shape, tokens, 10, 1);
    check_restore(ns, &shape, branch, 10, 1);
    close_store(store);
    free(tokens);
    free(branch);
}
const test_case_t round_trip_cases[] = {
    {"round_trip_mha", round_trip_mha},
    {"round_trip_gqa", round_trip_gqa},
    {"round_trip_mla", round_trip_mla},
    {"round_trip_fp8", round_trip_fp8},
    {"round_trip_blob", round_trip_blob},
    {"round_trip_large", round_trip_large},
    {"round_trip_one_token_blocks", round_trip_one_token_blocks},
    {"inline_limit_at_both_ends", inline_limit_at_both_ends},
    {"inline_limit_changes_later", inline_limit_changes_later},
    {"blocks_are_stored_once", blocks_are_stored_once},
    {NULL, NULL},
};
