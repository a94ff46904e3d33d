/* Threads on one store, and a fork among them. */
#include "harness.h"
#include "worker.h"

#include <sys/types.h>

static void threads_share_a_store(void) {
    enum { threads = 6 };
    worker_t workers[threads], like;
    kvstore_t *store = open_small(path_in_dir("store"));
    memset(&like, 0, sizeof like); /* a handle each; one namespace */
    like.store = store;
    like.shape = shape_mla();
    like.prompts = 12;
    like.operations = 150;
    workers_start(workers, threads, &like);
    workers_join(workers, threads);
    CHECK_EQ(stats_of(store).poisoned, 0);
    CHECK_EQ(stats_of(store).misses_corrupt, 0);
    CHECK_EQ(stats_of(store).leases_active, 0);
    close_store(store);
}

static void close_under_way(void) {
    enum { threads = 4, rounds = 8 };
    int round;
    for (round = 0; round < rounds; round++) {
        worker_t workers[threads], like;
        memset(&like, 0, sizeof like);
        like.store = open_small(path_in_dir("store"));
        like.shape = shape_mla();
        like.ns = open_namespace(like.store, &like.shape);
        like.number = round * threads;
        like.prompts = 12;
        like.may_close = true;
        like.operations = 60;
        workers_start(workers, threads, &like);
        sleep_milliseconds((unsigned)(3 * round));
        if (round % 2 == 0) CHECK_STATUS(kvstore_namespace_close(like.ns), KVSTORE_OK);
        close_store(like.store);
        workers_join(workers, threads);
    }
}

static void *open_and_close(void *argument) {
    const char *path = (const char *)argument;
    shape_t shape = shape_gqa();
    int i;
    for (i = 0; i < 20; i++) {
        kvstore_t *store = open_small(path);
        kvstore_namespace_t *ns = open_namespace(store, &shape);
        offload_seed(ns, &shape, (uint64_t)i, 2);
        check_restore_seed(ns, &shape, (uint64_t)i, 2);
        close_store(store);
    }
    return NULL;
}

static void threads_open_and_close(void) {
    enum { threads = 4 };
    pthread_t ids[threads];
    char *path = path_in_dir("store");
    int i;
    for (i = 0; i < threads; i++) CHECK(pthread_create(&ids[i], NULL, open_and_close, path) == 0);
    for (i = 0; i < threads; i++) CHECK(pthread_join(ids[i], NULL) == 0);
}

static void check_forked(kvstore_t *store, kvstore_namespace_t *ns) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(1, PROMPT_TOKENS);
    kvstore_prompt_t prompt = prompt_of(tokens, PROMPT_TOKENS);
    kvstore_match_t match = match_zero();
    kvstore_stats_t stats = stats_zero();
    kvstore_flush_result_t flushed = flush_zero();
    kvstore_namespace_config_t config;
    kvstore_namespace_t *opened = NULL;
    kvstore_block_key_t keys[PROMPT_BLOCKS];
    pieces_t pieces = pieces_new(&shape, 0, PROMPT_BLOCKS, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    size_t count = 0;
    pieces_fill(&pieces, 1);
    namespace_config(&shape, &config);
    CHECK_STATUS(kvstore_stats(store, &stats), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_namespace_open(store, &config, &opened), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_lease_release(store, 1), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_lease_extend(store, 1, 0), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, keys, PROMPT_BLOCKS, &count), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, NULL), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, NULL), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_touch(ns, &prompt, NULL), KVSTORE_E_FORKED);
    CHECK_STATUS(kvstore_forget(ns, &prompt, NULL), KVSTORE_E_FORKED);
    CHECK_ONE_OF(kvstore_namespace_close(ns), 2, KVSTORE_E_FORKED, KVSTORE_OK);
    CHECK_STATUS(kvstore_close(store), KVSTORE_E_FORKED);
    pieces_free(&pieces);
    free(tokens);
}

static void handles_after_fork(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(1, PROMPT_TOKENS), *more = make_tokens(2, PROMPT_TOKENS);
    char *path = path_in_dir("store");
    kvstore_t *store = open_small(path);
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    int round;
    offload_prompt(ns, &shape, tokens, PROMPT_BLOCKS, 1);
    flush_store(store);
    for (round = 0; round < 3; round++) {
        pid_t pid;
        int status;
        fflush(NULL);
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            kvstore_t *own;
            kvstore_namespace_t *own_ns;
            (void)alarm(60); /* alarms are not inherited */
            check_forked(store, ns);
            /* The child opens it for itself, and both work on. */
            own = open_small(path);
            own_ns = open_namespace(own, &shape);
            check_restore(own_ns, &shape, tokens, PROMPT_BLOCKS, 1);
            offload_prompt(own_ns, &shape, more, PROMPT_BLOCKS, 2);
            close_store(own);
            fflush(NULL);
            _exit(0);
        }
        status = wait_for((int)pid);
        if (status != 0) fail(__FILE__, __LINE__, "the child failed in round %d with %d", round, status);
        check_restore(ns, &shape, tokens, PROMPT_BLOCKS, 1);
    }
    flush_store(store);
    check_restore(ns, &shape, more, PROMPT_BLOCKS, 2); /* the child's */
    close_store(store);
    free(tokens);
    free(more);
}
const test_case_t thread_cases[] = {
    {"threads_share_a_store", threads_share_a_store},
    {"close_under_way", close_under_way},
    {"threads_open_and_close", threads_open_and_close},
    {"handles_after_fork", handles_after_fork},
    {NULL, NULL},
};
