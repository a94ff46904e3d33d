/* What becomes of a store's folder and of the working directory while it is open. */
#include "harness.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "folder.h"

#define BLOCKS 4

static kvstore_t *open_with(const char *path, shape_t *shape, kvstore_namespace_t **ns) {
    kvstore_t *store = open_small(path);
    *shape = shape_large();
    *ns = open_namespace(store, shape);
    return store;
}

void make_store(const char *path, uint64_t first, uint64_t count) {
    shape_t shape;
    kvstore_namespace_t *ns;
    kvstore_t *store = open_with(path, &shape, &ns);
    uint64_t seed;
    for (seed = first; seed < first + count; seed++) offload_seed(ns, &shape, seed, BLOCKS);
    flush_store(store);
    close_store(store);
}

void check_store(const char *path, uint64_t first, uint64_t count) {
    shape_t shape;
    kvstore_namespace_t *ns;
    kvstore_t *store = open_with(path, &shape, &ns);
    uint64_t seed;
    for (seed = first; seed < first + count; seed++) check_restore_seed(ns, &shape, seed, BLOCKS);
    close_store(store);
}

static void change_folder(const char *path) {
    if (chdir(path) != 0) fail(__FILE__, __LINE__, "chdir: %s", strerror(errno));
}

static void make_folder(const char *path) {
    if (mkdir(path, 0755) != 0) fail(__FILE__, __LINE__, "mkdir: %s", strerror(errno));
}

static void move(const char *path, const char *new_path) {
    if (rename(path, new_path) != 0) fail(__FILE__, __LINE__, "rename: %s", strerror(errno));
}

/* A store that was opened by a relative path stays where it is, whatever the working directory becomes. */
static void relative_path_and_chdir(void) {
    shape_t shape;
    kvstore_namespace_t *ns;
    kvstore_t *store;
    uint64_t seed;
    make_folder(path_in_dir("a"));
    make_folder(path_in_dir("b"));
    make_store(path_in_dir("b/cache"), 100, 5);
    change_folder(path_in_dir("a"));
    store = open_with("cache", &shape, &ns);
    change_folder(path_in_dir("b"));
    for (seed = 0; seed < 5; seed++) offload_seed(ns, &shape, seed, BLOCKS);
    flush_store(store);
    CHECK(open_namespace(store, &(shape_t){.name = "another",
                                           .tokens_per_block = 16,
                                           .region_count = 1,
                                           .region_bytes = {4096}}) != NULL);
    change_folder("/");
    close_store(store);
    check_store(path_in_dir("a/cache"), 0, 5);
    check_store(path_in_dir("b/cache"), 100, 5);
}

/* Its folder is elsewhere by now: whoever stores hears it; what was stored before is read; nothing is made at the old path. */
static void check_gone(kvstore_t *store, kvstore_namespace_t *ns, const shape_t *shape) {
    kvstore_flush_result_t result = flush_zero();
    kvstore_transfer_result_t moved = result_zero();
    kvstore_prompt_t prompt;
    uint32_t *tokens = make_tokens(77, BLOCKS * shape->tokens_per_block);
    pieces_t pieces = pieces_new(shape, 0, BLOCKS, 0, shape->region_count);
    kvstore_transfer_t transfer;
    pieces_fill(&pieces, 77);
    transfer = transfer_of(&pieces);
    prompt = prompt_of(tokens, BLOCKS * shape->tokens_per_block);
    CHECK_ONE_OF(kvstore_offload(ns, &prompt, &transfer, &moved), 2, KVSTORE_OK, KVSTORE_E_IO);
    CHECK_STATUS(kvstore_flush(store, 0, &result), KVSTORE_E_IO);
    CHECK(strstr(kvstore_last_error_message(), "folder was removed, moved or replaced") != NULL);
    CHECK_EQ(result.blocks_durable, 0);
    /* From now on an offload says so itself. */
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &moved), KVSTORE_E_IO);
    check_restore_seed(ns, shape, 1, BLOCKS);
    CHECK_STATUS(kvstore_close(store), KVSTORE_E_IO);
    pieces_free(&pieces);
    free(tokens);
}

static void moved_folder(void) {
    shape_t shape;
    kvstore_namespace_t *ns;
    kvstore_t *store = open_with(path_in_dir("store"), &shape, &ns);
    offload_seed(ns, &shape, 1, BLOCKS);
    flush_store(store);
    move(path_in_dir("store"), path_in_dir("elsewhere"));
    check_gone(store, ns, &shape);
    CHECK(access(path_in_dir("store"), F_OK) != 0);
    check_store(path_in_dir("elsewhere"), 1, 1);
}

static void moved_parent(void) {
    shape_t shape;
    kvstore_namespace_t *ns;
    kvstore_t *store;
    make_folder(path_in_dir("parent"));
    store = open_with(path_in_dir("parent/store"), &shape, &ns);
    offload_seed(ns, &shape, 1, BLOCKS);
    flush_store(store);
    move(path_in_dir("parent"), path_in_dir("elsewhere"));
    check_gone(store, ns, &shape);
    check_store(path_in_dir("elsewhere/store"), 1, 1);
}

/* Another store took the folder's place: neither sees a byte of the other. */
static void replaced_folder(void) {
    shape_t shape;
    kvstore_namespace_t *ns;
    kvstore_t *store = open_with(path_in_dir("store"), &shape, &ns);
    offload_seed(ns, &shape, 1, BLOCKS);
    flush_store(store);
    move(path_in_dir("store"), path_in_dir("elsewhere"));
    make_store(path_in_dir("store"), 50, 3);
    check_gone(store, ns, &shape);
    check_store(path_in_dir("store"), 50, 3);
    check_store(path_in_dir("elsewhere"), 1, 1);
}

static void removed_folder(void) {
    shape_t shape;
    kvstore_namespace_t *ns;
    kvstore_t *store = open_with(path_in_dir("store"), &shape, &ns);
    char command[4200];
    offload_seed(ns, &shape, 1, BLOCKS);
    flush_store(store);
    snprintf(command, sizeof command, "rm -rf '%s'", path_in_dir("store"));
    CHECK_EQ(system(command), 0);
    check_gone(store, ns, &shape);
    CHECK(access(path_in_dir("store"), F_OK) != 0);
    make_store(path_in_dir("store"), 2, 1);
    check_store(path_in_dir("store"), 2, 1);
}

/* Only its catalog: what would be committed is in no file that anybody finds. */
static void removed_catalog(void) {
    shape_t shape;
    kvstore_namespace_t *ns;
    kvstore_t *store = open_with(path_in_dir("store"), &shape, &ns);
    offload_seed(ns, &shape, 1, BLOCKS);
    flush_store(store);
    CHECK_EQ(unlink(path_in_dir("store/catalog.mdb")), 0);
    check_gone(store, ns, &shape);
}

/* ---------------------------------------------------------------- by path */

/* Counts calls that name a file by its path (shims/paths.c, which the process runs with). */
static uint64_t path_calls(char **last) {
    uint64_t (*count)(void) = (uint64_t (*)(void))dlsym(RTLD_DEFAULT, "paths_count");
    char *(*name)(void) = (char *(*)(void))dlsym(RTLD_DEFAULT, "paths_last");
    if (count == NULL || name == NULL) fail(__FILE__, __LINE__, "the shim is not there");
    *last = name();
    return count();
}

static int role_use_a_store(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    shape_t shape = shape_large();
    kvstore_stats_t stats;
    char *last;
    uint64_t seed, before, erased;
    (void)argc, (void)argv;
    small_config(&config, path_in_dir("store"));
    config.capacity_bytes = 64 * MIB;
    config.catalog_bytes = 8 * MIB;
    config.archive_bytes = 64 * MIB;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    before = path_calls(&last);
    CHECK(before > 0); /* it does see them: the store was opened by its path */
    /* New slot files, eviction, archive, identities, events, leases, erasing: everything that touches a file. */
    for (seed = 0; seed < 60; seed++) {
        offload_seed(ns, &shape, seed, BLOCKS);
        if (seed % 8 == 0) flush_store(store);
    }
    flush_store(store);
    for (seed = 0; seed < 60; seed++) check_stored_seed(ns, &shape, seed, BLOCKS);
    CHECK(open_namespace(store, &(shape_t){.name = "another",
                                           .tokens_per_block = 16,
                                           .region_count = 1,
                                           .region_bytes = {4096}}) != NULL);
    stats = stats_of(store);
    CHECK(stats.blocks_demoted > 0);
    CHECK_STATUS(kvstore_namespace_purge(ns, &erased), KVSTORE_OK);
    while (stats_of(store).slots_erase_pending > 0) sleep_milliseconds(5);
    flush_store(store);
    close_store(store);
    if (path_calls(&last) != before)
        fail(__FILE__, __LINE__, "%" PRIu64 " calls by path after open, the last on %s",
             path_calls(&last) - before, last);
    return 0;
}

static void no_call_by_path_after_open(void) {
    int pid;
    run_with_shim("paths");
    pid = spawn_role("use-a-store", NULL, NULL, NULL);
    run_without_shim();
    CHECK_EQ(wait_for(pid), 0);
}

/* ---------------------------------------------------------------- openers that stop */

static int role_open_and_close(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    kvstore_status_t status;
    (void)argc, (void)argv;
    small_config(&config, path_in_dir("store"));
    status = kvstore_open(&config, &store);
    if (status != KVSTORE_OK) return status == KVSTORE_E_LOCKED ? 0 : 3;
    return kvstore_close(store) == KVSTORE_OK ? 0 : 4;
}

/* A process is stopped at each of its steps through its first open. Another one either opens the store or is told that it cannot,
 * and what it stored then is there when the first one has gone on. */
static void opener_stopped_at_each_step(void) {
    unsigned step, stopped = 0, refused = 0;
    char text[16];
    for (step = 1;; step++) {
        kvstore_config_t config;
        kvstore_t *store = NULL;
        kvstore_status_t opened;
        shape_t shape = shape_large();
        int pid, status;
        snprintf(text, sizeof text, "%u", step);
        setenv("STOP_AT_STEP", text, 1);
        run_with_shim("stop");
        pid = spawn_role("open-and-close", NULL, NULL, NULL);
        run_without_shim();
        CHECK(waitpid(pid, &status, WUNTRACED) == pid);
        if (!WIFSTOPPED(status)) {
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            break;
        }
        stopped++;
        small_config(&config, path_in_dir("store"));
        config.wait_timeout_nanoseconds = 100 * 1000 * 1000;
        opened = CHECK_ONE_OF(kvstore_open(&config, &store), 2, KVSTORE_OK, KVSTORE_E_LOCKED);
        if (opened == KVSTORE_OK) {
            kvstore_namespace_t *ns = NULL;
            kvstore_namespace_config_t space;
            namespace_config(&shape, &space);
            opened = CHECK_ONE_OF(kvstore_namespace_open(store, &space, &ns), 2, KVSTORE_OK, KVSTORE_BUSY);
            if (opened == KVSTORE_OK) {
                offload_seed(ns, &shape, 1, BLOCKS);
                flush_store(store);
            }
            CHECK_ONE_OF(kvstore_close(store), 2, KVSTORE_OK, KVSTORE_BUSY);
        } else {
            refused++;
            CHECK(strstr(kvstore_last_error_message(), "is it stopped") != NULL);
        }
        CHECK_EQ(kill(pid, SIGCONT), 0);
        CHECK_EQ(wait_for(pid), 0);
        if (opened == KVSTORE_OK) check_store(path_in_dir("store"), 1, 1);
        CHECK_EQ(system("rm -rf \"$KVSTORE_CASE_STORE\""), 0);
    }
    CHECK(stopped > 10 && refused > 3);
}

/* Stopped before its new catalog takes its name: another opener does not lose patience and go on, as it did once, to have its store
 * replaced under it. */
static void opener_stopped_before_its_catalog_is_there(void) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    int pid, status;
    unsetenv("STOP_AT_STEP");
    setenv("STOP_AT_RENAME", "1", 1);
    run_with_shim("stop");
    pid = spawn_role("open-and-close", NULL, NULL, NULL);
    run_without_shim();
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    small_config(&config, path_in_dir("store"));
    config.wait_timeout_nanoseconds = UINT64_C(12000000000);
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_LOCKED);
    CHECK(strstr(kvstore_last_error_message(), "is opening the store") != NULL);
    CHECK_EQ(kill(pid, SIGCONT), 0);
    CHECK_EQ(wait_for(pid), 0);
    make_store(path_in_dir("store"), 1, 1);
    check_store(path_in_dir("store"), 1, 1);
}

static void opener_stopped(void) {
    setenv("KVSTORE_CASE_STORE", path_in_dir("store"), 1);
    opener_stopped_at_each_step();
}

const child_role_t folder_roles[] = {
    {"use-a-store", role_use_a_store}, {"open-and-close", role_open_and_close}, {NULL, NULL}};

const test_case_t folder_cases[] = {
    {"relative_path_and_chdir", relative_path_and_chdir},
    {"moved_folder", moved_folder},
    {"moved_parent", moved_parent},
    {"replaced_folder", replaced_folder},
    {"removed_folder", removed_folder},
    {"removed_catalog", removed_catalog},
    {"no_call_by_path_after_open", no_call_by_path_after_open},
    {"opener_stopped_at_each_step", opener_stopped},
    {"opener_stopped_before_its_catalog_is_there", opener_stopped_before_its_catalog_is_there},
    {NULL, NULL},
};
