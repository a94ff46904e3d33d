/* A block with very many children, and who waits while they leave. */
#include "harness.h"

#include <pthread.h>

enum { CHILDREN = 15000, TOKENS = 4, BYTES = 512 };

static shape_t tiny_shape(void) {
    shape_t shape = shape_gqa();
    shape.name = "tiny";
    shape.tokens_per_block = TOKENS;
    shape.region_count = 1;
    shape.region_bytes[0] = BYTES;
    return shape;
}

typedef struct {
    kvstore_namespace_t *ns;
    volatile int is_over;
    uint64_t count, longest;
} matcher_t;

static void *match_on(void *argument) {
    matcher_t *matcher = (matcher_t *)argument;
    uint32_t tokens[TOKENS] = {9, 9, 9, 9};
    while (!__atomic_load_n(&matcher->is_over, __ATOMIC_SEQ_CST)) {
        uint64_t begin = now_nanoseconds(), taken;
        CHECK_EQ(peek_blocks(matcher->ns, tokens, TOKENS), 1);
        taken = now_nanoseconds() - begin;
        if (taken > __atomic_load_n(&matcher->longest, __ATOMIC_SEQ_CST))
            __atomic_store_n(&matcher->longest, taken, __ATOMIC_SEQ_CST);
        (void)__atomic_add_fetch(&matcher->count, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

/* Others look up all the while: a removal takes the lock for pieces, not for all that leaves. */
static void matches_beside_a_wide_removal(void) {
    static unsigned char bytes[BYTES];
    shape_t shape = tiny_shape(), other_shape = tiny_shape();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    kvstore_span_t span = {bytes, BYTES, BYTES};
    kvstore_transfer_t transfer;
    kvstore_prompt_t prompt;
    uint32_t tokens[2 * TOKENS] = {9, 9, 9, 9};
    matcher_t matcher;
    pthread_t thread;
    uint64_t removed = 0, before;
    uint32_t i;
    small_config(&config, path_in_dir("store"));
    config.capacity_bytes = 512 * MIB;
    config.catalog_bytes = 256 * MIB;
    config.host_bytes = 64 * MIB;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    other_shape.name = "other";
    matcher.ns = open_namespace(store, &other_shape);
    matcher.is_over = 0;
    matcher.count = 0;
    matcher.longest = 0;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = sizeof transfer;
    transfer.block_count = 1;
    transfer.spans = &span;
    transfer.span_count = 1;
    prompt = prompt_of(tokens, TOKENS);
    CHECK_STATUS(kvstore_offload(matcher.ns, &prompt, &transfer, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, NULL), KVSTORE_OK);
    prompt = prompt_of(tokens, 2 * TOKENS);
    transfer.first_block = 1;
    for (i = 0; i < CHILDREN; i++) {
        tokens[TOKENS] = i;
        CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, NULL), KVSTORE_OK);
    }
    flush_store(store);
    CHECK(pthread_create(&thread, NULL, match_on, &matcher) == 0);
    while (__atomic_load_n(&matcher.count, __ATOMIC_SEQ_CST) < 100) sleep_milliseconds(1);
    prompt = prompt_of(tokens, TOKENS);
    before = now_nanoseconds();
    CHECK_STATUS(kvstore_forget(ns, &prompt, &removed), KVSTORE_OK);
    before = now_nanoseconds() - before;
    /* With the lock held for all that leaves, one match waits for nearly the whole removal. */
    CHECK(__atomic_load_n(&matcher.longest, __ATOMIC_SEQ_CST) < before / 2);
    __atomic_store_n(&matcher.is_over, 1, __ATOMIC_SEQ_CST);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_EQ(removed, CHILDREN + 1);
    CHECK_EQ(peek_blocks(ns, tokens, TOKENS), 0);
    CHECK_EQ(stats_of(store).blocks_stored, 1);
    close_store(store);
}

const test_case_t wide_tree_cases[] = {
    {"matches_beside_a_wide_removal", matches_beside_a_wide_removal},
    {NULL, NULL},
};
