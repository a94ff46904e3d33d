/* What the processes of a store share in memory, and where it lies. */
#include "peer.h"
#include "surroundings.h"

#include <fcntl.h>
#include <lmdb.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static kvstore_t *open_at(const char *path) {
    kvstore_config_t config;
    small_config(&config, path);
    config.capacity_bytes = 64 * MIB;
    config.catalog_bytes = 8 * MIB;
    config.host_bytes = 8 * MIB;
    return open_store(&config);
}

/* A match with a lease, which is released again; the blocks that it found. */
static uint64_t match_once(kvstore_t *store, kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed) {
    uint32_t *tokens = make_tokens(seed, (size_t)PEER_BLOCKS * shape->tokens_per_block);
    kvstore_prompt_t prompt = prompt_of(tokens, (size_t)PEER_BLOCKS * shape->tokens_per_block);
    kvstore_match_t match = match_zero();
    CHECK_ONE_OF(kvstore_match(ns, &prompt, 0, 0, &match), 2, KVSTORE_OK, KVSTORE_MISS);
    if (match.lease != 0) CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    free(tokens);
    return match.blocks_matched;
}

/* Where the memory of the store at `path` is. */
static char *memory_folder(const char *path) {
    struct stat status;
    char *folder = (char *)must_malloc(256);
    CHECK(stat(path_in(path, "catalog.mdb"), &status) == 0);
    snprintf(folder, 256, "/dev/shm/kvstore-%u/%016llx-%016llx", (unsigned)status.st_uid,
             (unsigned long long)status.st_dev, (unsigned long long)status.st_ino);
    return folder;
}

/* ---------------------------------------------------------------- disks that are full or frozen */

static int role_user(int argc, char **argv) {
    shape_t shape = shape_mha();
    kvstore_t *store = open_at(argv[0]);
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t i;
    (void)argc;
    offload_seed(ns, &shape, 1, PEER_BLOCKS);
    flush_store(store);
    CHECK_EQ(match_once(store, ns, &shape, 1), PEER_BLOCKS);
    make_file(path_in_dir("used"));
    await_file(path_in_dir("full"));
    /* Each lease takes another entry: all pages of the table are touched. */
    for (i = 0; i < 20000; i++) CHECK_EQ(match_once(store, ns, &shape, 1), PEER_BLOCKS);
    (void)kvstore_close(store);
    return 0;
}

static void on_a_full_one(const char *kind, unsigned mebibytes, bool copies) {
    char *folder = mount_fresh(kind, "disk", mebibytes), *store = path_in(folder, "store");
    int pid = spawn_role("user", store, NULL, NULL);
    await_file(path_in_dir("used"));
    /* The next write to what the two share is a copy, and takes room. */
    if (copies) CHECK_EQ(run_shell("cp -r --reflink=always '%s' '%s/copy'", store, folder), 0);
    fill_up(folder);
    make_file(path_in_dir("full"));
    CHECK_EQ(wait_for(pid), 0);
}

/* Copy on write takes room for what has room already: a signal at a touch of a mapping, were it there. */
static void full_btrfs(void) { on_a_full_one("btrfs", 256, false); }
static void full_xfs_with_a_copy(void) { on_a_full_one("xfs", 320, true); }

/* Look-ups go on while the file system is frozen: what waits for it is the writer alone. */
static void frozen(void) {
    shape_t shape = shape_mha();
    char *folder = mount_fresh("ext4", "disk", 128);
    kvstore_t *store = open_at(path_in(folder, "store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t seed;
    int i;
    if (run_shell("command -v fsfreeze > /dev/null") != 0) skip("no fsfreeze");
    for (seed = 1; seed <= 4; seed++) offload_seed(ns, &shape, seed, PEER_BLOCKS);
    flush_store(store);
    sync();
    /* It thaws when this case has got through, or when it is sure that it hangs. */
    CHECK_EQ(run_shell("(fsfreeze -f '%s' && touch '%s' && for i in $(seq 200); do sleep 0.1; [ -e '%s' ] && break; done;"
                       " [ -e '%s' ] || touch '%s'; fsfreeze -u '%s'; touch '%s') > /dev/null 2>&1 &",
                       folder, path_in_dir("cold"), path_in_dir("through"), path_in_dir("through"),
                       path_in_dir("hung"), folder, path_in_dir("thawed")),
             0);
    await_file(path_in_dir("cold"));
    for (i = 0; i < 1000; i++)
        for (seed = 1; seed <= 4; seed++) CHECK_EQ(match_once(store, ns, &shape, seed), PEER_BLOCKS);
    (void)stats_of(store);
    make_file(path_in_dir("through"));
    await_file(path_in_dir("thawed"));
    CHECK(!file_exists(path_in_dir("hung")));
    close_store(store);
}

/* A full disk has no room for what a writer makes at open; who only reads needs none. */
static void opened_on_a_full_one(void) {
    shape_t shape = shape_mha();
    char *folder = mount_fresh("tmpfs", "disk", 96), *path = path_in(folder, "store");
    kvstore_t *store = open_at(path);
    kvstore_config_t config;
    offload_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS);
    flush_store(store);
    close_store(store);
    (void)unlink(path_in(path, "catalog.mdb-lock"));
    (void)unlink(path_in(path, "leases"));
    fill_up(folder);
    small_config(&config, path);
    store = NULL;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_NO_SPACE);
    config.flags |= KVSTORE_OPEN_READ_ONLY;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    CHECK_EQ(check_stored_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS), PEER_BLOCKS);
    close_store(store);
    small_config(&config, path_in(folder, "new"));
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_NO_SPACE);
}

/* ---------------------------------------------------------------- containers */

/* A process that sees another /dev/shm shares neither LMDB's readers nor the leases: whoever comes second is refused. */
static void another_dev_shm(void) {
    static const char *const how[2] = {"rw", "ro"};
    char *path = path_in_dir("store");
    kvstore_config_t config;
    kvstore_t *store;
    holder_t holder;
    int first, second;
    own_mounts();
    small_config(&config, path);
    close_store(open_store(&config));
    for (first = 0; first < 2; first++)
        for (second = 0; second < 2; second++) {
            holder = holder_start(path, how[first]);
            CHECK_EQ(holder.opened, KVSTORE_OK);
            /* The one that runs has its own of before. */
            CHECK(unshare(CLONE_NEWNS) == 0 && mount("none", "/dev/shm", "tmpfs", 0, "size=16m") == 0);
            config.flags = second ? KVSTORE_OPEN_READ_ONLY : 0;
            store = NULL;
            /* Two that only read need not know of each other. */
            if (first && second)
                CHECK_ONE_OF(kvstore_open(&config, &store), 2, KVSTORE_OK, KVSTORE_E_LOCKED);
            else
                CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_LOCKED);
            if (store != NULL) close_store(store);
            holder_end(&holder);
            config.flags = 0;
            close_store(open_store(&config));
        }
}

/* Without memory of the kernel's, what is shared lies in the store's folder, for all. */
static void without_dev_shm(void) {
    shape_t shape = shape_large();
    kvstore_t *store;
    peer_t peer;
    own_mounts();
    CHECK_EQ(run_shell("mkdir '%s' && mount --bind '%s' /dev/shm", path_in_dir("plain"), path_in_dir("plain")), 0);
    store = open_for_peers();
    peer = peer_start();
    offload_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS);
    flush_store(store);
    EVENTUALLY(peer_ask(&peer, "peek", 1) == PEER_BLOCKS);
    CHECK(file_exists(path_in(path_in_dir("store"), "memory")));
    peer_end(&peer);
    close_store(store);
}

/* A copy of a store that is open is a store of its own. */
static void a_copied_folder(void) {
    shape_t shape = shape_large();
    char *copy = path_in_dir("copy");
    kvstore_t *store = open_for_peers(), *copied;
    kvstore_config_t config;
    offload_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS);
    flush_store(store);
    CHECK_EQ(run_shell("cp -a '%s' '%s'", path_in_dir("store"), copy), 0);
    config_for_peers(&config);
    config.path = copy;
    copied = open_store(&config);
    CHECK_EQ(check_stored_seed(open_namespace(copied, &shape), &shape, 1, PEER_BLOCKS), PEER_BLOCKS);
    CHECK(strcmp(memory_folder(copy), memory_folder(path_in_dir("store"))) != 0);
    offload_seed(open_namespace(copied, &shape), &shape, 2, PEER_BLOCKS);
    flush_store(copied);
    CHECK_EQ(peek_seed(open_namespace(store, &shape), &shape, 2, PEER_BLOCKS), 0);
    close_store(copied);
    CHECK_EQ(check_stored_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS), PEER_BLOCKS);
    close_store(store);
}

/* A repair replaces what a reader reads: it waits for those as well. */
static void repair_beside_a_reader(void) {
    const char *command = getenv("KVSTORE_COMMAND");
    char *path = path_in_dir("store");
    holder_t reader;
    kvstore_config_t config;
    if (command == NULL) skip("KVSTORE_COMMAND names no command");
    small_config(&config, path);
    close_store(open_store(&config));
    reader = holder_start(path, "ro");
    CHECK_EQ(reader.opened, KVSTORE_OK);
    CHECK(run_shell("'%s' repair '%s' > '%s.log' 2>&1", command, path, path) != 0);
    CHECK_EQ(run_shell("grep -q 'has the store open' '%s.log'", path), 0);
    holder_end(&reader);
}

/* ---------------------------------------------------------------- what is left of the dead */

/* The memory goes with the last process; that of killed ones when any store is opened. */
static void nothing_is_left_in_memory(void) {
    kvstore_config_t config;
    kvstore_t *store;
    char *first = path_in_dir("first"), *other = path_in_dir("other"), *memory;
    holder_t killed;
    small_config(&config, first);
    store = open_store(&config);
    memory = memory_folder(first);
    CHECK(file_exists(memory));
    close_store(store);
    CHECK(!file_exists(memory));
    killed = holder_start(first, "rw");
    CHECK_EQ(killed.opened, KVSTORE_OK);
    kill_child(killed.pid);
    CHECK(file_exists(memory));
    small_config(&config, other);
    store = open_store(&config);
    EVENTUALLY(!file_exists(memory));
    close_store(store);
    CHECK(!file_exists(memory_folder(other)));
}

/* Reads the catalog with LMDB itself, as a backup does, and is killed in the middle of it. */
static int role_reader(int argc, char **argv) {
    MDB_env *environment;
    MDB_txn *transaction;
    (void)argc;
    CHECK_EQ(mdb_env_create(&environment), 0);
    CHECK_EQ(mdb_env_open(environment, argv[0], MDB_NOSUBDIR | MDB_RDONLY, 0600), 0);
    CHECK_EQ(mdb_txn_begin(environment, NULL, MDB_RDONLY, &transaction), 0);
    make_file(path_in_dir("reading"));
    pause();
    return 0;
}

/* A reader keeps freed pages from being used again; a killed one does no longer once pages run short. */
static void a_killed_reader(void) {
    shape_t shape = shape_gqa();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    kvstore_flush_result_t flushed;
    uint64_t seed = 0, full = 0;
    int reader;
    small_config(&config, path_in_dir("store"));
    config.capacity_bytes = 64 * MIB;
    config.catalog_bytes = 4 * MIB;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    for (; seed < 60; seed++) {
        offload_seed(ns, &shape, seed, PEER_BLOCKS);
        flush_store(store);
    }
    reader = spawn_role("reader", path_in(path_in_dir("store"), "catalog.mdb"), NULL, NULL);
    await_file(path_in_dir("reading"));
    for (; full < 5; seed++) {
        offload_seed(ns, &shape, seed, PEER_BLOCKS);
        flushed = flush_zero();
        CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
        full += flushed.blocks_dropped_full;
        CHECK(seed < 10000);
    }
    kill_child(reader);
    for (full = seed + 20; seed < full; seed++) {
        offload_seed(ns, &shape, seed, PEER_BLOCKS);
        flushed = flush_zero();
        CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
        CHECK_EQ(flushed.blocks_durable, PEER_BLOCKS);
    }
    close_store(store);
}

/* One that was there before the store was opened has a lock file of its own, and would not be seen. */
static void a_reader_of_before(void) {
    char *path = path_in_dir("store");
    kvstore_config_t config;
    kvstore_t *store = NULL;
    int reader;
    small_config(&config, path);
    close_store(open_store(&config));
    reader = spawn_role("reader", path_in(path, "catalog.mdb"), NULL, NULL);
    await_file(path_in_dir("reading"));
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_LOCKED);
    config.flags = KVSTORE_OPEN_READ_ONLY;
    close_store(open_store(&config));
    kill_child(reader);
    config.flags = 0;
    close_store(open_store(&config));
}

/* ---------------------------------------------------------------- hostile words */

static void write_words(const char *path, uint64_t (*word)(uint64_t number), uint64_t count) {
    uint64_t i, *words = (uint64_t *)must_malloc(count * 8);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    for (i = 0; i < count; i++) words[i] = word(i);
    CHECK(pwrite(fd, words, count * 8, 0) == (ssize_t)(count * 8));
    close(fd);
    free(words);
}

/* Each entry of the table as a process leaves it that is killed while it takes a lease. */
static uint64_t being_taken(uint64_t number) { return number % 6 == 0 ? UINT64_C(1) << 63 | 0x77 : 0; }
static uint64_t all_ones(uint64_t number) { return (void)number, UINT64_MAX; }
static uint64_t noise(uint64_t number) { return mix64(number); }

static void words_in_memory(uint64_t (*word)(uint64_t number), bool leases_are_given) {
    enum { TABLE_WORDS = 16384 * 6, ALL_WORDS = TABLE_WORDS + 2 + 8192 + 4096 };
    shape_t shape = shape_mha();
    kvstore_t *store = open_at(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint32_t *tokens = make_tokens(1, (size_t)PEER_BLOCKS * shape.tokens_per_block);
    kvstore_prompt_t prompt = prompt_of(tokens, (size_t)PEER_BLOCKS * shape.tokens_per_block);
    kvstore_match_t match = match_zero();
    uint64_t seed;
    offload_seed(ns, &shape, 1, PEER_BLOCKS);
    flush_store(store);
    write_words(path_in(memory_folder(path_in_dir("store")), "shared"), word,
                leases_are_given ? TABLE_WORDS : ALL_WORDS);
    CHECK_ONE_OF(kvstore_match(ns, &prompt, 0, 0, &match), 3, KVSTORE_OK, KVSTORE_MISS, KVSTORE_FULL);
    if (leases_are_given) CHECK(match.lease != 0);
    if (match.lease != 0) {
        (void)kvstore_lease_extend(store, match.lease, 0);
        (void)kvstore_lease_release(store, match.lease);
    }
    (void)kvstore_lease_release(store, UINT64_MAX);
    for (seed = 2; seed < 10; seed++) {
        kvstore_flush_result_t flushed = flush_zero();
        offload_seed(ns, &shape, seed, PEER_BLOCKS);
        CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
        (void)check_stored_seed(ns, &shape, seed, PEER_BLOCKS);
    }
    CHECK_ONE_OF(kvstore_forget(ns, &prompt, NULL), 2, KVSTORE_OK, KVSTORE_MISS);
    (void)stats_of(store);
    close_store(store);
    free(tokens);
}

static void killed_while_taking(void) { words_in_memory(being_taken, true); }
static void words_of_ones(void) { words_in_memory(all_ones, false); }
static void words_of_noise(void) { words_in_memory(noise, false); }

/* LMDB's own pages have no checksum: their numbers are looked at before they are counted with. */
static void pages_of_ones(void) {
    static const uint64_t values[] = {INT64_MAX, UINT64_MAX, UINT64_C(1) << 62, 1 << 30};
    shape_t shape = shape_mha();
    char *path = path_in_dir("store"), *catalog = path_in(path, "catalog.mdb");
    size_t i;
    for (i = 0; i < sizeof values / sizeof *values; i++) {
        kvstore_config_t config;
        kvstore_t *store = open_at(path);
        int page, fd;
        offload_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS);
        close_store(store);
        CHECK_EQ(run_shell("cp '%s' '%s.kept'", catalog, path), 0);
        fd = open(catalog, O_RDWR);
        /* The last page of both meta pages: page header, magic, version, address, map size, two tables. */
        for (page = 0; page < 2; page++) CHECK(pwrite(fd, &values[i], 8, page * 4096 + 136) == 8);
        close(fd);
        small_config(&config, path);
        store = NULL;
        CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_CORRUPT);
        config.flags |= KVSTORE_OPEN_READ_ONLY;
        CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_CORRUPT);
        CHECK_EQ(run_shell("cp '%s.kept' '%s'", path, catalog), 0);
    }
}

const test_case_t memory_cases[] = {
    {"full_btrfs", full_btrfs},
    {"full_xfs_with_a_copy", full_xfs_with_a_copy},
    {"frozen", frozen},
    {"opened_on_a_full_one", opened_on_a_full_one},
    {"another_dev_shm", another_dev_shm},
    {"without_dev_shm", without_dev_shm},
    {"a_copied_folder", a_copied_folder},
    {"repair_beside_a_reader", repair_beside_a_reader},
    {"nothing_is_left_in_memory", nothing_is_left_in_memory},
    {"a_killed_reader", a_killed_reader},
    {"a_reader_of_before", a_reader_of_before},
    {"killed_while_taking", killed_while_taking},
    {"words_of_ones", words_of_ones},
    {"words_of_noise", words_of_noise},
    {"pages_of_ones", pages_of_ones},
    {NULL, NULL},
};

const child_role_t memory_roles[] = {{"user", role_user}, {"reader", role_reader}, {NULL, NULL}};
