/* Moves that do not block: timeouts, operations and what they cost. */
#include "harness.h"

#include <sys/types.h>

#define SECOND UINT64_C(1000000000)

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

/* Polls until the operation's end is reported. */
static kvstore_status_t poll_to_end(kvstore_operation_t *operation, kvstore_transfer_result_t *result) {
    kvstore_status_t status;
    while ((status = kvstore_poll(operation, result)) == KVSTORE_RUNNING) sleep_milliseconds(1);
    return status;
}

static void operations_round_trip(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(5, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_transfer_result_t result = result_zero();
    kvstore_operation_t *operations[5];
    pieces_t pieces[5];
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    size_t i;
    /* Five offloads of two blocks each, in order; the prompt is copied. */
    for (i = 0; i < 5; i++) {
        uint32_t *copy = (uint32_t *)must_malloc(160 * sizeof *copy);
        kvstore_prompt_t copied = prompt_of(copy, 160);
        kvstore_transfer_t transfer;
        memcpy(copy, tokens, 160 * sizeof *copy);
        pieces[i] = pieces_new(&shape, 2 * i, 2, 0, 0);
        pieces_fill(&pieces[i], 9);
        transfer = transfer_of(&pieces[i]);
        CHECK_STATUS(kvstore_offload_start(ns, &copied, &transfer, &operations[i]), KVSTORE_OK);
        memset(copy, 0xFF, 160 * sizeof *copy);
        memset(&transfer, 0xFF, sizeof transfer);
        free(copy);
    }
    for (i = 0; i < 5; i++) {
        CHECK_STATUS(kvstore_wait(operations[i], 60 * SECOND, &result), KVSTORE_OK);
        CHECK_EQ(result.blocks_done, 2);
        CHECK_EQ(pieces[i].block_status[1], KVSTORE_OK);
        pieces_free(&pieces[i]);
    }
    close_store(store);
    /* A restore for each layer. */
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    for (i = 0; i < 3; i++) {
        kvstore_transfer_t transfer;
        pieces[i] = pieces_new(&shape, 0, 10, (uint32_t)i, 1);
        pieces_clear(&pieces[i]);
        transfer = transfer_of(&pieces[i]);
        CHECK_STATUS(kvstore_restore_start(ns, &prompt, &transfer, &operations[i]), KVSTORE_OK);
    }
    for (i = 0; i < 3; i++) {
        CHECK_STATUS(poll_to_end(operations[i], i == 1 ? NULL : &result), KVSTORE_OK);
        CHECK(pieces_match(&pieces[i], 9, 10));
        CHECK_STATUS(kvstore_poll(operations[i], &result), KVSTORE_E_BAD_HANDLE); /* reported before */
        CHECK_STATUS(kvstore_wait(operations[i], 0, &result), KVSTORE_E_BAD_HANDLE);
        CHECK_STATUS(kvstore_cancel(operations[i]), KVSTORE_E_BAD_HANDLE);
        pieces_free(&pieces[i]);
    }
    CHECK_EQ(result.blocks_done, 10);
    CHECK_EQ(result.blocks_disk, 10);
    /* Outcomes come through: a prompt that is not stored, and a region that does not fit. */
    tokens[0] ^= 1;
    pieces[0] = pieces_new(&shape, 0, 10, 0, 0);
    {
        kvstore_transfer_t transfer = transfer_of(&pieces[0]);
        CHECK_STATUS(kvstore_restore_start(ns, &prompt, &transfer, &operations[0]), KVSTORE_OK);
        CHECK_STATUS(kvstore_wait(operations[0], 0, &result), KVSTORE_MISS);
        CHECK_EQ(pieces[0].block_status[0], KVSTORE_MISS);
        tokens[0] ^= 1;
        pieces[0].spans[4].capacity -= 1;
        CHECK_STATUS(kvstore_restore_start(ns, &prompt, &transfer, &operations[0]), KVSTORE_OK);
        CHECK_STATUS(kvstore_wait(operations[0], 0, &result), KVSTORE_E_BUFFER_TOO_SMALL);
        CHECK_EQ(result.blocks_done, 1);
        CHECK_EQ(pieces[0].spans[4].length, 18432);
    }
    pieces_free(&pieces[0]);
    close_store(store);
    free(tokens);
}

static void operation_arguments(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(6, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    pieces_t pieces = pieces_new(&shape, 0, 10, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    kvstore_operation_t *operation = (kvstore_operation_t *)&prompt;
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_fill(&pieces, 1);
    CHECK_STATUS(kvstore_offload_start(NULL, &prompt, &transfer, &operation), KVSTORE_E_BAD_HANDLE);
    CHECK(operation == NULL);
    CHECK_STATUS(kvstore_offload_start(ns, NULL, &transfer, &operation), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_offload_start(ns, &prompt, NULL, &operation), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_offload_start(ns, &prompt, &transfer, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_restore_start(ns, &prompt, &transfer, NULL), KVSTORE_E_INVALID_ARGUMENT);
    transfer.span_count--;
    CHECK_STATUS(kvstore_restore_start(ns, &prompt, &transfer, &operation), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_offload_start(ns, &prompt, &transfer, &operation), KVSTORE_E_INVALID_ARGUMENT);
    transfer.span_count++;
    CHECK_STATUS(kvstore_poll(NULL, NULL), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_wait(NULL, 0, NULL), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_cancel(NULL), KVSTORE_E_BAD_HANDLE);
    /* Handles of another kind. */
    CHECK_STATUS(kvstore_poll((kvstore_operation_t *)store, NULL), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_offload_start(ns, &prompt, &transfer, &operation), KVSTORE_OK);
    CHECK_STATUS(kvstore_flush((kvstore_t *)operation, 0, NULL), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_namespace_close((kvstore_namespace_t *)operation), KVSTORE_E_BAD_HANDLE);
    /* A bad result struct does not lose the end. */
    result.struct_size = 7;
    CHECK_STATUS(kvstore_wait(operation, 0, &result), KVSTORE_E_INVALID_ARGUMENT);
    result = result_zero();
    CHECK_STATUS(kvstore_wait(operation, 0, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 10);
    pieces_free(&pieces);
    close_store(store);
    free(tokens);
}

/* Close cancels what runs; after it the handles are dead and the memory is the caller's. */
static void close_ends_operations(void) {
    enum { count = 40 };
    shape_t shape = shape_large();
    uint32_t *tokens = make_tokens(7, 16 * shape.tokens_per_block);
    kvstore_prompt_t prompt = prompt_of(tokens, 16 * shape.tokens_per_block);
    kvstore_operation_t *operations[count];
    pieces_t pieces = pieces_new(&shape, 0, 16, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    size_t i, s;
    offload_prompt(ns, &shape, tokens, 16, 1);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    for (i = 0; i < count; i++)
        CHECK_STATUS(kvstore_restore_start(ns, &prompt, &transfer, &operations[i]), KVSTORE_OK);
    CHECK_STATUS(kvstore_cancel(operations[count - 1]), KVSTORE_OK);
    CHECK_ONE_OF(kvstore_wait(operations[count - 1], 0, NULL), 2, KVSTORE_OK, KVSTORE_BUSY);
    CHECK_STATUS(kvstore_close(store), KVSTORE_OK);
    for (s = 0; s < pieces.span_count; s++) memset(pieces.spans[s].data, 0x11, pieces.spans[s].capacity);
    sleep_milliseconds(50);
    for (s = 0; s < pieces.span_count; s++)
        for (i = 0; i < pieces.spans[s].capacity; i++)
            CHECK_EQ(((unsigned char *)pieces.spans[s].data)[i], 0x11);
    for (i = 0; i < count; i++) CHECK_STATUS(kvstore_poll(operations[i], NULL), KVSTORE_E_BAD_HANDLE);
    pieces_free(&pieces);
    free(tokens);
}

static void operations_after_fork(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(8, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    pieces_t pieces = pieces_new(&shape, 0, 10, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_operation_t *operation;
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pid_t child;
    pieces_fill(&pieces, 1);
    CHECK_STATUS(kvstore_offload_start(ns, &prompt, &transfer, &operation), KVSTORE_OK);
    child = fork();
    if (child == 0) {
        kvstore_operation_t *other;
        CHECK_STATUS(kvstore_poll(operation, NULL), KVSTORE_E_FORKED);
        CHECK_STATUS(kvstore_wait(operation, SECOND, NULL), KVSTORE_E_FORKED);
        CHECK_STATUS(kvstore_cancel(operation), KVSTORE_E_FORKED);
        CHECK_STATUS(kvstore_restore_start(ns, &prompt, &transfer, &other), KVSTORE_E_FORKED);
        _exit(0);
    }
    CHECK(child > 0);
    CHECK_EQ(wait_for(child), 0);
    CHECK_STATUS(kvstore_wait(operation, 0, NULL), KVSTORE_OK);
    check_restore(ns, &shape, tokens, 10, 1);
    pieces_free(&pieces);
    close_store(store);
    free(tokens);
}
const test_case_t operation_cases[] = {
    {"transfer_timeout", transfer_timeout},
    {"estimate_of_a_match", estimate_of_a_match},
    {"operations_round_trip", operations_round_trip},
    {"operation_arguments", operation_arguments},
    {"close_ends_operations", close_ends_operations},
    {"operations_after_fork", operations_after_fork},
    {NULL, NULL},
};
