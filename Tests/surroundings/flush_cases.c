/* Who hears at a flush what became of which block: several handles on one store, a store full of what must stay. */
#include "harness.h"

static kvstore_flush_result_t flushed_of(kvstore_t *store, kvstore_status_t want) {
    kvstore_flush_result_t result = flush_zero();
    CHECK_STATUS(kvstore_flush(store, 0, &result), want);
    return result;
}

static void pin_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed) {
    uint64_t pin = 0;
    uint32_t *tokens = make_tokens(seed, shape->tokens_per_block);
    kvstore_prompt_t prompt = prompt_of(tokens, shape->tokens_per_block);
    CHECK_STATUS(kvstore_pin(ns, &prompt, UINT64_C(600000000000), &pin, NULL), KVSTORE_OK);
    free(tokens);
}

static shape_t mebibyte_shape(void) {
    shape_t shape = shape_large();
    shape.name = "a mebibyte";
    shape.region_bytes[0] = 1000000;
    return shape;
}

/* Fills the store with pinned blocks until one is not kept; answers how many there are. */
static uint64_t fill_with_pinned(kvstore_t *store, kvstore_namespace_t *ns, const shape_t *shape) {
    uint64_t count = 0;
    uint64_t seed;
    for (seed = 1; seed < 200; seed++) {
        kvstore_flush_result_t flushed;
        uint32_t *tokens = make_tokens(seed, shape->tokens_per_block);
        kvstore_status_t status = offload_blocks(ns, shape, tokens, shape->tokens_per_block, 0, 1, seed, NULL);
        free(tokens);
        flushed = flushed_of(store, KVSTORE_OK);
        if (status != KVSTORE_OK || flushed.blocks_durable == 0) return count;
        pin_seed(ns, shape, seed);
        count++;
    }
    fail(__FILE__, __LINE__, "never full");
    return 0;
}

static kvstore_t *open_tight(const char *path, uint64_t commit_interval_nanoseconds) {
    kvstore_config_t config;
    small_config(&config, path);
    config.capacity_bytes = 64 * MIB;
    config.catalog_bytes = 32 * MIB;
    config.host_bytes = 64 * MIB;
    config.commit_interval_nanoseconds = commit_interval_nanoseconds;
    return open_store(&config);
}

/* What was not kept is told to the handle that had offloaded it, whoever flushes first. */
static void each_handle_hears_of_its_own(void) {
    shape_t shape = mebibyte_shape();
    char *path = path_in_dir("store");
    /* What is offloaded is pending until somebody flushes. */
    const uint64_t hour = UINT64_C(3600000000000);
    kvstore_t *first = open_tight(path, hour), *second = open_tight(path, hour);
    kvstore_namespace_t *ns = open_namespace(first, &shape), *other = open_namespace(second, &shape);
    kvstore_flush_result_t flushed;
    uint32_t *tokens = make_tokens(1000, 16);
    (void)fill_with_pinned(first, ns, &shape);
    sleep_milliseconds(1100); /* a full store refuses at once for a second */
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 16, 0, 1, 1000, NULL), KVSTORE_OK);
    flushed = flushed_of(second, KVSTORE_OK);
    CHECK_EQ(flushed.blocks_durable + flushed.blocks_dropped_full, 0);
    flushed = flushed_of(first, KVSTORE_OK);
    CHECK_EQ(flushed.blocks_dropped_full, 1);
    CHECK_EQ(flushed.blocks_durable, 0);
    CHECK_EQ(flushed_of(first, KVSTORE_OK).blocks_dropped_full, 0);
    /* Offered by both before it was settled: both hear. */
    sleep_milliseconds(1100);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 16, 0, 1, 1000, NULL), KVSTORE_OK);
    CHECK_STATUS(offload_blocks(other, &shape, tokens, 16, 0, 1, 1000, NULL), KVSTORE_OK);
    CHECK_EQ(flushed_of(first, KVSTORE_OK).blocks_dropped_full, 1);
    CHECK_EQ(flushed_of(second, KVSTORE_OK).blocks_dropped_full, 1);
    close_store(second);
    close_store(first);
    free(tokens);
}

/* Of blocks that push one another out before the flush only those are durable that are there after it. */
static void durable_is_what_is_there(void) {
    enum { blocks = 20 };
    shape_t shape = mebibyte_shape();
    kvstore_t *store = open_tight(path_in_dir("store"), 1000000);
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t pinned = fill_with_pinned(store, ns, &shape), found = 0, seed;
    kvstore_flush_result_t flushed;
    CHECK(pinned > 3);
    /* Room for a few. */
    for (seed = 1; seed <= 3; seed++) {
        uint32_t *tokens = make_tokens(seed, 16);
        kvstore_prompt_t prompt = prompt_of(tokens, 16);
        CHECK_STATUS(kvstore_forget(ns, &prompt, NULL), KVSTORE_OK);
        free(tokens);
    }
    sleep_milliseconds(1100);
    for (seed = 2000; seed < 2000 + blocks; seed++) {
        uint32_t *tokens = make_tokens(seed, 16);
        CHECK_STATUS(offload_blocks(ns, &shape, tokens, 16, 0, 1, seed, NULL), KVSTORE_OK);
        sleep_milliseconds(30); /* its commit comes before the next one's room is made */
        free(tokens);
    }
    flushed = flushed_of(store, KVSTORE_OK);
    for (seed = 2000; seed < 2000 + blocks; seed++) found += peek_seed(ns, &shape, seed, 1);
    CHECK(found < blocks);
    CHECK_EQ(flushed.blocks_durable, found);
    CHECK_EQ(flushed.blocks_durable + flushed.blocks_dropped_full + flushed.blocks_dropped_evicted, blocks);
    close_store(store);
}

const test_case_t flush_cases[] = {
    {"each_handle_hears_of_its_own", each_handle_hears_of_its_own},
    {"durable_is_what_is_there", durable_is_what_is_there},
    {NULL, NULL},
};
