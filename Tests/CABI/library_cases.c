/* Version, statuses, messages, opening and closing, handles. */
#include "harness.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/stat.h>

static void version_of_library_and_header(void) {
    CHECK_EQ(KVSTORE_VERSION, KVSTORE_VERSION_MAJOR * 1000000u + KVSTORE_VERSION_MINOR * 1000u +
                                  KVSTORE_VERSION_PATCH);
    CHECK_EQ(kvstore_version(), KVSTORE_VERSION);
}

static void status_names(void) {
    static const struct {
        kvstore_status_t status;
        const char *name;
    } rows[] = {
#define ROW(name) {name, #name}
        ROW(KVSTORE_OK),
        ROW(KVSTORE_MISS),
        ROW(KVSTORE_BUSY),
        ROW(KVSTORE_FULL),
        ROW(KVSTORE_PARENT_MISSING),
        ROW(KVSTORE_E_INVALID_ARGUMENT),
        ROW(KVSTORE_E_BAD_HANDLE),
        ROW(KVSTORE_E_BUFFER_TOO_SMALL),
        ROW(KVSTORE_E_IO),
        ROW(KVSTORE_E_NO_SPACE),
        ROW(KVSTORE_E_CORRUPT),
        ROW(KVSTORE_E_VERSION),
        ROW(KVSTORE_E_LOCKED),
        ROW(KVSTORE_E_OUT_OF_MEMORY),
        ROW(KVSTORE_E_FORKED),
        ROW(KVSTORE_E_INTERNAL),
        ROW(KVSTORE_E_READ_ONLY),
        ROW(KVSTORE_E_IDENTITY),
        ROW(KVSTORE_E_NOT_A_STORE),
#undef ROW
    };
    static const kvstore_status_t unknown[] = {5, 1000, -15, -1000, INT32_MAX, INT32_MIN};
    size_t i;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *name = kvstore_status_string(rows[i].status);
        CHECK(name != NULL);
        if (strcmp(name, rows[i].name) != 0)
            fail(__FILE__, __LINE__, "status %d is \"%s\", expected \"%s\"", (int)rows[i].status, name,
                 rows[i].name);
        CHECK(name == kvstore_status_string(rows[i].status)); /* static */
    }
    for (i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        CHECK(kvstore_status_string(unknown[i]) != NULL && kvstore_status_string(unknown[i])[0] != '\0');
}

static void *message_of_other_thread(void *argument) {
    char *copy = (char *)argument;
    const char *message = kvstore_last_error_message();
    if (message == NULL) {
        strcpy(copy, "NULL");
        return NULL;
    }
    strncpy(copy, message, 255);
    return NULL;
}

static void messages_are_per_thread(void) {
    char other[256] = "", before[256] = "";
    pthread_t thread;
    CHECK(kvstore_last_error_message() != NULL); /* before any call */
    CHECK_STATUS(kvstore_close((kvstore_t *)&other), KVSTORE_E_BAD_HANDLE);
    CHECK(strlen(kvstore_last_error_message()) > 0);
    strncpy(before, kvstore_last_error_message(), sizeof before - 1);
    CHECK(pthread_create(&thread, NULL, message_of_other_thread, other) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(strcmp(other, "NULL") != 0);
    CHECK(strcmp(other, before) != 0); /* nothing failed there */
    /* Valid until the next call of this thread that fails: calls that succeed leave it alone. */
    CHECK_STATUS(kvstore_close(NULL), KVSTORE_OK);
    CHECK(strcmp(before, kvstore_last_error_message()) == 0);
}

static void config_defaults(void) {
    kvstore_config_t config;
    kvstore_namespace_config_t ns;
    memset(&config, 0xA5, sizeof config);
    CHECK_STATUS(kvstore_config_init(&config, sizeof config), KVSTORE_OK);
    CHECK_EQ(config.struct_size, sizeof config);
    CHECK_EQ(config.flags, 0);
    CHECK(config.path == NULL);
    CHECK_EQ(config.capacity_bytes, UINT64_C(10) << 30);
    CHECK_EQ(config.catalog_bytes, 0);
    CHECK_EQ(config.host_bytes, 256 * MIB);
    CHECK_EQ(config.inline_payload_bytes_max, 16 * 1024);
    CHECK_EQ(config.offload_timeout_nanoseconds, UINT64_C(10000000000));
    CHECK_EQ(config.commit_interval_nanoseconds, 20000000);
    CHECK_EQ(config.eviction_policy, KVSTORE_EVICTION_DENSITY);

    memset(&ns, 0xA5, sizeof ns);
    CHECK_STATUS(kvstore_namespace_config_init(&ns, sizeof ns), KVSTORE_OK);
    CHECK_EQ(ns.struct_size, sizeof ns);
    CHECK_EQ(ns.flags, 0);
    CHECK_EQ(ns.identity_mode, KVSTORE_IDENTITY_TOKENS);
    CHECK_EQ(ns.digest_bytes, 0);
    CHECK(ns.region_bytes == NULL && ns.model_name == NULL && ns.kv_dtype == NULL && ns.layout == NULL);
    CHECK(ns.kv_quantization == NULL && ns.rope == NULL && ns.engine_format == NULL);
    CHECK(ns.weights_digest.data == NULL && ns.weights_digest.length == 0);
    CHECK(ns.adapter_digest.length == 0 && ns.tokenizer_digest.length == 0 && ns.engine_bytes.length == 0);
    CHECK(ns.salt.data == NULL && ns.salt.length == 0);
    CHECK_EQ(ns.tensor_parallel_size, 1);
    CHECK_EQ(ns.pipeline_parallel_size, 1);
    CHECK_EQ(ns.context_parallel_size, 1);
    CHECK_EQ(ns.tensor_parallel_rank + ns.pipeline_parallel_rank + ns.context_parallel_rank, 0);
    CHECK_EQ(ns.extra_bytes_max, 256);
    CHECK_EQ(ns.reserved, 0);
}

static void open_creates_a_private_folder(void) {
    char *path = path_in_dir("store");
    struct stat info;
    kvstore_t *store = open_small(path);
    CHECK(stat(path, &info) == 0 && S_ISDIR(info.st_mode));
    CHECK_EQ(info.st_mode & 0777, 0700);
    close_store(store);
    /* An empty folder that is there already serves as well. */
    path = path_in_dir("empty");
    CHECK(mkdir(path, 0755) == 0);
    close_store(open_small(path));
}

static void open_twice_shares_everything(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    char *path = path_in_dir("store");
    kvstore_t *first = open_small(path), *second;
    kvstore_namespace_t *ns_first, *ns_second;
    kvstore_config_t config;
    small_config(&config, path);
    config.host_bytes = 32 * MIB; /* the first one's settings count */
    CHECK_STATUS(kvstore_open(&config, &second), KVSTORE_OK);
    CHECK(first != second);
    CHECK_EQ(stats_of(first).host_bytes_capacity, stats_of(second).host_bytes_capacity);
    ns_first = open_namespace(first, &shape);
    ns_second = open_namespace(second, &shape);
    offload_prompt(ns_first, &shape, tokens, 4, 1);
    check_restore(ns_second, &shape, tokens, 4, 1);
    close_store(first); /* ns_first goes along, ns_second stays */
    check_restore(ns_second, &shape, tokens, 4, 1);
    CHECK_STATUS(kvstore_namespace_close(ns_first), KVSTORE_E_BAD_HANDLE);
    close_store(second);
    free(tokens);
}

static void two_stores_at_once(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_t *one = open_small(path_in_dir("one")), *other = open_small(path_in_dir("other"));
    kvstore_namespace_t *in_one = open_namespace(one, &shape), *in_other = open_namespace(other, &shape);
    offload_prompt(in_one, &shape, tokens, 4, 1);
    CHECK_EQ(peek_blocks(in_one, tokens, 64), 4);
    CHECK_EQ(peek_blocks(in_other, tokens, 64), 0);
    close_store(one);
    CHECK_EQ(peek_blocks(in_other, tokens, 64), 0);
    close_store(other);
    free(tokens);
}

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK(fputs(text, file) >= 0);
    CHECK(fclose(file) == 0);
}

static void read_file(const char *path, char *text, size_t bytes) {
    FILE *file = fopen(path, "r");
    size_t length;
    CHECK(file != NULL);
    length = fread(text, 1, bytes - 1, file);
    text[length] = '\0';
    CHECK(fclose(file) == 0);
}

static void open_refuses_what_is_not_a_store(void) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    char text[64];
    char *path = path_in_dir("file");
    write_file(path, "precious\n");
    small_config(&config, path);
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_NOT_A_STORE);
    read_file(path, text, sizeof text);
    CHECK(strcmp(text, "precious\n") == 0);

    /* Someone's folder of other things. */
    path = path_in_dir("home");
    CHECK(mkdir(path, 0755) == 0);
    write_file(path_in_dir("home/letter"), "precious\n");
    config.path = path;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_NOT_A_STORE);
    read_file(path_in_dir("home/letter"), text, sizeof text);
    CHECK(strcmp(text, "precious\n") == 0);
    CHECK(access(path_in_dir("home/catalog.mdb"), F_OK) != 0);

    /* A folder whose catalog is no catalog. */
    CHECK(mkdir(path_in_dir("odd"), 0755) == 0);
    write_file(path_in_dir("odd/catalog.mdb"), "this is not LMDB at all\n");
    config.path = path_in_dir("odd");
    CHECK_ONE_OF(kvstore_open(&config, &store), 2, KVSTORE_E_NOT_A_STORE, KVSTORE_E_CORRUPT);
}

static void open_in_a_missing_folder(void) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    small_config(&config, path_in_dir("no/such/parent"));
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_IO);
    CHECK(strstr(kvstore_last_error_message(), "no/such/parent") != NULL); /* the message names the file */
    /* A file where a folder should be. */
    write_file(path_in_dir("file"), "x");
    small_config(&config, path_in_dir("file/store"));
    CHECK_ONE_OF(kvstore_open(&config, &store), 2, KVSTORE_E_IO, KVSTORE_E_NOT_A_STORE);
}

static void open_without_permission(void) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    char *parent = path_in_dir("closed");
    if (geteuid() == 0) skip("root may write everywhere");
    CHECK(mkdir(parent, 0500) == 0);
    small_config(&config, path_in_dir("closed/store"));
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_IO);
    CHECK(strstr(kvstore_last_error_message(), "closed") != NULL);
}

/* All names below a folder, one a line, sorted by nothing: compared as they come. */
static void list_names(const char *path, char *text, size_t bytes) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL) {
        char child[4096];
        struct stat info;
        size_t used = strlen(text);
        if (entry->d_name[0] == '.') continue;
        CHECK((size_t)snprintf(child, sizeof child, "%s/%s", path, entry->d_name) < sizeof child);
        CHECK(lstat(child, &info) == 0);
        snprintf(text + used, bytes - used, "%s %lld\n", child, (long long)info.st_size);
        if (S_ISDIR(info.st_mode)) list_names(child, text, bytes);
    }
    closedir(folder);
}

static void read_only_changes_nothing(void) {
    static char before[65536], after[65536];
    shape_t shape = shape_mha(), other = shape_gqa();
    uint32_t *tokens = make_tokens(1, 64);
    char *path = path_in_dir("store");
    kvstore_config_t config;
    kvstore_namespace_config_t ns_config;
    kvstore_t *store = NULL;
    kvstore_namespace_t *ns;
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_match_t match = match_zero();
    kvstore_flush_result_t flushed = flush_zero();
    uint64_t blocks = 0;

    small_config(&config, path);
    config.flags = KVSTORE_OPEN_READ_ONLY;
    CHECK(kvstore_open(&config, &store) < 0); /* nothing there, and nothing is created */
    CHECK(access(path, F_OK) != 0);

    store = open_small(path);
    ns = open_namespace(store, &shape);
    offload_prompt(ns, &shape, tokens, 4, 1);
    close_store(store);
    list_names(path, before, sizeof before);

    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    ns = open_namespace(store, &shape);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 4);
    CHECK_EQ(match.lease, 0);
    check_restore(ns, &shape, tokens, 4, 1);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 64, 0, 4, 1, NULL), KVSTORE_E_READ_ONLY);
    CHECK_STATUS(kvstore_forget(ns, &prompt, &blocks), KVSTORE_E_READ_ONLY);
    CHECK_STATUS(kvstore_namespace_purge(ns, &blocks), KVSTORE_E_READ_ONLY);
    CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_E_READ_ONLY);
    namespace_config(&other, &ns_config);
    CHECK_STATUS(kvstore_namespace_open(store, &ns_config, &ns), KVSTORE_E_READ_ONLY);
    close_store(store);
    list_names(path, after, sizeof after);
    if (strcmp(before, after) != 0)
        fail(__FILE__, __LINE__, "the folder changed; before:\n%safter:\n%s", before, after);

    store = open_small(path);
    ns = open_namespace(store, &shape);
    check_restore(ns, &shape, tokens, 4, 1);
    close_store(store);
    free(tokens);
}

/* Every function that takes a store answers `want`. */
static void check_store_functions(kvstore_t *store, kvstore_status_t want) {
    shape_t shape = shape_mha();
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    kvstore_flush_result_t flushed = flush_zero();
    kvstore_stats_t stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    namespace_config(&shape, &config);
    CHECK_STATUS(kvstore_flush(store, 0, &flushed), want);
    CHECK_STATUS(kvstore_flush(store, 0, NULL), want);
    CHECK_STATUS(kvstore_stats(store, &stats), want);
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), want);
    CHECK_STATUS(kvstore_lease_release(store, 1), want);
    CHECK_STATUS(kvstore_lease_extend(store, 1, 0), want);
}

/* Every function that takes a namespace answers `want`. */
static void check_namespace_functions(kvstore_namespace_t *ns, kvstore_status_t want) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_match_t match = match_zero();
    kvstore_transfer_result_t result = result_zero();
    kvstore_block_key_t keys[4];
    pieces_t pieces = pieces_new(&shape, 0, 4, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    unsigned char digest[32] = {0};
    size_t count = 0;
    uint64_t blocks = 0;
    pieces_fill(&pieces, 1);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, keys, 4, &count), want);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), want);
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), want);
    CHECK_STATUS(kvstore_match_keys(ns, digest, 1, 0, 0, &match), want);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), want);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &result), want);
    CHECK_STATUS(kvstore_touch(ns, &prompt, &blocks), want);
    CHECK_STATUS(kvstore_forget(ns, &prompt, &blocks), want);
    CHECK_STATUS(kvstore_namespace_purge(ns, &blocks), want);
    pieces_free(&pieces);
    free(tokens);
}

static void handles_after_close(void) {
    shape_t shape = shape_mha();
    char *path = path_in_dir("store");
    kvstore_t *store = open_small(path), *again;
    kvstore_namespace_t *ns = open_namespace(store, &shape), *other = open_namespace(store, &shape);
    CHECK_STATUS(kvstore_namespace_close(ns), KVSTORE_OK);
    CHECK_STATUS(kvstore_namespace_close(ns), KVSTORE_E_BAD_HANDLE);
    check_namespace_functions(ns, KVSTORE_E_BAD_HANDLE);
    close_store(store);
    CHECK_STATUS(kvstore_close(store), KVSTORE_E_BAD_HANDLE);
    check_store_functions(store, KVSTORE_E_BAD_HANDLE);
    check_namespace_functions(other, KVSTORE_E_BAD_HANDLE); /* the store took it along */
    CHECK_STATUS(kvstore_namespace_close(other), KVSTORE_E_BAD_HANDLE);
    /* A new handle is never the old one's number. */
    again = open_small(path);
    CHECK(again != store);
    CHECK_STATUS(kvstore_close(store), KVSTORE_E_BAD_HANDLE);
    check_store_functions(store, KVSTORE_E_BAD_HANDLE);
    close_store(again);
}

static void handles_that_never_were(void) {
    shape_t shape = shape_mha();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    int local = 0;
    size_t i;
    void *odd[6];
    odd[0] = NULL;
    odd[1] = &local;
    odd[2] = (void *)(intptr_t)1;
    odd[3] = (void *)(intptr_t)-1;
    odd[4] = (void *)(intptr_t)0x7FFFFFFF;
    odd[5] = (void *)((intptr_t)store ^ 0x10000);
    for (i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        check_store_functions((kvstore_t *)odd[i], KVSTORE_E_BAD_HANDLE);
        check_namespace_functions((kvstore_namespace_t *)odd[i], KVSTORE_E_BAD_HANDLE);
        if (odd[i] != NULL) {
            CHECK_STATUS(kvstore_close((kvstore_t *)odd[i]), KVSTORE_E_BAD_HANDLE);
            CHECK_STATUS(kvstore_namespace_close((kvstore_namespace_t *)odd[i]), KVSTORE_E_BAD_HANDLE);
        }
    }
    CHECK_STATUS(kvstore_close(NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_namespace_close(NULL), KVSTORE_OK);
    /* Of the wrong kind. */
    check_store_functions((kvstore_t *)(void *)ns, KVSTORE_E_BAD_HANDLE);
    check_namespace_functions((kvstore_namespace_t *)(void *)store, KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_close((kvstore_t *)(void *)ns), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_namespace_close((kvstore_namespace_t *)(void *)store), KVSTORE_E_BAD_HANDLE);
    /* Nothing of that hurt the good ones. */
    CHECK_STATUS(kvstore_namespace_close(ns), KVSTORE_OK);
    close_store(store);
}

static void many_handles(void) {
    enum { count = 200 };
    shape_t shape = shape_mha();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *handles[count];
    int i, round;
    for (round = 0; round < 3; round++) {
        for (i = 0; i < count; i++) handles[i] = open_namespace(store, &shape);
        for (i = 0; i < count; i += 2) CHECK_STATUS(kvstore_namespace_close(handles[i]), KVSTORE_OK);
        for (i = 0; i < count; i += 2)
            CHECK_STATUS(kvstore_namespace_close(handles[i]), KVSTORE_E_BAD_HANDLE);
        for (i = 1; i < count; i += 2) CHECK_STATUS(kvstore_namespace_close(handles[i]), KVSTORE_OK);
    }
    close_store(store);
}

static void buffered_io_by_request(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(1, 128);
    char *path = path_in_dir("store");
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    int round;
    small_config(&config, path);
    config.flags = KVSTORE_OPEN_BUFFERED_IO;
    for (round = 0; round < 2; round++) { /* the second round reads from disk */
        CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
        ns = open_namespace(store, &shape);
        if (round == 0) {
            CHECK_EQ(stats_of(store).io_path, KVSTORE_IO_NONE);
            offload_prompt(ns, &shape, tokens, 8, 1);
            flush_store(store);
        }
        check_restore(ns, &shape, tokens, 8, 1);
        CHECK_EQ(stats_of(store).io_path, KVSTORE_IO_BUFFERED);
        close_store(store);
    }
    /* And back: the way of reading is no property of the store. */
    store = open_small(path);
    ns = open_namespace(store, &shape);
    check_restore(ns, &shape, tokens, 8, 1);
    CHECK(stats_of(store).io_path != KVSTORE_IO_NONE);
    close_store(store);
    free(tokens);
}

const test_case_t library_cases[] = {
    {"version_of_library_and_header", version_of_library_and_header},
    {"status_names", status_names},
    {"messages_are_per_thread", messages_are_per_thread},
    {"config_defaults", config_defaults},
    {"open_creates_a_private_folder", open_creates_a_private_folder},
    {"open_twice_shares_everything", open_twice_shares_everything},
    {"two_stores_at_once", two_stores_at_once},
    {"open_refuses_what_is_not_a_store", open_refuses_what_is_not_a_store},
    {"open_in_a_missing_folder", open_in_a_missing_folder},
    {"open_without_permission", open_without_permission},
    {"read_only_changes_nothing", read_only_changes_nothing},
    {"handles_after_close", handles_after_close},
    {"handles_that_never_were", handles_that_never_were},
    {"many_handles", many_handles},
    {"buffered_io_by_request", buffered_io_by_request},
    {NULL, NULL},
};
