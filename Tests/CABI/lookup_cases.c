/* Match: prefixes, what it fills in, peeks, and the statistics that count it. */
#include "harness.h"

static void match_of_prefixes(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 170), *branch = make_tokens(1, 170);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    size_t at;
    offload_prompt(ns, &shape, tokens, 10, 1);
    for (at = 0; at <= 170; at += 5) /* every length, full blocks only */
        CHECK_EQ(peek_blocks(ns, tokens, at), at / 16 > 10 ? 10 : at / 16);
    for (at = 0; at < 160; at += 7) { /* one token differs: the match ends before its block */
        branch[at] ^= 1;
        CHECK_EQ(peek_blocks(ns, branch, 170), at / 16);
        branch[at] ^= 1;
    }
    /* A branch that is stored as well. */
    vary_tokens(branch, 100, 170, 2);
    CHECK_STATUS(offload_blocks(ns, &shape, branch, 160, 0, 10, 2, NULL), KVSTORE_OK);
    CHECK_EQ(peek_blocks(ns, branch, 170), 10);
    CHECK_EQ(peek_blocks(ns, tokens, 170), 10);
    branch[105] ^= 1;
    CHECK_EQ(peek_blocks(ns, branch, 170), 6);
    close_store(store);
    free(tokens);
    free(branch);
}

static void match_fills_the_struct(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_match_t match;
    memset(&match, 0xA5, sizeof match);
    match.struct_size = (uint32_t)sizeof match;
    match.reserved = 0;
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_MISS);
    CHECK_EQ(match.struct_size, sizeof match);
    CHECK_EQ(match.tokens_matched, 0); /* filled with zeros */
    CHECK_EQ(match.blocks_matched, 0);
    CHECK_EQ(match.blocks_host, 0);
    CHECK_EQ(match.blocks_disk, 0);
    CHECK_EQ(match.lease, 0);
    offload_prompt(ns, &shape, tokens, 7, 1);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 7);
    CHECK_EQ(match.tokens_matched, 7 * 16);
    CHECK_EQ(match.blocks_host + match.blocks_disk, 7);
    CHECK(match.lease != 0);
    CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    close_store(store);
    free(tokens);
}

static void match_leaves_one_token(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 81);
    kvstore_prompt_t prompt = prompt_of(tokens, 80);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_match_t match = match_zero();
    uint32_t flags = KVSTORE_MATCH_LEAVE_ONE_TOKEN | KVSTORE_MATCH_PEEK;
    offload_prompt(ns, &shape, tokens, 5, 1);
    CHECK_STATUS(kvstore_match(ns, &prompt, flags, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 4); /* all five would leave none */
    CHECK_EQ(match.tokens_matched, 64);
    prompt.token_count = 81;
    CHECK_STATUS(kvstore_match(ns, &prompt, flags, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 5);
    prompt.token_count = 79;
    CHECK_STATUS(kvstore_match(ns, &prompt, flags, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 4);
    prompt.token_count = 16;
    CHECK_STATUS(kvstore_match(ns, &prompt, flags, 0, &match), KVSTORE_MISS);
    CHECK_EQ(match.blocks_matched, 0);
    prompt.token_count = 80; /* and with a lease */
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_LEAVE_ONE_TOKEN, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 4);
    CHECK(match.lease != 0);
    close_store(store);
    free(tokens);
}

static void peek_leaves_no_trace(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_stats_t before, after;
    int i;
    offload_prompt(ns, &shape, tokens, 10, 1);
    flush_store(store);
    before = stats_of(store);
    for (i = 0; i < 1000; i++) CHECK_EQ(peek_blocks(ns, tokens, 160), 10);
    after = stats_of(store);
    CHECK_EQ(after.match_calls, before.match_calls);
    CHECK_EQ(after.match_tokens_asked, before.match_tokens_asked);
    CHECK_EQ(after.match_tokens_found, before.match_tokens_found);
    CHECK_EQ(after.leases_active, 0);
    CHECK_EQ(after.catalog_commits, before.catalog_commits);
    close_store(store);
    free(tokens);
}

static void statistics_make_sense(void) {
    enum { blocks = 512 };
    shape_t shape = shape_gqa();
    size_t token_count = blocks * 16;
    uint32_t *tokens = make_tokens(1, token_count);
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    kvstore_match_t match = match_zero();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_stats_t start = stats_of(store), before, after;
    int i;
    CHECK_EQ(start.struct_size, sizeof start);
    CHECK_EQ(start.io_path, KVSTORE_IO_NONE);
    CHECK_EQ(start.disk_bytes_capacity, 256 * MIB);
    CHECK(start.disk_bytes_used <= start.disk_bytes_capacity);
    CHECK_EQ(start.catalog_bytes_capacity, 32 * MIB);
    CHECK(start.catalog_bytes_used <= start.catalog_bytes_capacity);
    CHECK_EQ(start.host_bytes_capacity, 16 * MIB);
    CHECK_EQ(start.blocks_stored, 0);
    CHECK_EQ(start.poisoned, 0);

    offload_prompt(ns, &shape, tokens, blocks, 1);
    flush_store(store);
    after = stats_of(store);
    CHECK_EQ(after.blocks_offloaded, blocks);
    CHECK_EQ(after.offloaded_bytes, blocks * 8 * 1024);
    CHECK_EQ(after.blocks_stored, blocks);
    CHECK_EQ(after.payload_bytes_stored, blocks * 8 * 1024);
    CHECK(after.hashes_computed > 0);
    CHECK(after.syncs > 0 && after.catalog_commits > 0);
    CHECK_EQ(after.disk_bytes_written, 0); /* payloads this small live in the catalog */
    CHECK(after.disk_bytes_used >= blocks * 8 * 1024 && after.disk_bytes_used <= after.disk_bytes_capacity);
    /* One chain without a fork is one node or a few, not one a block. */
    CHECK_EQ(after.index_blocks, blocks);
    CHECK(after.index_nodes >= 1 && after.index_nodes <= blocks / 16);
    CHECK(after.index_bytes > 0);

    /* A warm match computes no hash, and the counters count it. */
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    before = stats_of(store);
    for (i = 0; i < 100; i++) {
        CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
        CHECK_EQ(match.blocks_matched, blocks);
        CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    }
    after = stats_of(store);
    CHECK_EQ(after.hashes_computed, before.hashes_computed);
    CHECK_EQ(after.match_calls, before.match_calls + 100);
    CHECK_EQ(after.match_tokens_asked, before.match_tokens_asked + 100 * token_count);
    CHECK_EQ(after.match_tokens_found, before.match_tokens_found + 100 * token_count);
    CHECK_EQ(after.match_blocks_found, before.match_blocks_found + 100 * blocks);
    CHECK_EQ(after.disk_bytes_read, before.disk_bytes_read);

    before = after;
    check_restore(ns, &shape, tokens, blocks, 1);
    after = stats_of(store);
    CHECK_EQ(after.blocks_restored_host + after.blocks_restored_disk,
             before.blocks_restored_host + before.blocks_restored_disk + blocks);
    CHECK_EQ(after.restored_bytes, before.restored_bytes + blocks * 8 * 1024);
    CHECK_EQ(after.misses_corrupt + after.misses_stale + after.key_collisions, 0);
    CHECK_EQ(after.blocks_evicted + after.blocks_forgotten + after.blocks_quarantined, 0);
    CHECK_EQ(after.blocks_dropped_full + after.blocks_dropped_parent + after.blocks_dropped_error, 0);
    close_store(store);

    store = open_small(path_in_dir("store")); /* counters are of this open, sizes of the store */
    ns = open_namespace(store, &shape);
    after = stats_of(store);
    CHECK_EQ(after.blocks_offloaded, 0);
    CHECK_EQ(after.match_calls, 0);
    CHECK_EQ(after.blocks_stored, blocks);
    CHECK_EQ(after.payload_bytes_stored, blocks * 8 * 1024);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    before = stats_of(store);
    CHECK(before.index_blocks >= 1 && before.index_nodes <= blocks / 16);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    CHECK_EQ(stats_of(store).hashes_computed, before.hashes_computed); /* warm since the first one */
    close_store(store);
    free(tokens);
}
const test_case_t lookup_cases[] = {
    {"match_of_prefixes", match_of_prefixes},
    {"match_fills_the_struct", match_fills_the_struct},
    {"match_leaves_one_token", match_leaves_one_token},
    {"peek_leaves_no_trace", peek_leaves_no_trace},
    {"statistics_make_sense", statistics_make_sense},
    {NULL, NULL},
};
