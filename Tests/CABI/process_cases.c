/* Processes on one store that are killed, come and go, and write the same blocks. */
#include "harness.h"
#include "worker.h"

/* ---------------------------------------------------------------- kill -9 */

/* Offloads prompts 0, 1, 2 ..., flushes after every fourth and says so on stdout; never ends by itself. */
static int role_offload_forever(int argc, char **argv) {
    shape_t shape = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t first = argc > 0 ? (uint64_t)strtoul(argv[0], NULL, 10) : 0, p;
    for (p = first;; p++) {
        offload_seed(ns, &shape, p, PROMPT_BLOCKS);
        if (p % 4 == 3) {
            char line[32];
            int length = snprintf(line, sizeof line, "%" PRIu64 "\n", p);
            flush_store(store);
            if (write(1, line, (size_t)length) != length) return 1;
        }
    }
}

static void killed_after_flush(void) {
    shape_t shape = shape_mla();
    uint64_t first = 0, p, confirmed = 0;
    int round;
    for (round = 0; round < 4; round++) {
        int out, pid;
        char start[32], line[64] = "";
        FILE *lines;
        kvstore_t *store;
        kvstore_namespace_t *ns;
        snprintf(start, sizeof start, "%" PRIu64, first);
        pid = spawn_role("offload_forever", start, NULL, &out);
        lines = fdopen(out, "r");
        CHECK(lines != NULL);
        for (p = 0; p < 3; p++) {
            CHECK(fgets(line, sizeof line, lines) != NULL);
            confirmed = (uint64_t)strtoul(line, NULL, 10);
        }
        sleep_milliseconds((unsigned)(7 * round)); /* somewhere in the middle of the next ones */
        kill_child(pid);
        while (fgets(line, sizeof line, lines) != NULL) confirmed = (uint64_t)strtoul(line, NULL, 10);
        fclose(lines);

        store = open_small(path_in_dir("store"));
        ns = open_namespace(store, &shape);
        for (p = 0; p <= confirmed; p++) { /* what flush confirmed is there, bit for bit */
            CHECK_EQ(peek_seed(ns, &shape, p, PROMPT_BLOCKS), PROMPT_BLOCKS);
            check_restore_seed(ns, &shape, p, PROMPT_BLOCKS);
        }
        for (p = confirmed + 1; p < confirmed + 9; p++) /* the rest may be missing, but never wrong */
            (void)check_stored_seed(ns, &shape, p, PROMPT_BLOCKS);
        CHECK_EQ(stats_of(store).misses_corrupt, 0);
        close_store(store);
        first = confirmed + 1; /* 4n again */
    }
}

/* ---------------------------------------------------------------- several processes */

/* Restores prompt 1, releases the lease whose id is the argument, offloads prompt 2, flushes. */
static int role_visitor(int argc, char **argv) {
    shape_t shape = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t lease = argc > 0 ? strtoull(argv[0], NULL, 10) : 0;
    check_restore_seed(ns, &shape, 1, PROMPT_BLOCKS);
    CHECK_EQ(stats_of(store).leases_active, 1); /* the other process's */
    CHECK_STATUS(kvstore_lease_release(store, lease), KVSTORE_OK);
    CHECK_EQ(stats_of(store).leases_active, 0);
    offload_seed(ns, &shape, 2, PROMPT_BLOCKS);
    flush_store(store);
    close_store(store);
    return 0;
}

/* Opens the store with 64 MiB, for as long as it takes to come back to that, or for a second. */
static int role_smaller(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_t *store;
    int is_alone = argc > 0 && strcmp(argv[0], "alone") == 0;
    small_config(&config, path_in_dir("store"));
    config.capacity_bytes = 64 * MIB;
    store = open_store(&config);
    if (is_alone) {
        EVENTUALLY(stats_of(store).disk_bytes_used <= 64 * MIB);
    } else {
        sleep_milliseconds(1500); /* it looks again every second */
        CHECK(stats_of(store).disk_bytes_used > 64 * MIB);
    }
    close_store(store);
    return 0;
}

/* Of two processes with different capacities the larger one counts; alone, the smaller comes down to its own. */
static void the_largest_capacity_counts(void) {
    enum { prompts = 90, blocks = 4 };
    shape_t shape = shape_large();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    uint64_t p;
    small_config(&config, path_in_dir("store"));
    config.capacity_bytes = 160 * MIB;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    for (p = 0; p < prompts; p++) {
        offload_seed(ns, &shape, p, blocks);
        flush_store(store);
    }
    CHECK(stats_of(store).disk_bytes_used > 64 * MIB);
    CHECK_EQ(wait_for(spawn_role("smaller", "beside", NULL, NULL)), 0);
    for (p = 0; p < prompts; p++) CHECK_EQ(peek_seed(ns, &shape, p, blocks), blocks);
    close_store(store);
    CHECK_EQ(wait_for(spawn_role("smaller", "alone", NULL, NULL)), 0);
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    CHECK(stats_of(store).disk_bytes_used <= 64 * MIB);
    for (p = 0; p < prompts; p++) (void)check_stored_seed(ns, &shape, p, blocks);
    close_store(store);
}

static void processes_share_a_store(void) {
    shape_t shape = shape_mla();
    uint32_t *one = make_tokens(1, PROMPT_TOKENS);
    kvstore_prompt_t prompt = prompt_of(one, PROMPT_TOKENS);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_match_t match = match_zero();
    char lease[32];
    offload_prompt(ns, &shape, one, PROMPT_BLOCKS, 1);
    flush_store(store);
    CHECK_EQ(peek_seed(ns, &shape, 2, PROMPT_BLOCKS), 0);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, KVSTORE_LEASE_NANOSECONDS_MAX, &match), KVSTORE_OK);
    snprintf(lease, sizeof lease, "%" PRIu64, match.lease);
    CHECK_EQ(wait_for(spawn_role("visitor", lease, NULL, NULL)), 0);
    CHECK_EQ(stats_of(store).leases_active, 0);
    CHECK_STATUS(kvstore_lease_extend(store, match.lease, 0), KVSTORE_MISS);
    EVENTUALLY(peek_seed(ns, &shape, 2, PROMPT_BLOCKS) == PROMPT_BLOCKS);
    check_restore_seed(ns, &shape, 2, PROMPT_BLOCKS);
    CHECK_EQ(stats_of(store).blocks_stored, 2 * PROMPT_BLOCKS);
    close_store(store);
    free(one);
}

/* Works on prompts [first, first + 12), most of which another process works on too. */
static int role_neighbour(int argc, char **argv) {
    shape_t shape = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t first = argc > 0 ? strtoull(argv[0], NULL, 10) : 0, round, p;
    for (round = 0; round < 3; round++) {
        for (p = first; p < first + 12; p++) {
            offload_seed(ns, &shape, p, PROMPT_BLOCKS);
            CHECK_EQ(peek_seed(ns, &shape, p, PROMPT_BLOCKS), PROMPT_BLOCKS);
            check_restore_seed(ns, &shape, p, PROMPT_BLOCKS);
        }
        flush_store(store);
    }
    CHECK_EQ(stats_of(store).misses_corrupt, 0);
    close_store(store);
    return 0;
}

static void processes_write_the_same_blocks(void) {
    shape_t shape = shape_mla();
    kvstore_t *store;
    kvstore_namespace_t *ns;
    int pids[3], i;
    uint64_t p;
    pids[0] = spawn_role("neighbour", "0", NULL, NULL);
    pids[1] = spawn_role("neighbour", "4", NULL, NULL);
    pids[2] = spawn_role("neighbour", "0", NULL, NULL);
    for (i = 0; i < 3; i++) CHECK_EQ(wait_for(pids[i]), 0);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_EQ(stats_of(store).blocks_stored, 16 * PROMPT_BLOCKS); /* each once */
    for (p = 0; p < 16; p++) check_restore_seed(ns, &shape, p, PROMPT_BLOCKS);
    close_store(store);
}

/* Takes a lease for ten minutes and waits to be killed. */
static int role_lease_holder(int argc, char **argv) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(1, PROMPT_TOKENS);
    kvstore_prompt_t prompt = prompt_of(tokens, PROMPT_TOKENS);
    kvstore_match_t match = match_zero();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    (void)argc;
    (void)argv;
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, KVSTORE_LEASE_NANOSECONDS_MAX, &match), KVSTORE_OK);
    if (write(1, "leased\n", 7) != 7) return 1;
    for (;;) sleep_milliseconds(1000);
}

static void leases_die_with_their_process(void) {
    shape_t shape = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    char line[16] = "";
    int out, pid;
    FILE *lines;
    offload_seed(ns, &shape, 1, PROMPT_BLOCKS);
    flush_store(store);
    pid = spawn_role("lease_holder", NULL, NULL, &out);
    lines = fdopen(out, "r");
    CHECK(lines != NULL && fgets(line, sizeof line, lines) != NULL);
    CHECK_EQ(stats_of(store).leases_active, 1);
    kill_child(pid);
    CHECK_EQ(stats_of(store).leases_active, 0);
    fclose(lines);
    close_store(store);
}

static kvstore_t *open_soak(const char *name) {
    kvstore_config_t config;
    small_config(&config, path_in_dir(name));
    config.capacity_bytes = 64 * MIB;
    return open_store(&config);
}

/* Offloads more than fits; returns how many blocks are stored then. */
static uint64_t fill(kvstore_t *store) {
    shape_t shape = shape_large();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t p;
    for (p = 1000; p < 1040; p++) {
        offload_seed(ns, &shape, p, PROMPT_BLOCKS);
        if (p % 4 == 3) flush_store(store);
    }
    flush_store(store);
    CHECK(stats_of(store).disk_bytes_used <= 64 * MIB);
    return stats_of(store).blocks_stored;
}

/* Two threads of random operations, until it is killed or the operations are done. */
static int role_soak(int argc, char **argv) {
    worker_t workers[2], like;
    memset(&like, 0, sizeof like);
    like.store = open_soak("store");
    like.shape = shape_large();
    like.number = argc > 0 ? 2 * atoi(argv[0]) : 0;
    like.prompts = 48; /* 96 MiB: half as much again as fits */
    like.operations = argc > 1 && argv[1][0] != '\0' ? strtoull(argv[1], NULL, 10) : 1000000;
    workers_start(workers, 2, &like);
    workers_join(workers, 2);
    close_store(like.store);
    return 0;
}

/* Three processes on a store that is too small for what they keep, one of them killed again and again: no
 * process ever sees a wrong byte or an error, the disk stays bounded, and what is left is whole. */
static void killed_again_and_again(void) {
    enum { processes = 3, kills = 16 };
    int pids[processes], i, number = 0;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    shape_t shape = shape_large();
    char text[16];
    uint64_t p, stored, found = 0, fits, fits_new, state = 7;
    for (i = 0; i < processes; i++) {
        snprintf(text, sizeof text, "%d", number++);
        pids[i] = spawn_role("soak", text, NULL, NULL);
    }
    for (i = 0; i < kills; i++) {
        int victim = i % processes;
        state = mix64(state);
        sleep_milliseconds(50 + (unsigned)(state % 300));
        kill_child(pids[victim]);
        snprintf(text, sizeof text, "%d", number++);
        pids[victim] = spawn_role("soak", text, NULL, NULL);
    }
    for (i = 0; i < processes; i++) kill_child(pids[i]);
    /* Processes that end in good order see nothing of it. */
    for (i = 0; i < processes; i++) {
        snprintf(text, sizeof text, "%d", number++);
        pids[i] = spawn_role("soak", text, "40", NULL);
    }
    for (i = 0; i < processes; i++) CHECK_EQ(wait_for(pids[i]), 0);

    store = open_soak("store");
    ns = open_namespace(store, &shape);
    CHECK_EQ(stats_of(store).leases_active, 0);
    CHECK(stats_of(store).disk_bytes_used <= 64 * MIB);
    stored = stats_of(store).blocks_stored;
    for (p = 0; p < 48; p++) found += check_stored_seed(ns, &shape, p, PROMPT_BLOCKS);
    /* Nothing came meanwhile; what was freed ahead may have gone. */
    CHECK(found <= stored && found >= stats_of(store).blocks_stored);
    CHECK_EQ(stats_of(store).misses_corrupt, 0);
    /* No slot leaked: as much fits as into a new store. */
    fits = fill(store);
    close_store(store);
    store = open_soak("new");
    fits_new = fill(store);
    close_store(store);
    if (fits + PROMPT_BLOCKS < fits_new)
        fail(__FILE__, __LINE__, "%" PRIu64 " blocks fit, and %" PRIu64 " into a new store", fits, fits_new);
}
const child_role_t process_roles[] = {
    {"offload_forever", role_offload_forever},
    {"visitor", role_visitor},
    {"smaller", role_smaller},
    {"neighbour", role_neighbour},
    {"lease_holder", role_lease_holder},
    {"soak", role_soak},
    {NULL, NULL},
};

const test_case_t process_cases[] = {
    {"killed_after_flush", killed_after_flush},
    {"processes_share_a_store", processes_share_a_store},
    {"the_largest_capacity_counts", the_largest_capacity_counts},
    {"processes_write_the_same_blocks", processes_write_the_same_blocks},
    {"leases_die_with_their_process", leases_die_with_their_process},
    {"killed_again_and_again", killed_again_and_again},
    {NULL, NULL},
};
