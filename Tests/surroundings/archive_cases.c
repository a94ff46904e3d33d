/* An archive that is away, emptied, or another store's: a part that is not there is not empty, and a copy of a store is another store. */
#include <sys/stat.h>
#include <sys/wait.h>

#include "folder.h"

#define BLOCKS 4
#define PROMPTS 60

static char *place(const char *name) { return path_in_dir(name); }

static void run_command(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run_command(const char *format, ...) {
    char command[9000];
    va_list rest;
    va_start(rest, format);
    vsnprintf(command, sizeof command, format, rest);
    va_end(rest);
    if (system(command) != 0) fail(__FILE__, __LINE__, "%s", command);
}

/* What a command prints, at most so much; its exit status. */
static int output_of(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int output_of(char *text, size_t size, const char *format, ...) {
    char command[9000];
    va_list rest;
    FILE *pipe;
    size_t length;
    va_start(rest, format);
    vsnprintf(command, sizeof command, format, rest);
    va_end(rest);
    pipe = popen(command, "r");
    CHECK(pipe != NULL);
    length = fread(text, 1, size - 1, pipe);
    text[length] = 0;
    return WEXITSTATUS(pclose(pipe));
}

static void archived_config(kvstore_config_t *config, const char *path, const char *archive, uint64_t bytes) {
    small_config(config, path);
    config->capacity_bytes = 64 * MIB;
    config->catalog_bytes = 8 * MIB;
    config->archive_bytes = bytes;
    if (bytes > 0) config->archive_path = archive;
    config->wait_timeout_nanoseconds = UINT64_C(5000000000);
}

static kvstore_t *open_archived(const char *path, const char *archive, uint64_t bytes) {
    kvstore_config_t config;
    archived_config(&config, path, archive, bytes);
    return open_store(&config);
}

static void fill(kvstore_t *store, uint64_t first, uint64_t count) {
    shape_t shape = shape_large();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t seed;
    for (seed = first; seed < first + count; seed++) {
        offload_seed(ns, &shape, seed, BLOCKS);
        if (seed % 8 == 0) flush_store(store);
    }
    flush_store(store);
    kvstore_namespace_close(ns);
}

typedef struct {
    uint64_t promised, restored;
} found_t;

/* What look-ups promise of these prompts, and what restores bring; each byte is compared. */
static found_t find(kvstore_t *store, uint64_t first, uint64_t count) {
    shape_t shape = shape_large();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    found_t found = {0, 0};
    uint64_t seed;
    for (seed = first; seed < first + count; seed++) {
        found.promised += peek_seed(ns, &shape, seed, BLOCKS);
        found.restored += check_stored_seed(ns, &shape, seed, BLOCKS);
    }
    kvstore_namespace_close(ns);
    return found;
}

/* A store whose archive holds blocks, on another path; closed. Answers how many prompts' blocks it has. */
static uint64_t make_archived(const char *archive) {
    kvstore_t *store = open_archived(place("store"), archive, 64 * MIB);
    found_t found;
    fill(store, 0, PROMPTS);
    CHECK(stats_of(store).blocks_demoted > 0);
    found = find(store, 0, PROMPTS);
    CHECK_EQ(found.promised, found.restored);
    CHECK_EQ(found.promised, PROMPTS * BLOCKS);
    close_store(store);
    return found.promised;
}

static void listing(char text[8192]) {
    output_of(text, 8192, "cd '%s' && find . -type f -printf '%%p %%s ' -exec md5sum {} \\; | sort", place("disk"));
    CHECK(strlen(text) > 10);
}

/* A copy does not get at the archive of the store that it was copied from; it says why, and can have one of its own. */
static void copied_store(void) {
    char before[8192], after[8192];
    kvstore_config_t config;
    kvstore_t *store = NULL;
    uint64_t count;
    found_t found;
    make_archived(place("disk"));
    run_command("cp -a '%s' '%s'", place("store"), place("copy"));
    store = open_archived(place("store"), place("disk"), 64 * MIB);
    fill(store, 100, 10);
    found = find(store, 0, PROMPTS);
    count = found.restored;
    close_store(store);
    listing(before);
    archived_config(&config, place("copy"), place("disk"), 64 * MIB);
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_LOCKED);
    CHECK(strstr(kvstore_last_error_message(), "copy") != NULL);
    /* Without an archive it has what lies on its own disk, and all that is done with it leaves the archive alone. */
    store = open_archived(place("copy"), NULL, 0);
    found = find(store, 0, PROMPTS);
    CHECK_EQ(found.promised, found.restored);
    CHECK(found.restored > 0 && found.restored < count);
    fill(store, 0, PROMPTS);
    close_store(store);
    run_command("\"$KVSTORE_COMMAND\" gc '%s' >/dev/null", place("copy"));
    CHECK(system("\"$KVSTORE_COMMAND\" repair --force \"$KVSTORE_COPY\" >/dev/null 2>&1") != 0);
    {
        shape_t shape = shape_large();
        kvstore_namespace_t *ns;
        uint64_t blocks;
        store = open_archived(place("copy"), NULL, 0);
        ns = open_namespace(store, &shape);
        CHECK_STATUS(kvstore_namespace_purge(ns, &blocks), KVSTORE_OK);
        flush_store(store);
        close_store(store);
    }
    /* An archive of its own. */
    CHECK_EQ(unlink(place("copy/archive")), 0);
    store = open_archived(place("copy"), place("disk2"), 64 * MIB);
    fill(store, 0, PROMPTS);
    CHECK(stats_of(store).blocks_demoted > 0);
    close_store(store);
    listing(after);
    CHECK(strcmp(before, after) == 0);
    store = open_archived(place("store"), place("disk"), 64 * MIB);
    CHECK_EQ(find(store, 0, PROMPTS).restored, count);
    close_store(store);
}

/* An archive within the store is copied along: both have one. */
static void copied_store_with_its_archive(void) {
    kvstore_t *store, *copy;
    make_archived("");
    run_command("cp -a '%s' '%s'", place("store"), place("copy"));
    copy = open_archived(place("copy"), "", 64 * MIB);
    store = open_archived(place("store"), "", 64 * MIB);
    CHECK_EQ(find(copy, 0, PROMPTS).restored, PROMPTS * BLOCKS);
    fill(copy, 200, 40);
    CHECK_EQ(find(store, 0, PROMPTS).restored, PROMPTS * BLOCKS);
    close_store(store);
    close_store(copy);
}

/* A store that is moved within its file system is the same. */
static void moved_store(void) {
    kvstore_t *store;
    make_archived(place("disk"));
    CHECK_EQ(rename(place("store"), place("moved")), 0);
    store = open_archived(place("moved"), place("disk"), 64 * MIB);
    CHECK_EQ(find(store, 0, PROMPTS).restored, PROMPTS * BLOCKS);
    close_store(store);
}

/* Somebody removed the file that names the owner, though the owner runs: the lock tells. */
static int role_open_copy(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    (void)argc, (void)argv;
    archived_config(&config, place("copy"), place("disk"), 64 * MIB);
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_LOCKED);
    return 0;
}

static int role_open_same(int argc, char **argv) {
    kvstore_t *store = open_archived(place("store"), place("disk"), 64 * MIB);
    (void)argc, (void)argv;
    CHECK(find(store, 0, PROMPTS).restored > 0);
    close_store(store);
    return 0;
}

static void locked_archive(void) {
    kvstore_t *store;
    make_archived(place("disk"));
    run_command("cp -a '%s' '%s'", place("store"), place("copy"));
    store = open_archived(place("store"), place("disk"), 64 * MIB);
    CHECK_EQ(wait_for(spawn_role("open-same", NULL, NULL, NULL)), 0);
    run_command("rm '%s'/*/owner", place("disk"));
    CHECK_EQ(wait_for(spawn_role("open-copy", NULL, NULL, NULL)), 0);
    close_store(store);
}

/* ---------------------------------------------------------------- away */

/* Promises what can be read, stores the rest again; what is in the archive is there when its disk is. */
static void check_away(const char *archive, uint64_t archive_bytes) {
    kvstore_t *store = open_archived(place("store"), archive, archive_bytes);
    found_t found = find(store, 0, PROMPTS), again;
    CHECK(found.promised > 0 && found.promised < PROMPTS * BLOCKS);
    CHECK_EQ(found.promised, found.restored);
    CHECK_EQ(stats_of(store).blocks_quarantined, 0);
    fill(store, 0, 10);
    again = find(store, 0, 10);
    CHECK_EQ(again.promised, 10 * BLOCKS);
    CHECK_EQ(again.restored, 10 * BLOCKS);
    close_store(store);
}

static void archive_away(void) {
    kvstore_t *store;
    found_t found;
    make_archived(place("disk"));
    CHECK_EQ(rename(place("disk"), place("unplugged")), 0);
    check_away(place("disk"), 64 * MIB);
    check_away(NULL, 0);
    CHECK_EQ(rename(place("unplugged"), place("disk")), 0);
    store = open_archived(place("store"), place("disk"), 64 * MIB);
    found = find(store, 0, PROMPTS);
    CHECK_EQ(found.promised, found.restored);
    CHECK_EQ(find(store, 0, 10).restored, 10 * BLOCKS);
    close_store(store);
}

/* The folder on which a disk is mounted, without the disk. */
static void archive_not_mounted(void) {
    kvstore_t *store;
    found_t found;
    char text[8192];
    make_archived("");
    CHECK_EQ(rename(place("store/archive"), place("unplugged")), 0);
    CHECK_EQ(mkdir(place("store/archive"), 0700), 0);
    check_away("", 64 * MIB);
    CHECK_EQ(output_of(text, sizeof text, "ls '%s'", place("store/archive")), 0);
    CHECK(strcmp(text, "") == 0);
    CHECK_EQ(rmdir(place("store/archive")), 0);
    CHECK_EQ(rename(place("unplugged"), place("store/archive")), 0);
    store = open_archived(place("store"), "", 64 * MIB);
    found = find(store, 0, PROMPTS);
    CHECK_EQ(found.promised, found.restored);
    close_store(store);
}

/* Its files are gone for good, the folder is the archive's: like any slot file that is gone. */
static void archive_emptied(void) {
    kvstore_t *store;
    found_t found;
    make_archived(place("disk"));
    run_command("rm '%s'/*/*.kvs", place("disk"));
    store = open_archived(place("store"), place("disk"), 64 * MIB);
    found = find(store, 0, PROMPTS);
    CHECK(found.restored < found.promised);
    CHECK(stats_of(store).misses_unreadable > 0);
    found = find(store, 0, PROMPTS);
    CHECK_EQ(found.promised, found.restored);
    fill(store, 0, PROMPTS);
    found = find(store, 0, PROMPTS);
    CHECK_EQ(found.promised, found.restored);
    CHECK(stats_of(store).blocks_demoted > 0);
    close_store(store);
}

/* ---------------------------------------------------------------- repair */

static void repair_without_the_archive(void) {
    kvstore_t *store;
    char text[8192];
    int way;
    for (way = 0; way < 2; way++) {
        const char *archive = way ? "" : place("disk");
        run_command("rm -rf '%s' '%s' '%s'", place("store"), place("disk"), place("unplugged"));
        make_archived(archive);
        CHECK_EQ(rename(way ? place("store/archive") : place("disk"), place("unplugged")), 0);
        if (way) CHECK_EQ(mkdir(place("store/archive"), 0700), 0);
        /* Refused, however the catalog is. */
        CHECK(output_of(text, sizeof text, "\"$KVSTORE_COMMAND\" repair --force '%s' 2>&1", place("store")) != 0);
        CHECK(strstr(text, "mounted") != NULL);
        /* The operator insists: what is in the archive is not believed any more, and nothing of it is deleted. */
        run_command("\"$KVSTORE_COMMAND\" repair --without-archive '%s' >/dev/null", place("store"));
        if (way) CHECK_EQ(rmdir(place("store/archive")), 0);
        CHECK_EQ(rename(place("unplugged"), way ? place("store/archive") : place("disk")), 0);
        store = open_archived(place("store"), archive, 64 * MIB);
        CHECK(find(store, 0, PROMPTS).restored < PROMPTS * BLOCKS);
        fill(store, 300, 20);
        close_store(store);
        run_command("[ $(find '%s' -name '03*.kvs' -o -name '03*.aside' | wc -l) -gt 0 ]",
                    way ? place("store/archive") : place("disk"));
        run_command("find '%s' -name '03*.aside' | grep -q .", way ? place("store/archive") : place("disk"));
        /* And a repair with it takes it back. */
        run_command("\"$KVSTORE_COMMAND\" repair --force '%s' >/dev/null", place("store"));
        store = open_archived(place("store"), archive, 64 * MIB);
        CHECK(find(store, 0, PROMPTS).restored > 0);
        close_store(store);
    }
}

static void copied(void) {
    setenv("KVSTORE_COPY", place("copy"), 1);
    copied_store();
}

const child_role_t archive_roles[] = {
    {"open-copy", role_open_copy}, {"open-same", role_open_same}, {NULL, NULL}};

const test_case_t archive_cases[] = {
    {"copied_store", copied},
    {"copied_store_with_its_archive", copied_store_with_its_archive},
    {"moved_store_keeps_its_archive", moved_store},
    {"locked_archive", locked_archive},
    {"archive_away", archive_away},
    {"archive_not_mounted", archive_not_mounted},
    {"archive_emptied", archive_emptied},
    {"repair_without_the_archive", repair_without_the_archive},
    {NULL, NULL},
};
