/* The host tier's own memory, lent: views, reservations, and what a prefetch brings into it. */
#include "harness.h"

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

/* Empty spans for a view or a reservation to fill. */
static pieces_t empty_pieces(const shape_t *shape, uint64_t first, uint64_t count) {
    pieces_t pieces = pieces_new(shape, first, count, 0, 0);
    size_t s;
    for (s = 0; s < pieces.span_count; s++) {
        pieces.spans[s].data = (void *)&pieces;
        pieces.spans[s].capacity = 1;
        pieces.spans[s].length = 99;
    }
    return pieces;
}

/* The first `blocks` blocks that the spans lend hold the content of this seed. */
static bool lent_match(const pieces_t *lent, uint64_t content_seed, uint64_t blocks) {
    pieces_t wanted = pieces_new(&lent->shape, lent->first_block, lent->block_count, 0, 0);
    bool same = true;
    size_t s;
    pieces_fill(&wanted, content_seed);
    for (s = 0; s < (size_t)blocks * lent->shape.region_count; s++)
        if (lent->spans[s].length != wanted.spans[s].length ||
            memcmp(lent->spans[s].data, wanted.spans[s].data, wanted.spans[s].length) != 0)
            same = false;
    for (; s < lent->span_count; s++)
        if (lent->spans[s].data != NULL || lent->spans[s].length != 0) same = false;
    pieces_free(&wanted);
    return same;
}

static void view_of_blocks(shape_t shape) {
    uint32_t *tokens = make_tokens(9, 10 * shape.tokens_per_block);
    kvstore_prompt_t prompt = prompt_of(tokens, 10 * shape.tokens_per_block);
    kvstore_transfer_result_t result = result_zero();
    kvstore_view_t *view, *second;
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t lent = empty_pieces(&shape, 0, 10), rest = empty_pieces(&shape, 7, 3);
    kvstore_transfer_t transfer = transfer_of(&lent), rest_transfer = transfer_of(&rest);
    void *base;
    size_t byte_count;
    offload_prompt(ns, &shape, tokens, 8, 3);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_STATUS(kvstore_host_memory(store, &base, &byte_count), KVSTORE_OK);
    CHECK_STATUS(kvstore_restore_view(ns, &prompt, &transfer, &view, &result), KVSTORE_MISS);
    CHECK(view != NULL);
    CHECK_EQ(result.blocks_done, 8);
    CHECK_EQ(result.blocks_disk, 8);
    CHECK_EQ(lent.block_status[7], KVSTORE_OK);
    CHECK_EQ(lent.block_status[8], KVSTORE_MISS);
    CHECK(lent_match(&lent, 3, 8));
    CHECK((char *)lent.spans[0].data >= (char *)base);
    CHECK((char *)lent.spans[0].data + lent.spans[0].length <= (char *)base + byte_count);
    CHECK(stats_of(store).host_bytes_lent > 0);
    CHECK_STATUS(kvstore_restore_view(ns, &prompt, &rest_transfer, &second, NULL), KVSTORE_MISS);
    CHECK(lent_match(&rest, 3, 1));
    CHECK_EQ(lent.spans[7 * shape.region_count].data == rest.spans[0].data, true); /* one copy */
    CHECK_STATUS(kvstore_namespace_close(ns), KVSTORE_OK); /* views are the store's */
    CHECK_STATUS(kvstore_view_release(view), KVSTORE_OK);
    CHECK_STATUS(kvstore_view_release(view), KVSTORE_E_BAD_HANDLE);
    CHECK(lent_match(&rest, 3, 1));
    CHECK_STATUS(kvstore_close(store), KVSTORE_OK);
    CHECK_STATUS(kvstore_view_release(second), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_view_release(NULL), KVSTORE_OK);
    free(tokens);
}

static void view_of_slots(void) { view_of_blocks(shape_mla()); }
static void view_of_inline_payloads(void) { view_of_blocks(shape_gqa()); }
static void view_of_blobs(void) { view_of_blocks(shape_blob()); }

static void view_arguments(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(10, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_view_t *view = (kvstore_view_t *)&prompt;
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t lent = empty_pieces(&shape, 0, 10);
    kvstore_transfer_t transfer = transfer_of(&lent);
    CHECK_STATUS(kvstore_restore_view(NULL, &prompt, &transfer, &view, NULL), KVSTORE_E_BAD_HANDLE);
    CHECK(view == NULL);
    CHECK_STATUS(kvstore_restore_view(ns, &prompt, &transfer, NULL, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_restore_view(ns, NULL, &transfer, &view, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_restore_view(ns, &prompt, NULL, &view, NULL), KVSTORE_E_INVALID_ARGUMENT);
    transfer.span_count--;
    CHECK_STATUS(kvstore_restore_view(ns, &prompt, &transfer, &view, NULL), KVSTORE_E_INVALID_ARGUMENT);
    transfer.span_count++;
    transfer.first_region = UINT32_MAX;
    CHECK_STATUS(kvstore_restore_view(ns, &prompt, &transfer, &view, NULL), KVSTORE_E_INVALID_ARGUMENT);
    transfer.first_region = 0;
    transfer.block_count = 11;
    CHECK_STATUS(kvstore_restore_view(ns, &prompt, &transfer, &view, NULL), KVSTORE_E_INVALID_ARGUMENT);
    transfer.block_count = 0;
    CHECK_STATUS(kvstore_restore_view(ns, &prompt, &transfer, &view, NULL), KVSTORE_MISS);
    CHECK(view == NULL);
    CHECK(lent.spans[0].data == NULL && lent.spans[29].length == 0);
    CHECK_STATUS(kvstore_view_release((kvstore_view_t *)store), KVSTORE_E_BAD_HANDLE);
    close_store(store);
    free(tokens);
}

static void prefetch_a_prompt(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(11, 165);
    kvstore_prompt_t prompt = prompt_of(tokens, 165);
    kvstore_match_t match = match_zero();
    uint64_t blocks = 77;
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    CHECK_STATUS(kvstore_prefetch(NULL, &prompt, &blocks), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_prefetch(ns, NULL, &blocks), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_prefetch(ns, &prompt, &blocks), KVSTORE_MISS);
    CHECK_EQ(blocks, 0);
    offload_prompt(ns, &shape, tokens, 10, 3);
    CHECK_STATUS(kvstore_prefetch(ns, &prompt, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 0); /* all there */
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_STATUS(kvstore_prefetch(ns, &prompt, NULL), KVSTORE_OK);
    while (stats_of(store).blocks_prefetched < 10) sleep_milliseconds(1);
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_host, 10);
    check_restore(ns, &shape, tokens, 10, 3);
    CHECK_EQ(stats_of(store).blocks_restored_host, 10);
    close_store(store);
    free(tokens);
}

static void reserve_and_commit(shape_t shape) {
    size_t token_count = 10 * shape.tokens_per_block, s;
    uint32_t *tokens = make_tokens(12, token_count);
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    kvstore_transfer_result_t result = result_zero();
    kvstore_reservation_t *reservation;
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t lent = empty_pieces(&shape, 2, 8), wanted = pieces_new(&shape, 2, 8, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&lent);
    uint32_t r = 0;
    pieces_fill(&wanted, 4);
    offload_prompt(ns, &shape, tokens, 4, 4);
    CHECK_STATUS(kvstore_offload_reserve(ns, &prompt, &transfer, 0, &reservation, &result), KVSTORE_OK);
    CHECK(reservation != NULL);
    CHECK_EQ(result.blocks_done, 8);
    CHECK_EQ(result.blocks_host, 6);
    CHECK_EQ(result.blocks_disk, 2);
    for (s = 0; s < lent.span_count; s++) {
        r = (uint32_t)(s % shape.region_count);
        if (s / shape.region_count < 2) { /* stored already */
            CHECK(lent.spans[s].data == NULL && lent.spans[s].length == 0);
            continue;
        }
        CHECK_EQ(lent.spans[s].capacity, shape.region_bytes[r]);
        CHECK_EQ(lent.spans[s].length, shape.region_bytes[r]);
        memcpy(lent.spans[s].data, wanted.spans[s].data, wanted.spans[s].length);
        lent.spans[s].length = wanted.spans[s].length;
    }
    CHECK_EQ(peek_blocks(ns, tokens, token_count), 4);
    /* Wrong arguments leave it open. */
    CHECK_STATUS(kvstore_offload_commit(reservation, lent.spans, lent.span_count - 1, &result),
                 KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_offload_commit(reservation, NULL, 1, &result), KVSTORE_E_INVALID_ARGUMENT);
    lent.spans[lent.span_count - 1].length += shape.region_bytes[r] + 1;
    CHECK_STATUS(kvstore_offload_commit(reservation, lent.spans, lent.span_count, &result),
                 KVSTORE_E_INVALID_ARGUMENT);
    lent.spans[lent.span_count - 1].length -= shape.region_bytes[r] + 1;
    CHECK_STATUS(kvstore_offload_commit(reservation, lent.spans, lent.span_count, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 6);
    CHECK_EQ(result.blocks_host, 6);
    CHECK_STATUS(kvstore_offload_commit(reservation, NULL, 0, &result), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_offload_abort(reservation), KVSTORE_E_BAD_HANDLE);
    check_restore(ns, &shape, tokens, 10, 4);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    check_restore(ns, &shape, tokens, 10, 4);
    /* All there: no reservation. */
    CHECK_STATUS(kvstore_offload_reserve(ns, &prompt, &transfer, 0, &reservation, &result), KVSTORE_OK);
    CHECK(reservation == NULL);
    CHECK_EQ(result.blocks_disk, 8);
    close_store(store);
    pieces_free(&wanted);
    free(tokens);
}

static void reserve_slots(void) { reserve_and_commit(shape_mla()); }
static void reserve_inline_payloads(void) { reserve_and_commit(shape_gqa()); }
static void reserve_blobs(void) { reserve_and_commit(shape_blob()); }

static void reserve_and_abort(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(13, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_reservation_t *reservation = (kvstore_reservation_t *)&prompt, *other;
    kvstore_transfer_result_t result = result_zero();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t lent = empty_pieces(&shape, 0, 10), rest = empty_pieces(&shape, 5, 5);
    kvstore_transfer_t transfer = transfer_of(&lent), rest_transfer = transfer_of(&rest);
    CHECK_STATUS(kvstore_offload_reserve(NULL, &prompt, &transfer, 0, &reservation, NULL),
                 KVSTORE_E_BAD_HANDLE);
    CHECK(reservation == NULL);
    CHECK_STATUS(kvstore_offload_reserve(ns, &prompt, &transfer, 0, NULL, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_offload_reserve(ns, &prompt, &transfer, KVSTORE_LEASE_NANOSECONDS_MAX + 1,
                                         &reservation, NULL),
                 KVSTORE_E_INVALID_ARGUMENT);
    transfer.region_count = 1;
    transfer.span_count = 10;
    CHECK_STATUS(kvstore_offload_reserve(ns, &prompt, &transfer, 0, &reservation, NULL),
                 KVSTORE_E_INVALID_ARGUMENT);
    transfer = transfer_of(&lent);
    CHECK_STATUS(kvstore_offload_reserve(ns, &prompt, &rest_transfer, 0, &reservation, &result),
                 KVSTORE_PARENT_MISSING);
    CHECK(reservation == NULL && rest.spans[0].data == NULL);
    CHECK_EQ(rest.block_status[4], KVSTORE_PARENT_MISSING);
    CHECK_STATUS(kvstore_offload_reserve(ns, &prompt, &transfer, 0, &reservation, &result), KVSTORE_OK);
    CHECK(stats_of(store).host_bytes_lent > 0);
    CHECK_STATUS(kvstore_view_release((kvstore_view_t *)reservation), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_offload_abort(reservation), KVSTORE_OK);
    CHECK_STATUS(kvstore_offload_abort(reservation), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_offload_abort(NULL), KVSTORE_OK);
    CHECK_EQ(stats_of(store).host_bytes_lent, 0);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 0);
    /* One that has ended by itself, and one that ends with its store. */
    CHECK_STATUS(kvstore_offload_reserve(ns, &prompt, &transfer, 1, &reservation, &result), KVSTORE_OK);
    sleep_milliseconds(2);
    CHECK_STATUS(kvstore_offload_commit(reservation, NULL, 0, &result), KVSTORE_BUSY);
    CHECK_EQ(result.blocks_done, 0);
    CHECK_STATUS(kvstore_offload_commit(reservation, NULL, 0, &result), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_offload_reserve(ns, &prompt, &transfer, 0, &other, &result), KVSTORE_OK);
    close_store(store);
    CHECK_STATUS(kvstore_offload_commit(other, NULL, 0, &result), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_offload_abort(other), KVSTORE_E_BAD_HANDLE);
    free(tokens);
}
const test_case_t loan_cases[] = {
    {"host_memory_of_a_store", host_memory_of_a_store},
    {"view_of_slots", view_of_slots},
    {"view_of_inline_payloads", view_of_inline_payloads},
    {"view_of_blobs", view_of_blobs},
    {"view_arguments", view_arguments},
    {"prefetch_a_prompt", prefetch_a_prompt},
    {"reserve_slots", reserve_slots},
    {"reserve_inline_payloads", reserve_inline_payloads},
    {"reserve_blobs", reserve_blobs},
    {"reserve_and_abort", reserve_and_abort},
    {NULL, NULL},
};
