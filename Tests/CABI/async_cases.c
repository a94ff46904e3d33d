/* Moves that end at a time: timeouts, estimates, the host tier's memory. */
#include "harness.h"

#define SECOND UINT64_C(1000000000)

static void host_memory_of_a_store(void) {
    kvstore_t *store = open_small(path_in_dir("store"));
    void *base = (void *)&store;
    size_t byte_count = 1;
    CHECK_STATUS(kvstore_host_memory(NULL, &base, &byte_count), KVSTORE_E_BAD_HANDLE);
    CHECK(base == NULL);
    CHECK_EQ(byte_count, 0);
    CHECK_STATUS(kvstore_host_memory(store, NULL, &byte_count), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_host_memory(store, &base, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_host_memory(store, &base, &byte_count), KVSTORE_OK);
    CHECK(base != NULL);
    CHECK_EQ((uintptr_t)base % 4096, 0);
    CHECK_EQ(byte_count, 16 * MIB);
    CHECK_EQ(byte_count, stats_of(store).host_bytes_capacity);
    close_store(store);
    CHECK_STATUS(kvstore_host_memory(store, &base, &byte_count), KVSTORE_E_BAD_HANDLE);
}

static void transfer_timeout(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(3, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    pieces_t pieces = pieces_new(&shape, 0, 10, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_fill(&pieces, 7);
    transfer.timeout_nanoseconds = 60 * SECOND;
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, NULL), KVSTORE_OK);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    /* A nanosecond is over before anything was copied. */
    pieces_clear(&pieces);
    transfer.timeout_nanoseconds = 1;
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_BUSY);
    CHECK_EQ(result.blocks_done, 0);
    CHECK_EQ(result.bytes, 0);
    CHECK_EQ(pieces.block_status[0], KVSTORE_BUSY);
    CHECK_EQ(pieces.block_status[9], KVSTORE_BUSY);
    /* A struct of the time before the field has no timeout, whatever lies behind it. */
    transfer.struct_size = (uint32_t)offsetof(kvstore_transfer_t, timeout_nanoseconds);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 10);
    CHECK(pieces_match(&pieces, 7, 10));
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.timeout_nanoseconds = UINT64_MAX;
    pieces_clear(&pieces);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK(pieces_match(&pieces, 7, 10));
    pieces_free(&pieces);
    close_store(store);
    free(tokens);
}

static void estimate_of_a_match(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(4, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_match_t match = match_zero();
    kvstore_stats_t stats;
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    offload_prompt(ns, &shape, tokens, 10, 2);
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.estimated_restore_nanoseconds, 0); /* nothing was measured yet */
    check_restore(ns, &shape, tokens, 10, 2);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    CHECK(match.estimated_restore_nanoseconds > 0);
    check_restore(ns, &shape, tokens, 10, 2);
    stats = stats_of(store);
    CHECK_EQ(stats.match_blocks_host, 10);
    CHECK_EQ(stats.restored_bytes_host, 20 * 3 * 18432);
    CHECK_EQ(stats.restored_bytes_disk, 0);
    CHECK(stats.bytes_per_second_host > 0);
    CHECK_EQ(stats.bytes_per_second_disk, 0);
    CHECK(stats.restore_nanoseconds_estimated > 0 && stats.restore_nanoseconds_measured > 0);
    /* A caller that does not know the field gets what it knows. */
    match.estimated_restore_nanoseconds = 12345;
    match.struct_size = (uint32_t)offsetof(kvstore_match_t, estimated_restore_nanoseconds);
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.estimated_restore_nanoseconds, 12345);
    CHECK_EQ(match.blocks_matched, 10);
    close_store(store);
    free(tokens);
}

const test_case_t async_cases[] = {
    {"host_memory_of_a_store", host_memory_of_a_store},
    {"transfer_timeout", transfer_timeout},
    {"estimate_of_a_match", estimate_of_a_match},
    {NULL, NULL},
};
