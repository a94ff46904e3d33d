/* Files of a store that are gone, cut, or something else. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "folder.h"
#include "surroundings.h"

#define BLOCKS 4
#define PROMPTS 6

/* Paths of what matches a suffix in a folder, in a list that NULL ends. */
static char **files_in(const char *folder, const char *suffix) {
    static char *paths[256];
    size_t count = 0;
    DIR *directory = opendir(folder);
    struct dirent *entry;
    CHECK(directory != NULL);
    while ((entry = readdir(directory)) != NULL) {
        size_t length = strlen(entry->d_name), end = strlen(suffix);
        if (length < end || strcmp(entry->d_name + length - end, suffix) != 0) continue;
        CHECK(count < 255);
        paths[count] = must_malloc(strlen(folder) + length + 2);
        sprintf(paths[count++], "%s/%s", folder, entry->d_name);
    }
    closedir(directory);
    paths[count] = NULL;
    return paths;
}

static void delete_file(const char *path) { CHECK_EQ(unlink(path), 0); }
static void empty_file(const char *path) { CHECK_EQ(truncate(path, 0), 0); }
static void cut_file(const char *path) { CHECK_EQ(truncate(path, 3 * 4096), 0); }
static void cut_in_slot(const char *path) { CHECK_EQ(truncate(path, (off_t)(2 * MIB) + 4096), 0); }
static void zero_file(const char *path) {
    struct stat status;
    CHECK_EQ(stat(path, &status), 0);
    CHECK_EQ(truncate(path, 0), 0);
    CHECK_EQ(truncate(path, status.st_size), 0);
}

/* What was in a slot file is a miss at its first request, counted, and stored again by it, without a repair. */
static void check_stored_again(kvstore_t *store, kvstore_namespace_t *ns, const shape_t *shape) {
    uint64_t seed;
    for (seed = 0; seed < PROMPTS; seed++) {
        uint64_t there = check_stored_seed(ns, shape, seed, BLOCKS);
        CHECK_EQ(peek_seed(ns, shape, seed, BLOCKS), there);
        offload_seed(ns, shape, seed, BLOCKS);
        CHECK_EQ(peek_seed(ns, shape, seed, BLOCKS), BLOCKS);
    }
    flush_store(store);
    for (seed = 0; seed < PROMPTS; seed++) check_restore_seed(ns, shape, seed, BLOCKS);
}

static void slot_files(void (*change)(const char *), bool isOpen) {
    shape_t shape = shape_large();
    kvstore_stats_t stats;
    char **path;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    make_store(path_in_dir("store"), 0, PROMPTS);
    if (!isOpen)
        for (path = files_in(path_in_dir("store/slots"), ".kvs"); *path; path++) change(*path);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    if (isOpen)
        for (path = files_in(path_in_dir("store/slots"), ".kvs"); *path; path++) change(*path);
    check_stored_again(store, ns, &shape);
    stats = stats_of(store);
    CHECK(stats.misses_unreadable + stats.misses_corrupt > 0);
    CHECK(stats.blocks_quarantined > 0);
    close_store(store);
    check_store(path_in_dir("store"), 0, PROMPTS);
}

static void slot_files_deleted(void) { slot_files(delete_file, false); }
static void slot_files_emptied(void) { slot_files(empty_file, false); }
static void slot_files_cut(void) { slot_files(cut_file, false); }
static void slot_files_cut_in_a_slot(void) { slot_files(cut_in_slot, false); }
static void slot_files_zeroed(void) { slot_files(zero_file, false); }
static void slot_files_emptied_while_open(void) { slot_files(empty_file, true); }

/* A slot file that is removed under a store that has it open: what is written to it is said to be lost, not durable; the next is kept. */
static void slot_file_removed_under_a_writer(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_flush_result_t result = flush_zero();
    char **path;
    offload_seed(ns, &shape, 0, BLOCKS);
    flush_store(store);
    for (path = files_in(path_in_dir("store/slots"), ".kvs"); *path; path++) delete_file(*path);
    offload_seed(ns, &shape, 1, BLOCKS);
    CHECK_ONE_OF(kvstore_flush(store, 0, &result), 2, KVSTORE_OK, KVSTORE_E_IO);
    CHECK_EQ(result.blocks_durable, 0);
    (void)kvstore_flush(store, 0, &result); /* what is left to be told of them */
    CHECK_EQ(result.blocks_durable, 0);
    CHECK_EQ(peek_seed(ns, &shape, 1, BLOCKS), 0);
    offload_seed(ns, &shape, 1, BLOCKS);
    flush_store(store);
    close_store(store);
    check_store(path_in_dir("store"), 1, 1);
}

/* ---------------------------------------------------------------- what is no file */

static void make_fifo(const char *path) { CHECK_EQ(mkfifo(path, 0600), 0); }
static void make_folder(const char *path) { CHECK_EQ(mkdir(path, 0700), 0); }
static void make_link(const char *path) {
    FILE *target = fopen(path_in_dir("target"), "w");
    CHECK(target != NULL);
    fputs("somebody's", target);
    fclose(target);
    CHECK_EQ(symlink(path_in_dir("target"), path), 0);
}
static void make_dangling(const char *path) { CHECK_EQ(symlink(path_in_dir("absent"), path), 0); }
static void make_device(const char *path) {
    if (mknod(path, S_IFCHR | 0666, makedev(1, 5)) != 0) skip("device nodes need root");
}
static void make_others_file(const char *path) {
    int fd = open(path, O_CREAT | O_WRONLY, 0666);
    CHECK(fd >= 0);
    if (fchown(fd, 4711, 4711) != 0) skip("needs root");
    close(fd);
}

static const struct {
    const char *name;
    void (*make)(const char *);
} kinds[] = {{"FIFO", make_fifo},         {"folder", make_folder}, {"link", make_link},
             {"dangling", make_dangling}, {"device", make_device}};

/* In place of each file something that is none, once before the store is made and once after: no call hangs or follows it, and nothing
 * outside of the folder is changed. */
static void files_that_are_none(void) {
    static const char *const names[] = {"catalog.mdb", "catalog.mdb-lock", "catalog.new",  "catalog.new-lock", "identities.kvs",
                                        "leases",      "opening.lock",     "repair.lock", "slots",            "owners"};
    size_t name, kind;
    int made;
    for (name = 0; name < sizeof names / sizeof *names; name++)
        for (kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
            for (made = 0; made < 2; made++) {
                char path[4200], command[9000], text[32] = "";
                kvstore_config_t config;
                kvstore_t *store = NULL;
                kvstore_status_t status;
                FILE *target;
                CHECK_EQ(system("rm -rf \"$KVSTORE_CASE\"/*"), 0);
                if (made)
                    make_store(path_in_dir("store"), 0, 1);
                else
                    CHECK_EQ(mkdir(path_in_dir("store"), 0700), 0);
                snprintf(path, sizeof path, "%s/%s", path_in_dir("store"), names[name]);
                snprintf(command, sizeof command, "rm -rf '%s'", path);
                CHECK_EQ(system(command), 0);
                kinds[kind].make(path);
                small_config(&config, path_in_dir("store"));
                config.wait_timeout_nanoseconds = UINT64_C(5000000000);
                status = kvstore_open(&config, &store);
                if (status == KVSTORE_OK)
                    close_store(store);
                else
                    CHECK(status < 0 && status != KVSTORE_E_LOCKED && status != KVSTORE_E_INTERNAL);
                config.flags |= KVSTORE_OPEN_READ_ONLY;
                store = NULL;
                if (kvstore_open(&config, &store) == KVSTORE_OK) close_store(store);
                CHECK(access(path_in_dir("absent"), F_OK) != 0);
                target = fopen(path_in_dir("target"), "r");
                if (target != NULL) {
                    CHECK(fgets(text, sizeof text, target) != NULL);
                    CHECK(strcmp(text, "somebody's") == 0);
                    fclose(target);
                }
                if (!made || kinds[kind].make != make_fifo) continue;
                snprintf(command, sizeof command,
                         "for c in inspect verify 'repair --dry-run' gc; do timeout 10 \"$KVSTORE_COMMAND\" $c '%s' >/dev/null 2>&1; "
                         "[ $? -ne 124 ] || exit 1; done",
                         path_in_dir("store"));
                if (system(command) != 0)
                    fail(__FILE__, __LINE__, "a command hangs on a %s in place of %s", kinds[kind].name, names[name]);
            }
}

static void no_files(void) {
    setenv("KVSTORE_CASE", test_dir, 1);
    files_that_are_none();
}

/* The same for a slot file: its blocks are misses, and a file of somebody else's is not believed. */
static void slot_file_of_another_kind(void) {
    size_t kind;
    setenv("KVSTORE_CASE", test_dir, 1);
    for (kind = 0; kind <= sizeof kinds / sizeof *kinds; kind++) {
        shape_t shape = shape_large();
        char **path;
        kvstore_t *store;
        kvstore_namespace_t *ns;
        CHECK_EQ(system("rm -rf \"$KVSTORE_CASE\"/*"), 0);
        make_store(path_in_dir("store"), 0, 1);
        if (kind == sizeof kinds / sizeof *kinds && chown(path_in_dir("store"), 4712, 4712) != 0) skip("needs root");
        for (path = files_in(path_in_dir("store/slots"), ".kvs"); *path; path++) {
            delete_file(*path);
            if (kind < sizeof kinds / sizeof *kinds)
                kinds[kind].make(*path);
            else
                make_others_file(*path);
        }
        store = open_small(path_in_dir("store"));
        ns = open_namespace(store, &shape);
        CHECK_EQ(check_stored_seed(ns, &shape, 0, BLOCKS), 0);
        CHECK_EQ(peek_seed(ns, &shape, 0, BLOCKS), 0);
        CHECK(stats_of(store).misses_unreadable > 0);
        CHECK_ONE_OF(kvstore_close(store), 2, KVSTORE_OK, KVSTORE_E_IO);
    }
}

/* The message says what is wrong, not only that something is. */
static void message_says_why(void) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    make_store(path_in_dir("store"), 0, 1);
    delete_file(path_in_dir("store/catalog.mdb"));
    make_link(path_in_dir("store/catalog.mdb"));
    small_config(&config, path_in_dir("store"));
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_IO);
    CHECK(strstr(kvstore_last_error_message(), "symbolic link") != NULL);
    delete_file(path_in_dir("store/catalog.mdb"));
    make_fifo(path_in_dir("store/catalog.mdb"));
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_IO);
    CHECK(strstr(kvstore_last_error_message(), "no regular file") != NULL);
}

/* In another user's folder only files of that user, or of who opens it, are used. */
static void foreign_files(void) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    pid_t pid;
    if (geteuid() != 0) skip("needs root");
    make_store(path_in_dir("store"), 0, 1);
    CHECK_EQ(chmod(test_dir, 0755), 0);
    /* All of it is user 4711's, who is not root, but a lock file, which a third one put there. */
    CHECK_EQ(system("chown -R 4711 \"$KVSTORE_CASE\"/store && chmod 755 \"$KVSTORE_CASE\"/store && "
                    "chown 4712 \"$KVSTORE_CASE\"/store/opening.lock && chmod 666 \"$KVSTORE_CASE\"/store/opening.lock"),
             0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK_EQ(setuid(4711), 0);
        small_config(&config, path_in_dir("store"));
        CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_IO);
        CHECK(strstr(kvstore_last_error_message(), "another user") != NULL);
        _exit(0);
    }
    CHECK_EQ(wait_for(pid), 0);
}

static void others_files(void) {
    setenv("KVSTORE_CASE", test_dir, 1);
    foreign_files();
}

/* Lengths that no disk has, of files that only say so: nothing is added up beyond what a number holds, and nobody reads to their end. */
static void files_of_endless_length(void) {
    shape_t shape = shape_large(), other = shape_mha();
    char *mount = mount_fresh("tmpfs", "mount", 512), *path = path_in(mount, "store");
    kvstore_config_t config;
    kvstore_t *store;
    int i;
    make_store(path, 0, 1);
    for (i = 0; i < 3; i++) CHECK_EQ(run_shell("truncate -s 4E '%s/slots/020000005%d-1.aside'", path, i), 0);
    CHECK_EQ(run_shell("truncate -s 4E '%s'/slots/*.kvs", path), 0);
    small_config(&config, path);
    store = open_store(&config);
    check_restore_seed(open_namespace(store, &shape), &shape, 0, BLOCKS);
    offload_seed(open_namespace(store, &other), &other, 1, BLOCKS); /* a file more */
    flush_store(store);
    close_store(store);
    CHECK_EQ(run_shell("for c in inspect 'verify --checksums' gc; do timeout 20 \"$KVSTORE_COMMAND\" $c '%s' > '%s.log' 2>&1; "
                       "s=$?; [ $s -lt 124 ] || { echo \"$c: $s\" >&2; exit 1; }; done",
                       path, path),
             0);
    CHECK_EQ(unlink(path_in(path, "catalog.mdb")), 0);
    CHECK_EQ(run_shell("timeout 60 \"$KVSTORE_COMMAND\" repair --force '%s' > '%s.log' 2>&1", path, path), 0);
    check_store(path, 0, 1);
}

const test_case_t file_cases[] = {
    {"slot_files_deleted", slot_files_deleted},
    {"slot_files_emptied", slot_files_emptied},
    {"slot_files_cut", slot_files_cut},
    {"slot_files_cut_in_a_slot", slot_files_cut_in_a_slot},
    {"slot_files_zeroed", slot_files_zeroed},
    {"slot_files_emptied_while_open", slot_files_emptied_while_open},
    {"slot_file_removed_under_a_writer", slot_file_removed_under_a_writer},
    {"files_that_are_none", no_files},
    {"slot_file_of_another_kind", slot_file_of_another_kind},
    {"message_says_why", message_says_why},
    {"files_of_another_user", others_files},
    {"files_of_endless_length", files_of_endless_length},
    {NULL, NULL},
};
