/* Owners, readers, evictors and repairs that are stopped at each of their steps, and then killed or left to go on.
 *
 * A server in the case's own process uses the store meanwhile. Whatever another process stands still at: what is
 * confirmed is matched and restored, an offload is taken until the arena is full, what needs the stopped one ends at
 * its deadline, and a further process opens the store or is refused in clear words. Each 13th step, from
 * $KVSTORE_STEPS_FIRST on; all with $KVSTORE_STEPS=all. */
#include "folder.h"
#include "surroundings.h"

#include <signal.h>
#include <sys/wait.h>

#define BLOCKS 4
/* How long somebody waits for a process that is stopped. */
#define BESIDE_NANOSECONDS UINT64_C(60000000)
#define KEPT 3 /* prompts that are there from the start and that nobody may evict */

static void config_for_steps(kvstore_config_t *config) {
    small_config(config, path_in_dir("store"));
    config->capacity_bytes = 64 * MIB;
    config->catalog_bytes = 16 * MIB;
    config->host_bytes = 8 * MIB;
}

static bool is_long(void) {
    const char *steps = getenv("KVSTORE_STEPS");
    return steps != NULL && strcmp(steps, "all") == 0;
}

/* ---------------------------------------------------------------- processes that are stopped */

/* What a writer goes through: a namespace, blocks, a use, a removal. 5: refused or late, which is no failure of a
 * process that shares the store with others that write. */
static int role_steps_of_a_writer(int argc, char **argv) {
    shape_t shape = shape_large(), other = shape_mha();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    uint64_t seed = strtoull(argv[0], NULL, 10), removed = 0;
    uint32_t *tokens = make_tokens(seed + 1, BLOCKS * (size_t)shape.tokens_per_block);
    kvstore_prompt_t prompt = prompt_of(tokens, BLOCKS * (size_t)shape.tokens_per_block);
    (void)argc;
    config_for_steps(&config);
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    offload_seed(ns, &shape, seed, BLOCKS);
    flush_store(store);
    check_restore_seed(ns, &shape, seed, BLOCKS);
    offload_seed(ns, &shape, seed + 1, BLOCKS);
    flush_store(store);
    CHECK_ONE_OF(kvstore_forget(ns, &prompt, &removed), 2, KVSTORE_OK, KVSTORE_MISS);
    offload_seed(open_namespace(store, &other), &other, seed, BLOCKS);
    close_store(store);
    free(tokens);
    return 0;
}

/* A store that is full: each offload evicts. */
static int role_steps_of_an_evictor(int argc, char **argv) {
    shape_t shape = shape_large();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    uint64_t seed = strtoull(argv[0], NULL, 10), i;
    (void)argc;
    config_for_steps(&config);
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    for (i = 0; i < 4; i++) {
        offload_seed(ns, &shape, seed + i, BLOCKS);
        flush_store(store);
    }
    CHECK(stats_of(store).blocks_evicted > 0);
    close_store(store);
    return 0;
}

static int look(bool isReadOnly, bool isBeside) {
    shape_t shape = shape_large();
    kvstore_config_t config;
    kvstore_t *store = NULL;
    kvstore_namespace_t *ns;
    uint64_t seed;
    config_for_steps(&config);
    if (isReadOnly) config.flags |= KVSTORE_OPEN_READ_ONLY;
    if (isBeside) config.wait_timeout_nanoseconds = BESIDE_NANOSECONDS;
    if (CHECK_ONE_OF(kvstore_open(&config, &store), 2, KVSTORE_OK, KVSTORE_E_LOCKED) != KVSTORE_OK) {
        const char *message = kvstore_last_error_message();
        if (strstr(message, "stopped") == NULL && strstr(message, "repair") == NULL)
            fail(__FILE__, __LINE__, "refused without saying why: %s", message);
        return 5;
    }
    ns = open_namespace(store, &shape);
    for (seed = 1; seed <= KEPT; seed++) check_restore_seed(ns, &shape, seed, BLOCKS);
    CHECK_ONE_OF(kvstore_close(store), 2, KVSTORE_OK, KVSTORE_BUSY);
    return 0;
}

static int role_steps_of_a_reader(int argc, char **argv) {
    (void)argc, (void)argv;
    return look(true, false);
}

/* A process that comes while another one is stopped ("beside"), or after. */
static int role_looker(int argc, char **argv) {
    (void)argc;
    return look(false, strcmp(argv[0], "beside") == 0);
}

static int role_steps_of_a_command(int argc, char **argv) {
    char *command = getenv("KVSTORE_COMMAND");
    (void)argc;
    if (freopen("/dev/null", "w", stdout) == NULL) return 1;
    setenv("STEPS_ARMED", "1", 1);
    execl(command, command, argv[0], path_in_dir("store"), (char *)NULL);
    return 126;
}

/* ---------------------------------------------------------------- the case's own part */

static unsigned stride(void) {
    return is_long() ? 1 : 13;
}

/* Starts the role, to be stopped at this step; whether it was. When it ended before, that went well. */
static bool start_to_stop(const char *role, const char *argument, unsigned step, int *pid) {
    char text[16];
    int status;
    snprintf(text, sizeof text, "%u", step);
    setenv("STEPS_AT", text, 1);
    setenv("STEPS_DO", "stop", 1);
    setenv("STEPS_KINDS", "onwrlm", 1);
    if (strcmp(role, "steps-of-a-command") != 0) setenv("STEPS_ARMED", "1", 1);
    run_with_shim("steps");
    *pid = spawn_role(role, argument, NULL, NULL);
    run_without_shim();
    unsetenv("STEPS_ARMED");
    CHECK(waitpid(*pid, &status, WUNTRACED) == *pid);
    if (WIFSTOPPED(status)) return true;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail(__FILE__, __LINE__, "%s %s: ended with %d before step %u", role, argument, status, step);
    return false;
}

/* Kills it at every other step, else lets it go on to its end. */
static void end_stopped(int pid, unsigned step, const char *what) {
    int status;
    if (step / stride() % 2 == 1) {
        CHECK_EQ(kill(pid, SIGKILL), 0);
        CHECK_EQ(wait_for(pid), 128 + SIGKILL);
        return;
    }
    CHECK_EQ(kill(pid, SIGCONT), 0);
    status = wait_for(pid);
    if (status != 0) fail(__FILE__, __LINE__, "%s, stopped at step %u and continued, ended with %d", what, step, status);
}

typedef struct {
    kvstore_t *store;
    kvstore_namespace_t *ns;
    shape_t shape;
} server_t;

static server_t serve(void) {
    server_t server;
    kvstore_config_t config;
    uint64_t seed;
    server.shape = shape_large();
    config_for_steps(&config);
    server.store = open_store(&config);
    server.ns = open_namespace(server.store, &server.shape);
    for (seed = 1; seed <= KEPT; seed++) {
        size_t count = BLOCKS * (size_t)server.shape.tokens_per_block;
        uint32_t *tokens = make_tokens(seed, count);
        kvstore_prompt_t prompt = prompt_of(tokens, count);
        uint64_t pin, blocks = 0;
        offload_seed(server.ns, &server.shape, seed, BLOCKS);
        flush_store(server.store);
        CHECK_STATUS(kvstore_pin(server.ns, &prompt, UINT64_C(3600000000000), &pin, &blocks), KVSTORE_OK);
        free(tokens);
    }
    return server;
}

static kvstore_status_t forget_seed(const server_t *server, uint64_t seed) {
    size_t count = BLOCKS * (size_t)server->shape.tokens_per_block;
    uint32_t *tokens = make_tokens(seed, count);
    kvstore_prompt_t prompt = prompt_of(tokens, count);
    uint64_t removed = 0;
    kvstore_status_t status = kvstore_forget(server->ns, &prompt, &removed);
    free(tokens);
    return CHECK_ONE_OF(status, 3, KVSTORE_OK, KVSTORE_MISS, KVSTORE_BUSY);
}

/* What holds while the other one is stopped. `mayHold`: it may be stopped with the catalog's write lock. */
static void use_beside(const server_t *server, uint64_t seed, bool mayHold, unsigned *heldCount, unsigned *refusedCount) {
    kvstore_flush_result_t result = flush_zero();
    kvstore_status_t flushed;
    uint64_t kept;
    int looked;
    for (kept = 1; kept <= KEPT; kept++) {
        CHECK_EQ(peek_seed(server->ns, &server->shape, kept, BLOCKS), BLOCKS);
        check_restore_seed(server->ns, &server->shape, kept, BLOCKS);
    }
    offload_seed(server->ns, &server->shape, seed, BLOCKS);
    check_restore_seed(server->ns, &server->shape, seed, BLOCKS);
    flushed = kvstore_flush(server->store, mayHold ? BESIDE_NANOSECONDS : 0, &result);
    CHECK_ONE_OF(flushed, 2, KVSTORE_OK, KVSTORE_BUSY);
    if (flushed == KVSTORE_BUSY)
        *heldCount += 1;
    else
        CHECK_EQ(result.blocks_durable, BLOCKS);
    looked = wait_for(spawn_role("looker", mayHold ? "beside" : NULL, NULL, NULL));
    if (looked == 5)
        *refusedCount += 1;
    else
        CHECK_EQ(looked, 0);
    if (!mayHold) CHECK_EQ(looked, 0);
}

static void check_after(const server_t *server, uint64_t seed, unsigned step) {
    uint64_t kept;
    kvstore_flush_result_t result = flush_zero();
    CHECK_STATUS(kvstore_flush(server->store, 0, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_dropped_full + result.blocks_dropped_parent + result.blocks_dropped_error, 0);
    if (check_stored_seed(server->ns, &server->shape, seed, BLOCKS) != BLOCKS)
        fail(__FILE__, __LINE__, "step %u: what was offloaded beside the stopped one is gone", step);
    for (kept = 1; kept <= KEPT; kept++) check_restore_seed(server->ns, &server->shape, kept, BLOCKS);
    CHECK_EQ(wait_for(spawn_role("looker", NULL, NULL, NULL)), 0);
}

static void verify_store(void) {
    const char *command = getenv("KVSTORE_COMMAND");
    if (command == NULL) skip("KVSTORE_COMMAND names no command");
    CHECK_EQ(run_shell("'%s' verify '%s' > '%s.log' 2>&1 || { cat '%s.log' >&2; exit 1; }", command,
                       path_in_dir("store"), path_in_dir("store"), path_in_dir("store")),
             0);
}

static unsigned first_step(void) {
    const char *first = getenv("KVSTORE_STEPS_FIRST");
    return first != NULL ? (unsigned)atoi(first) : is_long() ? 1 : 4;
}

static void stop_each_step(const char *role, const char *argument, bool mayHold, unsigned least, bool isFull) {
    server_t server = serve();
    unsigned step, stopped = 0, held = 0, refused = 0;
    uint64_t filler;
    (void)alarm(is_long() ? 0 : 600);
    if (isFull)
        for (filler = 0; filler < 60; filler++) {
            offload_seed(server.ns, &server.shape, 1000 + filler, BLOCKS);
            flush_store(server.store);
        }
    for (step = first_step();; step += stride()) {
        uint64_t seed = 100000 + step * 10;
        char text[32];
        int pid;
        snprintf(text, sizeof text, "%" PRIu64, seed + 1);
        if (!start_to_stop(role, argument != NULL ? argument : text, step, &pid)) break;
        stopped++;
        use_beside(&server, seed, mayHold, &held, &refused);
        end_stopped(pid, step, role);
        check_after(&server, seed, step);
        if (!isFull) {
            forget_seed(&server, seed);
            forget_seed(&server, seed + 1);
            forget_seed(&server, seed + 2);
        }
    }
    printf("  %s%s%s: %u steps, at %u of them a flush waited, at %u an open was refused\n", role,
           argument != NULL ? " " : "", argument != NULL ? argument : "", stopped, held, refused);
    CHECK(stopped * stride() >= least);
    close_store(server.store);
    verify_store();
}

static void a_writer_is_stopped_at_each_step(void) { stop_each_step("steps-of-a-writer", NULL, true, 60, false); }
static void an_evictor_is_stopped_at_each_step(void) { stop_each_step("steps-of-an-evictor", NULL, true, 60, true); }
static void a_reader_is_stopped_at_each_step(void) { stop_each_step("steps-of-a-reader", NULL, false, 20, false); }
static void an_inspect_is_stopped_at_each_step(void) { stop_each_step("steps-of-a-command", "inspect", false, 20, false); }
static void a_verify_is_stopped_at_each_step(void) { stop_each_step("steps-of-a-command", "verify", false, 20, false); }

/* A repair of a store without a catalog: who opens it meanwhile is refused, and whether the repair is killed or goes
 * on, the next one finds every block. */
static void a_repair_is_stopped_at_each_step(void) {
    unsigned step, stopped = 0;
    (void)alarm(is_long() ? 0 : 600);
    for (step = first_step();; step += stride()) {
        kvstore_config_t config;
        kvstore_t *store = NULL;
        kvstore_status_t status;
        int pid;
        CHECK_EQ(run_shell("rm -rf '%s'", path_in_dir("store")), 0);
        make_store(path_in_dir("store"), 1, KEPT);
        CHECK_EQ(unlink(path_in(path_in_dir("store"), "catalog.mdb")), 0);
        if (!start_to_stop("steps-of-a-command", "repair", step, &pid)) break;
        stopped++;
        config_for_steps(&config);
        config.capacity_bytes = 256 * MIB;
        config.wait_timeout_nanoseconds = BESIDE_NANOSECONDS;
        status = kvstore_open(&config, &store);
        if (status == KVSTORE_OK) {
            /* It had not begun, or is through with it. In the first case what is opened is a new store, which the
             * repair leaves alone; or the files without a catalog are refused. */
            shape_t shape = shape_large();
            kvstore_namespace_t *ns = open_namespace(store, &shape);
            uint64_t seed;
            for (seed = 1; seed <= KEPT; seed++) check_restore_seed(ns, &shape, seed, BLOCKS);
            CHECK_ONE_OF(kvstore_close(store), 2, KVSTORE_OK, KVSTORE_BUSY);
        } else {
            CHECK_ONE_OF(status, 2, KVSTORE_E_LOCKED, KVSTORE_E_CORRUPT);
            if (strstr(kvstore_last_error_message(), "repair") == NULL &&
                strstr(kvstore_last_error_message(), "stopped") == NULL)
                fail(__FILE__, __LINE__, "step %u: %s", step, kvstore_last_error_message());
        }
        end_stopped(pid, step, "repair");
        if (access(path_in(path_in_dir("store"), "catalog.mdb"), F_OK) != 0)
            CHECK_EQ(run_shell("'%s' repair --force '%s' > /dev/null", getenv("KVSTORE_COMMAND"), path_in_dir("store")), 0);
        check_store(path_in_dir("store"), 1, KEPT);
    }
    printf("  repair: %u steps\n", stopped);
    CHECK(stopped * stride() >= 20);
    verify_store();
}

const child_role_t stopped_roles[] = {{"steps-of-a-writer", role_steps_of_a_writer},
                                      {"steps-of-an-evictor", role_steps_of_an_evictor},
                                      {"steps-of-a-reader", role_steps_of_a_reader},
                                      {"steps-of-a-command", role_steps_of_a_command},
                                      {"looker", role_looker},
                                      {NULL, NULL}};

const test_case_t stopped_cases[] = {
    {"a_writer_is_stopped_at_each_step", a_writer_is_stopped_at_each_step},
    {"an_evictor_is_stopped_at_each_step", an_evictor_is_stopped_at_each_step},
    {"a_reader_is_stopped_at_each_step", a_reader_is_stopped_at_each_step},
    {"an_inspect_is_stopped_at_each_step", an_inspect_is_stopped_at_each_step},
    {"a_verify_is_stopped_at_each_step", a_verify_is_stopped_at_each_step},
    {"a_repair_is_stopped_at_each_step", a_repair_is_stopped_at_each_step},
    {NULL, NULL},
};
