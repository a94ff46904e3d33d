/* Threads that cannot be started, memory that is refused, and a fork among calls of other threads. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---------------------------------------------------------------- refusals */

/* A short life of a store; 0 = it went well, 2 = the open was refused with a status. */
static int short_life(const char *path) {
    shape_t shape = shape_mla();
    kvstore_config_t config;
    kvstore_t *store = NULL;
    kvstore_namespace_t *ns;
    uint32_t *tokens;
    pieces_t pieces;
    kvstore_prompt_t prompt;
    kvstore_transfer_t transfer;
    kvstore_operation_t *operation = NULL;
    kvstore_status_t status;
    small_config(&config, path);
    status = kvstore_open(&config, &store);
    if (status != KVSTORE_OK) {
        CHECK_ONE_OF(status, 3, KVSTORE_E_OUT_OF_MEMORY, KVSTORE_E_IO, KVSTORE_E_NO_SPACE);
        CHECK(store == NULL);
        return 2;
    }
    ns = open_namespace(store, &shape);
    tokens = make_tokens(1, 8 * (size_t)shape.tokens_per_block);
    prompt = prompt_of(tokens, 8 * (size_t)shape.tokens_per_block);
    offload_prompt(ns, &shape, tokens, 8, 1);
    flush_store(store);
    check_restore(ns, &shape, tokens, 8, 1);
    pieces = pieces_new(&shape, 0, 8, 0, 0);
    pieces_clear(&pieces);
    transfer = transfer_of(&pieces);
    status = kvstore_restore_start(ns, &prompt, &transfer, &operation);
    if (CHECK_ONE_OF(status, 2, KVSTORE_OK, KVSTORE_E_OUT_OF_MEMORY) == KVSTORE_OK) {
        CHECK_STATUS(kvstore_wait(operation, 0, NULL), KVSTORE_OK);
        CHECK(pieces_match(&pieces, 1, 8));
    }
    (void)CHECK_ONE_OF(kvstore_prefetch(ns, &prompt, NULL), 2, KVSTORE_OK, KVSTORE_E_OUT_OF_MEMORY);
    pieces_free(&pieces);
    close_store(store);
    free(tokens);
    return 0;
}

static int role_short_life(int argc, char **argv) {
    (void)argc;
    (void)argv;
    (void)alarm(60);
    return short_life(path_in_dir("store"));
}

/* As above, with so many MiB of address space more than the process has. */
static int role_little_memory(int argc, char **argv) {
    struct rlimit limit;
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (argc < 1 || file == NULL || fscanf(file, "%ld", &pages) != 1) return 3;
    fclose(file);
    (void)alarm(60);
    limit.rlim_cur = limit.rlim_max = (rlim_t)pages * 4096 + (rlim_t)atol(argv[0]) * MIB;
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 3;
    return short_life(path_in_dir("store"));
}

static void check_life(int status, const char *what, int number) {
    if (status != 0 && status != 2) fail(__FILE__, __LINE__, "%s %d: ended with %d", what, number, status);
}

/* Whichever thread is refused: a status, or a store that works. */
static void threads_are_refused(void) {
    char shim[4096], number[16];
    int at, all, last = -1;
    snprintf(shim, sizeof shim, "%s/refuse_thread.so", getenv("KVSTORE_SHIMS"));
    for (all = 0; all < 2; all++) {
        for (at = 1; at <= 14; at++) {
            int pid;
            snprintf(number, sizeof number, "%d", at);
            setenv("LD_PRELOAD", shim, 1);
            setenv("KVSTORE_REFUSE_THREAD", number, 1);
            if (all) setenv("KVSTORE_REFUSE_ALL", "1", 1);
            pid = spawn_role("short_life", NULL, NULL, NULL);
            unsetenv("LD_PRELOAD");
            last = wait_for(pid);
            check_life(last, "without thread", at);
        }
    }
    unsetenv("KVSTORE_REFUSE_THREAD");
    unsetenv("KVSTORE_REFUSE_ALL");
    CHECK_EQ(wait_for(spawn_role("short_life", NULL, NULL, NULL)), 0);
}

static void address_space_is_short(void) {
    static const int mebibytes[] = {1, 4, 8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 320, 400};
    char number[16];
    size_t i;
    for (i = 0; i < sizeof mebibytes / sizeof mebibytes[0]; i++) {
        snprintf(number, sizeof number, "%d", mebibytes[i]);
        check_life(wait_for(spawn_role("little_memory", number, NULL, NULL)), "with MiB", mebibytes[i]);
    }
}

/* ---------------------------------------------------------------- forks */

static volatile int is_over;

static void *call_on(void *argument) {
    kvstore_namespace_t *ns = (kvstore_namespace_t *)argument;
    uint32_t tokens[16] = {1};
    kvstore_prompt_t prompt = prompt_of(tokens, 16);
    while (!is_over) {
        kvstore_match_t match = match_zero();
        (void)kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match);
    }
    return NULL;
}

/* In a child that was forked while other threads were in calls, each handle is refused at once; a store of the child's own works. */
static void fork_beside_calls(void) {
    enum { threads = 3, forks = 200 };
    shape_t shape = shape_mla();
    char *path = path_in_dir("store"), *own_path = path_in_dir("own");
    kvstore_t *store = open_small(path);
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pthread_t ids[threads];
    int i;
    for (i = 0; i < threads; i++) CHECK(pthread_create(&ids[i], NULL, call_on, ns) == 0);
    for (i = 0; i < forks; i++) {
        pid_t pid;
        int status;
        fflush(NULL);
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            uint32_t tokens[16] = {1};
            kvstore_prompt_t prompt = prompt_of(tokens, 16);
            kvstore_match_t match = match_zero();
            kvstore_stats_t stats = stats_zero();
            (void)alarm(20);
            if (kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match) != KVSTORE_E_FORKED) _exit(1);
            if (kvstore_stats(store, &stats) != KVSTORE_E_FORKED) _exit(2);
            if (kvstore_flush(store, 0, NULL) != KVSTORE_E_FORKED) _exit(3);
            if (kvstore_namespace_close(ns) != KVSTORE_E_FORKED) _exit(4);
            if (kvstore_close(store) != KVSTORE_E_FORKED) _exit(5);
            if (i % 20 == 0) {
                kvstore_t *own = open_small(own_path);
                kvstore_namespace_t *own_ns = open_namespace(own, &shape);
                offload_seed(own_ns, &shape, (uint64_t)i, 2);
                check_restore_seed(own_ns, &shape, (uint64_t)i, 2);
                close_store(own);
            }
            _exit(0);
        }
        status = wait_for((int)pid);
        if (status != 0) fail(__FILE__, __LINE__, "child %d ended with %d", i, status);
    }
    is_over = 1;
    for (i = 0; i < threads; i++) CHECK(pthread_join(ids[i], NULL) == 0);
    close_store(store);
}

const child_role_t thread_start_roles[] = {
    {"short_life", role_short_life}, {"little_memory", role_little_memory}, {NULL, NULL}};

const test_case_t thread_start_cases[] = {
    {"threads_are_refused", threads_are_refused},
    {"address_space_is_short", address_space_is_short},
    {"fork_beside_calls", fork_beside_calls},
    {NULL, NULL},
};
