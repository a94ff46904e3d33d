/* What a forget takes along when others remove and store below the same block meanwhile. */
#include "harness.h"

#include <pthread.h>

enum { FORGETTERS = 2, ROUNDS = 60 };

typedef struct {
    kvstore_namespace_t *ns;
    volatile int *is_over;
    bool offloads;
} forgetter_t;

static shape_t small_shape(void) {
    shape_t shape = shape_gqa();
    shape.name = "small";
    shape.tokens_per_block = 4;
    shape.region_count = 1;
    shape.region_bytes[0] = 512;
    return shape;
}

/* Block 0 is everybody's; block 1 says whose it is. */
static void tokens_of(uint32_t owner, uint32_t tokens[8]) {
    int i;
    for (i = 0; i < 8; i++) tokens[i] = i < 4 ? 1 : owner;
}

static void *forget_one(void *argument) {
    forgetter_t *own = (forgetter_t *)argument;
    shape_t shape = small_shape();
    uint32_t tokens[8];
    kvstore_prompt_t prompt;
    tokens_of(7, tokens);
    prompt = prompt_of(tokens, 8);
    while (!__atomic_load_n(own->is_over, __ATOMIC_SEQ_CST)) {
        if (own->offloads)
            (void)CHECK_ONE_OF(offload_blocks(own->ns, &shape, tokens, 8, 0, 2, 7, NULL), 2, KVSTORE_OK, KVSTORE_PARENT_MISSING);
        (void)CHECK_ONE_OF(kvstore_forget(own->ns, &prompt, NULL), 2, KVSTORE_OK, KVSTORE_MISS);
    }
    return NULL;
}

/* Two threads forget one block that is stored again and again; its siblings, which may come to lie at its position, stay. */
static void forget_takes_no_sibling(void) {
    shape_t shape = small_shape();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    pthread_t threads[FORGETTERS];
    forgetter_t own[FORGETTERS];
    volatile int is_over = 0;
    uint32_t tokens[8], round;
    kvstore_prompt_t prompt;
    int i;
    small_config(&config, path_in_dir("store"));
    config.commit_interval_nanoseconds = 1;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    tokens_of(1, tokens);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 4, 0, 1, 1, NULL), KVSTORE_OK);
    flush_store(store);
    for (i = 0; i < FORGETTERS; i++) {
        own[i].ns = ns;
        own[i].is_over = &is_over;
        own[i].offloads = i == 0;
        CHECK(pthread_create(&threads[i], NULL, forget_one, &own[i]) == 0);
    }
    for (round = 0; round < ROUNDS; round++) {
        kvstore_flush_result_t flushed = flush_zero();
        tokens_of(1000 + round, tokens);
        prompt = prompt_of(tokens, 8);
        CHECK_STATUS(offload_blocks(ns, &shape, tokens, 8, 1, 1, round, NULL), KVSTORE_OK);
        CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
        CHECK_EQ(peek_blocks(ns, tokens, 8), 2);
        /* Its place in the run is free again for the next. */
        CHECK_STATUS(kvstore_forget(ns, &prompt, NULL), KVSTORE_OK);
    }
    is_over = 1;
    for (i = 0; i < FORGETTERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    close_store(store);
}

const test_case_t forget_cases[] = {
    {"forget_takes_no_sibling", forget_takes_no_sibling},
    {NULL, NULL},
};
