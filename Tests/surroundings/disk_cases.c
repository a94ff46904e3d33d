/* File systems that fail, fill up, or go away under a store that is open. */
#include "folder.h"
#include "surroundings.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#define BLOCKS 4
#define KEPT 3

static kvstore_t *open_on(const char *path, kvstore_namespace_t **ns, uint64_t archive_bytes, const char *archive) {
    kvstore_config_t config;
    kvstore_t *store;
    shape_t shape = shape_large();
    uint64_t seed;
    small_config(&config, path);
    config.capacity_bytes = 96 * MIB;
    config.catalog_bytes = 16 * MIB;
    config.host_bytes = 8 * MIB;
    config.offload_timeout_nanoseconds = UINT64_C(2000000000);
    config.wait_timeout_nanoseconds = UINT64_C(10000000000);
    config.archive_bytes = archive_bytes;
    config.archive_path = archive;
    store = open_store(&config);
    *ns = open_namespace(store, &shape);
    for (seed = 1; seed <= KEPT; seed++) {
        size_t count = BLOCKS * (size_t)shape.tokens_per_block;
        uint32_t *tokens = make_tokens(seed, count);
        kvstore_prompt_t prompt = prompt_of(tokens, count);
        uint64_t pin, blocks;
        offload_seed(*ns, &shape, seed, BLOCKS);
        flush_store(store);
        CHECK_STATUS(kvstore_pin(*ns, &prompt, UINT64_C(3600000000000), &pin, &blocks), KVSTORE_OK);
        free(tokens);
    }
    return store;
}

/* Each call comes back with a status and a message; what comes is right. Blocks that were confirmed. */
static uint64_t use_in_trouble(kvstore_t *store, kvstore_namespace_t *ns, uint64_t first, uint64_t prompts) {
    shape_t shape = shape_large();
    size_t count = BLOCKS * (size_t)shape.tokens_per_block;
    uint64_t seed, durable = 0;
    for (seed = first; seed < first + prompts; seed++) {
        uint32_t *tokens = make_tokens(seed, count);
        kvstore_transfer_result_t result = result_zero();
        kvstore_flush_result_t flushed = flush_zero();
        CHECK_ONE_OF(offload_blocks(ns, &shape, tokens, count, 0, BLOCKS, seed, &result), 6, KVSTORE_OK, KVSTORE_BUSY,
                     KVSTORE_FULL, KVSTORE_PARENT_MISSING, KVSTORE_E_IO, KVSTORE_E_NO_SPACE);
        CHECK_ONE_OF(kvstore_flush(store, UINT64_C(20000000000), &flushed), 3, KVSTORE_OK, KVSTORE_E_IO,
                     KVSTORE_E_NO_SPACE);
        durable += flushed.blocks_durable;
        (void)check_stored_seed(ns, &shape, seed, BLOCKS);
        (void)check_stored_seed(ns, &shape, 1 + seed % KEPT, BLOCKS);
        (void)stats_of(store);
        free(tokens);
    }
    return durable;
}

static void check_kept(kvstore_namespace_t *ns) {
    shape_t shape = shape_large();
    uint64_t seed;
    for (seed = 1; seed <= KEPT; seed++) check_restore_seed(ns, &shape, seed, BLOCKS);
}

static void check_closed_store(const char *path) {
    const char *command = getenv("KVSTORE_COMMAND");
    if (command != NULL)
        CHECK_EQ(run_shell("'%s' verify '%s' > '%s' 2>&1 || { cat '%s' >&2; exit 1; }", command, path,
                           path_in_dir("verify.log"), path_in_dir("verify.log")),
                 0);
}

/* ---------------------------------------------------------------- fills up */

/* Somebody fills it, again and again; what is pinned stays, and once there is room blocks are taken again. */
static void fills_up(const char *kind, unsigned mebibytes) {
    char *folder = mount_fresh(kind, "disk", mebibytes), *path = path_in(folder, "store");
    shape_t shape = shape_large();
    kvstore_namespace_t *ns;
    kvstore_t *store = open_on(path, &ns, 0, NULL);
    unsigned round;
    for (round = 0; round < 3; round++) {
        fill_up(folder);
        (void)use_in_trouble(store, ns, 100 + round * 50, 40);
        check_kept(ns);
        CHECK_EQ(run_shell("rm -f '%s/fill' '%s/fill2'; sync -f '%s'", folder, folder, folder), 0);
    }
    offload_seed(ns, &shape, 1000, BLOCKS);
    flush_store(store);
    close_store(store);
    check_closed_store(path);
    store = open_on(path, &ns, 0, NULL);
    check_kept(ns);
    check_restore_seed(ns, &shape, 1000, BLOCKS);
    close_store(store);
}

static void full_tmpfs(void) { fills_up("tmpfs", 128); }
static void full_ext4(void) { fills_up("ext4", 160); }
static void full_xfs(void) { fills_up("xfs", 320); }

/* A quota that the store's folder is beyond. */
static void quota_is_reached(void) {
    char *folder = mount_fresh("btrfs", "disk", 256), *part = path_in(folder, "part"), *path = path_in(part, "store");
    shape_t shape = shape_large();
    kvstore_namespace_t *ns;
    kvstore_t *store;
    if (run_shell("(btrfs quota enable '%s' && btrfs subvolume create '%s') > '%s' 2>&1", folder, part,
                  path_in_dir("quota.log")) != 0)
        skip("no quota on btrfs");
    store = open_on(path, &ns, 0, NULL);
    CHECK_EQ(run_shell("sync -f '%s'; btrfs qgroup limit 40M '%s' > /dev/null", folder, part), 0);
    (void)use_in_trouble(store, ns, 100, 60);
    check_kept(ns);
    CHECK_EQ(run_shell("btrfs qgroup limit none '%s' > /dev/null", part), 0);
    offload_seed(ns, &shape, 1000, BLOCKS);
    (void)kvstore_flush(store, 0, NULL);
    offload_seed(ns, &shape, 1000, BLOCKS);
    flush_store(store);
    close_store(store);
    check_closed_store(path);
    store = open_on(path, &ns, 0, NULL);
    check_kept(ns);
    check_restore_seed(ns, &shape, 1000, BLOCKS);
    close_store(store);
}

/* ---------------------------------------------------------------- fails */

/* The file system shuts down, as it does when its disk fails: each access to the disk is EIO from then on. */
static void shuts_down(const char *kind, unsigned mebibytes) {
    char *folder = mount_fresh(kind, "disk", mebibytes), *path = path_in(folder, "store");
    kvstore_namespace_t *ns;
    kvstore_t *store = open_on(path, &ns, 0, NULL), *again = NULL;
    kvstore_config_t config;
    uint32_t how = 0; /* what is in the log is written first, as with a disk that fails a moment later */
    uint64_t there = 0, seed;
    shape_t shape = shape_large();
    int fd = open(folder, O_RDONLY | O_DIRECTORY);
    if (fd < 0 || ioctl(fd, _IOR('X', 125, uint32_t), &how) != 0) skip("this file system cannot be shut down");
    close(fd);
    CHECK_EQ(use_in_trouble(store, ns, 100, 6), 0);
    /* What is in RAM is still there; what was only on the disk is a miss that is counted. */
    for (seed = 1; seed <= KEPT; seed++) there += check_stored_seed(ns, &shape, seed, BLOCKS);
    CHECK(there > 0 || stats_of(store).misses_unreadable > 0);
    small_config(&config, path);
    config.flags = KVSTORE_OPEN_READ_ONLY;
    if (kvstore_open(&config, &again) == KVSTORE_OK) CHECK_STATUS(kvstore_close(again), KVSTORE_OK);
    CHECK_ONE_OF(kvstore_close(store), 2, KVSTORE_E_IO, KVSTORE_OK);
    if (run_shell("umount '%s' && mount -o loop '%s.image' '%s'", folder, folder, folder) != 0)
        skip("the file system cannot be mounted again");
    check_closed_store(path);
    store = open_on(path, &ns, 0, NULL);
    check_kept(ns);
    close_store(store);
}

static void ext4_shuts_down(void) { shuts_down("ext4", 160); }
static void xfs_shuts_down(void) { shuts_down("xfs", 320); }

/* ---------------------------------------------------------------- goes away */

/* The archive's disk is unmounted under a live store, as it is with `umount -l`; and the next open finds it away, then back. */
static void archive_is_unmounted(void) {
    char *folder = mount_fresh("ext4", "archive", 128), *path = path_in_dir("store");
    kvstore_namespace_t *ns;
    kvstore_t *store = open_on(path, &ns, 64 * MIB, folder);
    uint64_t seed, before = 0, after = 0, evicted;
    shape_t shape = shape_large();
    (void)use_in_trouble(store, ns, 100, 90);
    CHECK(stats_of(store).blocks_demoted > 0);
    CHECK_EQ(run_shell("umount -l '%s'", folder), 0);
    (void)use_in_trouble(store, ns, 200, 20);
    check_kept(ns);
    for (seed = 100; seed < 220; seed++) before += check_stored_seed(ns, &shape, seed, BLOCKS);
    close_store(store);
    store = open_on(path, &ns, 64 * MIB, folder);
    check_kept(ns);
    for (seed = 100; seed < 220; seed++) (void)check_stored_seed(ns, &shape, seed, BLOCKS);
    /* What is pinned and lay in the archive was stored on the disk again, where others leave for it. */
    evicted = stats_of(store).blocks_evicted;
    close_store(store);
    CHECK_EQ(run_shell("mount -o loop '%s.image' '%s'", folder, folder), 0);
    store = open_on(path, &ns, 64 * MIB, folder);
    check_kept(ns);
    for (seed = 100; seed < 220; seed++) after += check_stored_seed(ns, &shape, seed, BLOCKS);
    CHECK(after + evicted >= before);
    close_store(store);
    check_closed_store(path);
}

/* ---------------------------------------------------------------- one bad place */

static int role_beside_a_bad_place(int argc, char **argv) {
    shape_t shape = shape_large();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_flush_result_t flushed = flush_zero();
    (void)argc, (void)argv;
    offload_seed(ns, &shape, 1, BLOCKS);
    CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_E_IO);
    offload_seed(ns, &shape, 1, BLOCKS);
    flush_store(store);
    check_restore_seed(ns, &shape, 1, BLOCKS);
    close_store(store);
    return 0;
}

/* Where one place of the disk cannot be written, blocks go elsewhere, and not there again and again. */
static void a_bad_place(void) {
    int pid;
    setenv("BAD_PLACE", "8192", 1); /* in the first slot */
    run_with_shim("bad_place");
    pid = spawn_role("beside-a-bad-place", NULL, NULL, NULL);
    run_without_shim();
    CHECK_EQ(wait_for(pid), 0);
    check_store(path_in_dir("store"), 1, 1);
}

const child_role_t disk_roles[] = {{"beside-a-bad-place", role_beside_a_bad_place}, {NULL, NULL}};

const test_case_t disk_cases[] = {
    {"a_bad_place", a_bad_place},
    {"full_tmpfs", full_tmpfs},
    {"full_ext4", full_ext4},
    {"full_xfs", full_xfs},
    {"quota_is_reached", quota_is_reached},
    {"ext4_shuts_down", ext4_shuts_down},
    {"xfs_shuts_down", xfs_shuts_down},
    {"archive_is_unmounted", archive_is_unmounted},
    {NULL, NULL},
};
