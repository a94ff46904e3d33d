/* A wall clock that is wrong in one of the processes of a store. */
#include "harness.h"

#define SECOND UINT64_C(1000000000)

static kvstore_status_t offload_with(kvstore_namespace_t *ns, uint64_t seed, uint64_t ttl, uint32_t kind) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(seed, 16);
    kvstore_prompt_t prompt = prompt_of(tokens, 16);
    pieces_t pieces = pieces_new(&shape, 0, 1, 0, 0);
    kvstore_transfer_t transfer;
    kvstore_status_t status;
    pieces_fill(&pieces, seed);
    transfer = transfer_of(&pieces);
    transfer.ttl_nanoseconds = ttl;
    transfer.ttl_kind = kind;
    status = kvstore_offload(ns, &prompt, &transfer, NULL);
    pieces_free(&pieces);
    free(tokens);
    return status;
}

/* Opens the store, stores a block and closes. */
static int role_visit(int argc, char **argv) {
    shape_t shape = shape_mha();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    offload_seed(ns, &shape, argc > 0 ? strtoull(argv[0], NULL, 10) : 0, 1);
    flush_store(store);
    close_store(store);
    return 0;
}

static void visit_with_clock(const char *seconds, const char *seed) {
    char *shim = (char *)must_malloc(4096);
    int pid;
    snprintf(shim, 4096, "%s/wall_clock.so", getenv("KVSTORE_SHIMS"));
    CHECK(setenv("LD_PRELOAD", shim, 1) == 0 && setenv("WALL_CLOCK_SECONDS", seconds, 1) == 0);
    pid = spawn_role("visit", seed, NULL, NULL);
    CHECK(unsetenv("LD_PRELOAD") == 0 && unsetenv("WALL_CLOCK_SECONDS") == 0);
    CHECK_EQ(wait_for(pid), 0);
    free(shim);
}

/* For those who run, time neither jumps nor stands still; and what the wrong one wrote and saw does no harm later. */
static void another_process_has_a_wrong_clock(void) {
    static const char *const clocks[] = {"600", "4000", "-4000", "315360000"};
    shape_t shape = shape_mha();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint32_t *tokens = make_tokens(2, 16);
    kvstore_prompt_t prompt = prompt_of(tokens, 16);
    uint64_t pin = 0;
    size_t i;
    CHECK_STATUS(offload_with(ns, 1, 3600 * SECOND, KVSTORE_TTL_ABSOLUTE), KVSTORE_OK);
    CHECK_STATUS(offload_with(ns, 2, 3600 * SECOND, KVSTORE_TTL_IDLE), KVSTORE_OK);
    CHECK_STATUS(kvstore_pin(ns, &prompt, 3600 * SECOND, &pin, NULL), KVSTORE_OK);
    flush_store(store);
    for (i = 0; i < sizeof clocks / sizeof clocks[0]; i++) {
        char seed[8];
        snprintf(seed, sizeof seed, "%zu", 100 + i);
        visit_with_clock(clocks[i], seed);
        EVENTUALLY(peek_seed(ns, &shape, 100 + i, 1) == 1);
        CHECK_EQ(peek_seed(ns, &shape, 1, 1), 1);
        CHECK_EQ(peek_seed(ns, &shape, 2, 1), 1);
        CHECK_EQ(stats_of(store).pins_active, 1);
        CHECK_STATUS(offload_with(ns, 10 + i, SECOND, KVSTORE_TTL_ABSOLUTE), KVSTORE_OK);
        flush_store(store);
        EVENTUALLY(peek_seed(ns, &shape, 10 + i, 1) == 0); /* a second does end */
    }
    close_store(store);
    visit_with_clock("86000", "200"); /* alone in the store */
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_EQ(peek_seed(ns, &shape, 1, 1), 1);
    CHECK_EQ(peek_seed(ns, &shape, 2, 1), 1);
    CHECK_STATUS(kvstore_unpin(store, pin), KVSTORE_OK);
    close_store(store);
    free(tokens);
}

const test_case_t clock_cases[] = {
    {"another_process_has_a_wrong_clock", another_process_has_a_wrong_clock},
    {NULL, NULL},
};

const child_role_t clock_roles[] = {{"visit", role_visit}, {NULL, NULL}};
