/* What the system refuses is named: its number in the flush's result, its words in the message. */
#include "folder.h"
#include "surroundings.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define BLOCKS 4

/* Offloads a prompt whose blocks cannot be kept, and that the system's refusal is what is said of them. */
static void check_dropped(kvstore_t *store, kvstore_namespace_t *ns, kvstore_status_t status, int code) {
    shape_t shape = shape_large();
    size_t count = BLOCKS * (size_t)shape.tokens_per_block;
    uint32_t *tokens = make_tokens(7, count);
    kvstore_transfer_result_t result = result_zero();
    kvstore_flush_result_t flushed = flush_zero();
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, count, 0, BLOCKS, 7, &result), KVSTORE_OK);
    CHECK_STATUS(kvstore_flush(store, 0, &flushed), status);
    CHECK(strstr(kvstore_last_error_message(), "slot file") != NULL);
    CHECK_EQ(flushed.blocks_dropped_error, BLOCKS);
    CHECK_EQ(flushed.blocks_dropped_full, 0);
    CHECK_EQ(flushed.dropped_errno, code);
    CHECK_EQ(stats_of(store).blocks_dropped_error, BLOCKS);
    CHECK_EQ(stats_of(store).blocks_dropped_full, 0);
    free(tokens);
}

static void check_kept_again(kvstore_t *store, kvstore_namespace_t *ns) {
    shape_t shape = shape_large();
    offload_seed(ns, &shape, 7, BLOCKS);
    flush_store(store);
    check_restore_seed(ns, &shape, 7, BLOCKS);
    close_store(store);
}

static void disk_without_room(void) {
    char *folder = mount_fresh("tmpfs", "disk", 24), *path = path_in(folder, "store");
    shape_t shape = shape_large();
    kvstore_t *store = open_small(path);
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    /* The catalog has pages of its own before the disk is full. */
    CHECK_EQ(run_shell("cp --sparse=never '%s/catalog.mdb' '%s/room'; dd if=/dev/zero of='%s/fill' bs=64k 2> /dev/null; rm "
                       "'%s/room'",
                       path, folder, folder, folder),
             0);
    check_dropped(store, ns, KVSTORE_E_NO_SPACE, ENOSPC);
    CHECK_EQ(run_shell("rm '%s/fill'", folder), 0);
    check_kept_again(store, ns);
}

static void no_descriptor_left(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    struct rlimit limit, none;
    int lowest = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(lowest >= 0 && close(lowest) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = (rlim_t)lowest;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    check_dropped(store, ns, KVSTORE_E_IO, EMFILE);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    check_kept_again(store, ns);
}

/* A path of any length leaves room for the reason; what is cut off is the path's middle, between characters. */
static void reason_behind_a_long_path(void) {
    char *path = path_in_dir("none");
    kvstore_config_t config;
    kvstore_t *store = NULL;
    const char *message;
    unsigned part;
    for (part = 0; part < 12; part++) path = path_in(path, "ein-langer-Name-mit-\xc3\xbcmlauten-\xe2\x82\xac-und-noch-mehr");
    path = path_in(path, "end");
    small_config(&config, path);
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_IO);
    message = kvstore_last_error_message();
    CHECK(strstr(message, "end: cannot create or use the store's folder: No such file or directory") != NULL);
    CHECK(strncmp(message, path, 20) == 0);
    CHECK(strstr(message, "\xef\xbf\xbd") == NULL);
}

/* Runs a command of kvstore on the store as a user to whom it does not belong. */
static int run_as_nobody(const char *command, const char *store) {
    return run_shell("setpriv --reuid 65534 --regid 65534 --clear-groups '%s' %s '%s' > '%s' 2>&1", getenv("KVSTORE_COMMAND"),
                     command, store, path_in_dir("said"));
}

static void somebody_elses_store(void) {
    static const char *const commands[] = {"inspect", "verify", "gc", "repair", "inspect sessions"};
    static const mode_t modes[] = {0700, 0744, 0711};
    char *path = path_in_dir("store");
    size_t mode, command;
    if (geteuid() != 0 || getenv("KVSTORE_COMMAND") == NULL) skip("needs root, and the command");
    make_store(path, 1, 1);
    CHECK(chmod(path_in_dir("."), 0711) == 0);
    if (run_as_nobody("--version", "") != 0) skip("the command is not everybody's, or there is no setpriv");
    for (mode = 0; mode < sizeof modes / sizeof *modes; mode++) {
        CHECK(chmod(path, modes[mode]) == 0);
        for (command = 0; command < sizeof commands / sizeof *commands; command++) {
            if (run_as_nobody(commands[command], path) != 1 ||
                run_shell("grep -q 'Permission denied' '%s' && ! grep -q 'no store\\|not a store' '%s'", path_in_dir("said"),
                          path_in_dir("said")) != 0) {
                (void)run_shell("cat '%s' >&2", path_in_dir("said"));
                fail(__FILE__, __LINE__, "%s of a folder with mode %o", commands[command], (unsigned)modes[mode]);
            }
        }
    }
    CHECK(chmod(path, 0700) == 0);
    check_store(path, 1, 1);
}

const test_case_t refusal_cases[] = {
    {"disk_without_room", disk_without_room},
    {"no_descriptor_left", no_descriptor_left},
    {"reason_behind_a_long_path", reason_behind_a_long_path},
    {"somebody_elses_store", somebody_elses_store},
    {NULL, NULL},
};
