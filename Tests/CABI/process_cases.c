/* Threads, fork, kill -9, and several processes on one store. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>

#define PROMPT_BLOCKS 8
#define PROMPT_TOKENS (PROMPT_BLOCKS * 16)

/* ---------------------------------------------------------------- threads */

typedef struct {
    kvstore_t *store;
    kvstore_namespace_t *ns;
    shape_t shape;
    int number;
    uint64_t prompts; /* operations go over this many prompts, which all workers share */
    bool may_close; /* another thread closes the handles meanwhile */
    uint64_t operations;
} worker_t;

static bool is_gone(const worker_t *worker, kvstore_status_t status) {
    return worker->may_close && status == KVSTORE_E_BAD_HANDLE;
}

/* Random operations; what comes back must be the right bytes. */
static void *worker_run(void *argument) {
    worker_t *worker = (worker_t *)argument;
    uint64_t state = (uint64_t)worker->number, step;
    for (step = 0; step < worker->operations; step++) {
        uint64_t seed, blocks, b;
        uint32_t *tokens;
        kvstore_prompt_t prompt;
        kvstore_match_t match = match_zero();
        kvstore_status_t status;
        state = mix64(state);
        seed = (state >> 8) % worker->prompts;
        tokens = make_tokens(seed, PROMPT_TOKENS);
        prompt = prompt_of(tokens, PROMPT_TOKENS);
        switch (state % 8) {
        case 0:
        case 1:
        case 2: {
            pieces_t pieces = pieces_new(&worker->shape, 0, PROMPT_BLOCKS, 0, 0);
            kvstore_transfer_t transfer = transfer_of(&pieces);
            pieces_fill(&pieces, seed);
            status = kvstore_offload(worker->ns, &prompt, &transfer, NULL);
            /* PARENT_MISSING: another thread forgot the prefix meanwhile. */
            if (!is_gone(worker, status))
                CHECK_ONE_OF(status, 4, KVSTORE_OK, KVSTORE_BUSY, KVSTORE_FULL, KVSTORE_PARENT_MISSING);
            pieces_free(&pieces);
            break;
        }
        case 3:
        case 4:
        case 5: {
            pieces_t pieces = pieces_new(&worker->shape, 0, PROMPT_BLOCKS, 0, 0);
            kvstore_transfer_t transfer = transfer_of(&pieces);
            kvstore_transfer_result_t result = result_zero();
            status = kvstore_match(worker->ns, &prompt, 0, 0, &match);
            if (!is_gone(worker, status)) CHECK_ONE_OF(status, 3, KVSTORE_OK, KVSTORE_MISS, KVSTORE_FULL);
            status = kvstore_restore(worker->ns, &prompt, &transfer, &result);
            if (!is_gone(worker, status)) {
                CHECK_ONE_OF(status, 2, KVSTORE_OK, KVSTORE_MISS);
                for (b = 0; b < result.blocks_done; b++) CHECK_EQ(pieces.block_status[b], KVSTORE_OK);
                CHECK(pieces_match(&pieces, seed, result.blocks_done));
            }
            if (match.lease != 0) {
                status = kvstore_lease_release(worker->store, match.lease);
                if (!is_gone(worker, status)) CHECK_STATUS(status, KVSTORE_OK);
            }
            pieces_free(&pieces);
            break;
        }
        case 6:
            blocks = 0;
            prompt.token_count = 16 * (1 + (state >> 20) % PROMPT_BLOCKS);
            if (step % 4 == 0)
                status = kvstore_forget(worker->ns, &prompt, &blocks);
            else
                status = kvstore_touch(worker->ns, &prompt, &blocks);
            if (!is_gone(worker, status)) CHECK_ONE_OF(status, 2, KVSTORE_OK, KVSTORE_MISS);
            break;
        default: {
            kvstore_stats_t stats;
            memset(&stats, 0, sizeof stats);
            stats.struct_size = (uint32_t)sizeof stats;
            status = step % 8 == 0 ? kvstore_flush(worker->store, 0, NULL)
                                   : kvstore_stats(worker->store, &stats);
            if (!is_gone(worker, status)) CHECK_STATUS(status, KVSTORE_OK);
        }
        }
        free(tokens);
    }
    return NULL;
}

static void threads_share_a_store(void) {
    enum { threads = 6 };
    pthread_t ids[threads];
    worker_t workers[threads];
    kvstore_t *store = open_small(path_in_dir("store"));
    shape_t shape = shape_mla();
    int i;
    for (i = 0; i < threads; i++) {
        workers[i].store = store;
        workers[i].shape = shape;
        workers[i].ns = open_namespace(store, &shape); /* a handle each; one namespace */
        workers[i].number = i;
        workers[i].prompts = 12;
        workers[i].may_close = false;
        workers[i].operations = 150;
        CHECK(pthread_create(&ids[i], NULL, worker_run, &workers[i]) == 0);
    }
    for (i = 0; i < threads; i++) CHECK(pthread_join(ids[i], NULL) == 0);
    CHECK_EQ(stats_of(store).poisoned, 0);
    CHECK_EQ(stats_of(store).misses_corrupt, 0);
    CHECK_EQ(stats_of(store).leases_active, 0);
    close_store(store);
}

static void close_under_way(void) {
    enum { threads = 4, rounds = 8 };
    int round, i;
    for (round = 0; round < rounds; round++) {
        pthread_t ids[threads];
        worker_t workers[threads];
        shape_t shape = shape_mla();
        kvstore_t *store = open_small(path_in_dir("store"));
        kvstore_namespace_t *ns = open_namespace(store, &shape);
        for (i = 0; i < threads; i++) {
            workers[i].store = store;
            workers[i].ns = ns;
            workers[i].shape = shape;
            workers[i].number = round * threads + i;
            workers[i].prompts = 12;
            workers[i].may_close = true;
            workers[i].operations = 60;
            CHECK(pthread_create(&ids[i], NULL, worker_run, &workers[i]) == 0);
        }
        sleep_milliseconds((unsigned)(3 * round));
        if (round % 2 == 0) CHECK_STATUS(kvstore_namespace_close(ns), KVSTORE_OK);
        close_store(store);
        for (i = 0; i < threads; i++) CHECK(pthread_join(ids[i], NULL) == 0);
    }
}

static void *open_and_close(void *argument) {
    const char *path = (const char *)argument;
    shape_t shape = shape_gqa();
    int i;
    for (i = 0; i < 20; i++) {
        kvstore_t *store = open_small(path);
        kvstore_namespace_t *ns = open_namespace(store, &shape);
        uint32_t *tokens = make_tokens((uint64_t)i, 32);
        offload_prompt(ns, &shape, tokens, 2, (uint64_t)i);
        check_restore(ns, &shape, tokens, 2, (uint64_t)i);
        free(tokens);
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

/* ---------------------------------------------------------------- fork */

static void check_forked(kvstore_t *store, kvstore_namespace_t *ns) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(1, PROMPT_TOKENS);
    kvstore_prompt_t prompt = prompt_of(tokens, PROMPT_TOKENS);
    kvstore_match_t match = match_zero();
    kvstore_stats_t stats;
    kvstore_flush_result_t flushed = flush_zero();
    kvstore_namespace_config_t config;
    kvstore_namespace_t *opened = NULL;
    kvstore_block_key_t keys[PROMPT_BLOCKS];
    pieces_t pieces = pieces_new(&shape, 0, PROMPT_BLOCKS, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    size_t count = 0;
    pieces_fill(&pieces, 1);
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
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
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail(__FILE__, __LINE__, "the child failed in round %d (%s %d)", round,
                 WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        check_restore(ns, &shape, tokens, PROMPT_BLOCKS, 1);
    }
    flush_store(store);
    check_restore(ns, &shape, more, PROMPT_BLOCKS, 2); /* the child's */
    close_store(store);
    free(tokens);
    free(more);
}

/* ---------------------------------------------------------------- kill -9 */

/* Offloads prompts 0, 1, 2 ..., flushes after every fourth and says so on stdout; never ends by itself. */
static int role_offload_forever(int argc, char **argv) {
    shape_t shape = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t first = argc > 0 ? (uint64_t)strtoul(argv[0], NULL, 10) : 0, p;
    for (p = first;; p++) {
        uint32_t *tokens = make_tokens(p, PROMPT_TOKENS);
        offload_prompt(ns, &shape, tokens, PROMPT_BLOCKS, p);
        free(tokens);
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
        CHECK(kill((pid_t)pid, SIGKILL) == 0);
        CHECK_EQ(wait_for(pid), 128 + SIGKILL);
        while (fgets(line, sizeof line, lines) != NULL) confirmed = (uint64_t)strtoul(line, NULL, 10);
        fclose(lines);

        store = open_small(path_in_dir("store"));
        ns = open_namespace(store, &shape);
        for (p = 0; p <= confirmed; p++) { /* what flush confirmed is there, bit for bit */
            uint32_t *tokens = make_tokens(p, PROMPT_TOKENS);
            CHECK_EQ(peek_blocks(ns, tokens, PROMPT_TOKENS), PROMPT_BLOCKS);
            check_restore(ns, &shape, tokens, PROMPT_BLOCKS, p);
            free(tokens);
        }
        for (p = confirmed + 1; p < confirmed + 9; p++) { /* the rest may be missing, but never wrong */
            uint32_t *tokens = make_tokens(p, PROMPT_TOKENS);
            uint64_t blocks = peek_blocks(ns, tokens, PROMPT_TOKENS);
            if (blocks > 0) check_restore(ns, &shape, tokens, blocks, p);
            free(tokens);
        }
        CHECK_EQ(stats_of(store).misses_corrupt, 0);
        close_store(store);
        first = confirmed + 1; /* 4n again */
    }
}

/* ---------------------------------------------------------------- several processes */

/* Restores prompt 1, releases the lease whose id is the argument, offloads prompt 2, flushes. */
static int role_visitor(int argc, char **argv) {
    shape_t shape = shape_mla();
    uint32_t *one = make_tokens(1, PROMPT_TOKENS), *two = make_tokens(2, PROMPT_TOKENS);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t lease = argc > 0 ? strtoull(argv[0], NULL, 10) : 0;
    check_restore(ns, &shape, one, PROMPT_BLOCKS, 1);
    CHECK_EQ(stats_of(store).leases_active, 1); /* the other process's */
    CHECK_STATUS(kvstore_lease_release(store, lease), KVSTORE_OK);
    CHECK_EQ(stats_of(store).leases_active, 0);
    offload_prompt(ns, &shape, two, PROMPT_BLOCKS, 2);
    flush_store(store);
    close_store(store);
    free(one);
    free(two);
    return 0;
}

static void processes_share_a_store(void) {
    shape_t shape = shape_mla();
    uint32_t *one = make_tokens(1, PROMPT_TOKENS), *two = make_tokens(2, PROMPT_TOKENS);
    kvstore_prompt_t prompt = prompt_of(one, PROMPT_TOKENS);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_match_t match = match_zero();
    char lease[32];
    uint64_t deadline;
    offload_prompt(ns, &shape, one, PROMPT_BLOCKS, 1);
    flush_store(store);
    CHECK_EQ(peek_blocks(ns, two, PROMPT_TOKENS), 0);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, KVSTORE_LEASE_NANOSECONDS_MAX, &match), KVSTORE_OK);
    snprintf(lease, sizeof lease, "%" PRIu64, match.lease);
    CHECK_EQ(wait_for(spawn_role("visitor", lease, NULL, NULL)), 0);
    CHECK_EQ(stats_of(store).leases_active, 0);
    CHECK_STATUS(kvstore_lease_extend(store, match.lease, 0), KVSTORE_MISS);
    /* Visible here 50 ms after its flush at the latest; the load of a test machine gets its share. */
    deadline = now_nanoseconds() + UINT64_C(2000000000);
    while (peek_blocks(ns, two, PROMPT_TOKENS) < PROMPT_BLOCKS && now_nanoseconds() < deadline)
        sleep_milliseconds(5);
    CHECK_EQ(peek_blocks(ns, two, PROMPT_TOKENS), PROMPT_BLOCKS);
    check_restore(ns, &shape, two, PROMPT_BLOCKS, 2);
    CHECK_EQ(stats_of(store).blocks_stored, 2 * PROMPT_BLOCKS);
    close_store(store);
    free(one);
    free(two);
}

/* Works on prompts [first, first + 12), most of which another process works on too. */
static int role_neighbour(int argc, char **argv) {
    shape_t shape = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t first = argc > 0 ? strtoull(argv[0], NULL, 10) : 0, round, p;
    for (round = 0; round < 3; round++) {
        for (p = first; p < first + 12; p++) {
            uint32_t *tokens = make_tokens(p, PROMPT_TOKENS);
            uint64_t blocks;
            offload_prompt(ns, &shape, tokens, PROMPT_BLOCKS, p);
            blocks = peek_blocks(ns, tokens, PROMPT_TOKENS);
            CHECK_EQ(blocks, PROMPT_BLOCKS);
            check_restore(ns, &shape, tokens, blocks, p);
            free(tokens);
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
    for (p = 0; p < 16; p++) {
        uint32_t *tokens = make_tokens(p, PROMPT_TOKENS);
        check_restore(ns, &shape, tokens, PROMPT_BLOCKS, p);
        free(tokens);
    }
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
    uint32_t *tokens = make_tokens(1, PROMPT_TOKENS);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    char line[16] = "";
    int out, pid;
    FILE *lines;
    offload_prompt(ns, &shape, tokens, PROMPT_BLOCKS, 1);
    flush_store(store);
    pid = spawn_role("lease_holder", NULL, NULL, &out);
    lines = fdopen(out, "r");
    CHECK(lines != NULL && fgets(line, sizeof line, lines) != NULL);
    CHECK_EQ(stats_of(store).leases_active, 1);
    CHECK(kill((pid_t)pid, SIGKILL) == 0);
    CHECK_EQ(wait_for(pid), 128 + SIGKILL);
    CHECK_EQ(stats_of(store).leases_active, 0);
    fclose(lines);
    close_store(store);
    free(tokens);
}

static kvstore_t *open_soak(const char *name) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    small_config(&config, path_in_dir(name));
    config.capacity_bytes = 64 * MIB;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    return store;
}

/* Offloads more than fits; returns how many blocks are stored then. */
static uint64_t fill(kvstore_t *store) {
    shape_t shape = shape_large();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t p;
    for (p = 1000; p < 1040; p++) {
        uint32_t *tokens = make_tokens(p, PROMPT_TOKENS);
        offload_prompt(ns, &shape, tokens, PROMPT_BLOCKS, p);
        if (p % 4 == 3) flush_store(store);
        free(tokens);
    }
    flush_store(store);
    CHECK(stats_of(store).disk_bytes_used <= 64 * MIB);
    return stats_of(store).blocks_stored;
}

/* Two threads of random operations, until it is killed or the operations are done. */
static int role_soak(int argc, char **argv) {
    pthread_t ids[2];
    worker_t workers[2];
    kvstore_t *store = open_soak("store");
    int i, number = argc > 0 ? atoi(argv[0]) : 0;
    for (i = 0; i < 2; i++) {
        workers[i].store = store;
        workers[i].shape = shape_large();
        workers[i].ns = open_namespace(store, &workers[i].shape);
        workers[i].number = 2 * number + i;
        workers[i].prompts = 48; /* 96 MiB: half as much again as fits */
        workers[i].may_close = false;
        workers[i].operations = argc > 1 && argv[1][0] != '\0' ? strtoull(argv[1], NULL, 10) : 1000000;
        CHECK(pthread_create(&ids[i], NULL, worker_run, &workers[i]) == 0);
    }
    for (i = 0; i < 2; i++) CHECK(pthread_join(ids[i], NULL) == 0);
    close_store(store);
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
    uint64_t p, found = 0, fits, fits_new, state = 7;
    for (i = 0; i < processes; i++) {
        snprintf(text, sizeof text, "%d", number++);
        pids[i] = spawn_role("soak", text, NULL, NULL);
    }
    for (i = 0; i < kills; i++) {
        int victim = i % processes, status;
        state = mix64(state);
        sleep_milliseconds(50 + (unsigned)(state % 300));
        CHECK(kill((pid_t)pids[victim], SIGKILL) == 0);
        status = wait_for(pids[victim]);
        if (status != 128 + SIGKILL) fail(__FILE__, __LINE__, "a process ended by itself with %d", status);
        snprintf(text, sizeof text, "%d", number++);
        pids[victim] = spawn_role("soak", text, NULL, NULL);
    }
    for (i = 0; i < processes; i++) {
        CHECK(kill((pid_t)pids[i], SIGKILL) == 0);
        CHECK_EQ(wait_for(pids[i]), 128 + SIGKILL);
    }
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
    for (p = 0; p < 48; p++) {
        uint32_t *tokens = make_tokens(p, PROMPT_TOKENS);
        uint64_t blocks = peek_blocks(ns, tokens, PROMPT_TOKENS);
        if (blocks > 0) check_restore(ns, &shape, tokens, blocks, p);
        found += blocks;
        free(tokens);
    }
    CHECK_EQ(found, stats_of(store).blocks_stored);
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

const child_role_t child_roles[] = {
    {"offload_forever", role_offload_forever},
    {"visitor", role_visitor},
    {"neighbour", role_neighbour},
    {"lease_holder", role_lease_holder},
    {"soak", role_soak},
    {NULL, NULL},
};

const test_case_t process_cases[] = {
    {"threads_share_a_store", threads_share_a_store},
    {"close_under_way", close_under_way},
    {"threads_open_and_close", threads_open_and_close},
    {"handles_after_fork", handles_after_fork},
    {"killed_after_flush", killed_after_flush},
    {"processes_share_a_store", processes_share_a_store},
    {"processes_write_the_same_blocks", processes_write_the_same_blocks},
    {"leases_die_with_their_process", leases_die_with_their_process},
    {"killed_again_and_again", killed_again_and_again},
    {NULL, NULL},
};
