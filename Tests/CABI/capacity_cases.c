/* Bounded room and bounded patience: disk, archive and host tier that are too small, deadlines of offload and flush. */
#include "harness.h"

/* Far more than fits: the disk stays bounded, what is reported stays true, nothing wrong comes back. */
static void disk_is_bounded(void) {
    enum { prompts = 120, blocks = 4 };
    shape_t shape = shape_large();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    kvstore_stats_t stats;
    uint64_t p, found = 0;
    small_config(&config, path_in_dir("store"));
    config.capacity_bytes = 96 * MIB;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    for (p = 0; p < prompts; p++) {
        offload_seed(ns, &shape, p, blocks);
        if (p % 8 == 7) {
            flush_store(store);
            stats = stats_of(store);
            CHECK_EQ(stats.disk_bytes_capacity, 96 * MIB);
            CHECK(stats.disk_bytes_used <= stats.disk_bytes_capacity);
            CHECK_EQ(peek_seed(ns, &shape, p, blocks), blocks); /* the newest is there */
        }
    }
    flush_store(store);
    /* Slots are freed ahead in the background: the counters may be read in the middle of that. */
    for (p = 0; p < 1000; p++) {
        stats = stats_of(store);
        if (stats.blocks_stored + stats.blocks_evicted == prompts * blocks) break;
        sleep_milliseconds(5);
    }
    CHECK(stats.blocks_evicted > 0);
    CHECK_EQ(stats.blocks_stored + stats.blocks_evicted, prompts * blocks);
    close_store(store);
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    for (p = 0; p < prompts; p++) found += check_stored_seed(ns, &shape, p, blocks);
    /* Nothing came meanwhile; what was freed ahead may have gone. */
    CHECK(found <= stats.blocks_stored && found >= stats_of(store).blocks_stored);
    CHECK(found * shape.region_bytes[0] >= 96 * MIB / 2); /* bounded, and used */
    close_store(store);
}

/* What leaves the disk is in the archive, and comes back from it. */
static void the_archive_takes_what_leaves(void) {
    enum { prompts = 120, blocks = 4 };
    shape_t shape = shape_large();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    kvstore_stats_t stats;
    uint64_t p, archived = 0;
    small_config(&config, path_in_dir("store"));
    config.capacity_bytes = 96 * MIB;
    config.archive_bytes = 1 * MIB;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    config.archive_bytes = 512 * MIB;
    config.archive_path = path_in_dir("archive");
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    for (p = 0; p < prompts; p++) {
        offload_seed(ns, &shape, p, blocks);
        if (p % 8 == 7) flush_store(store);
    }
    flush_store(store);
    stats = stats_of(store);
    CHECK_EQ(stats.blocks_evicted, 0);
    CHECK_EQ(stats.blocks_stored, prompts * blocks);
    CHECK(stats.blocks_demoted > 0);
    CHECK(stats.demoted_bytes_stored <= stats.demoted_bytes);
    CHECK_EQ(stats.archive_bytes_capacity, 512 * MIB);
    CHECK(stats.archive_bytes_used > 0);
    CHECK(stats.archive_bytes_written > 0);
    CHECK(stats.disk_bytes_used <= 96 * MIB);
    close_store(store);
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    for (p = 0; p < prompts; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        kvstore_prompt_t prompt = prompt_of(tokens, 64);
        kvstore_match_t match = match_zero();
        CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
        CHECK_EQ(match.blocks_matched, blocks);
        CHECK_EQ(match.blocks_host + match.blocks_disk + match.blocks_archive, blocks);
        archived += match.blocks_archive;
        check_restore(ns, &shape, tokens, blocks, p);
        free(tokens);
    }
    CHECK(archived > 0);
    stats = stats_of(store);
    CHECK(stats.blocks_restored_archive > 0);
    CHECK(stats.restored_bytes_archive > 0);
    CHECK(stats.bytes_per_second_archive > 0);
    CHECK_EQ(stats.misses_corrupt, 0);
    close_store(store);
    /* It is chosen once. */
    config.archive_path = path_in_dir("elsewhere");
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
}

/* A host tier of the smallest size and no patience: BUSY is an answer, and what was taken was taken. */
static void offload_that_may_not_wait(void) {
    shape_t shape = shape_large();
    uint64_t blocks = 64, done;
    uint32_t *tokens = make_tokens(1, 64 * 16);
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    kvstore_transfer_result_t result = result_zero();
    kvstore_status_t status;
    small_config(&config, path_in_dir("store"));
    config.host_bytes = 8 * 1024 * 1024;
    config.offload_timeout_nanoseconds = 1;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    status = CHECK_ONE_OF(offload_blocks(ns, &shape, tokens, 64 * 16, 0, blocks, 1, &result), 2, KVSTORE_OK,
                          KVSTORE_BUSY);
    done = result.blocks_done;
    CHECK(status == KVSTORE_OK ? done == blocks : done < blocks);
    CHECK_EQ(peek_blocks(ns, tokens, 64 * 16), done);
    while (done < blocks) { /* "try later" */
        CHECK_STATUS(kvstore_flush(store, 0, NULL), KVSTORE_OK);
        CHECK_ONE_OF(offload_blocks(ns, &shape, tokens, 64 * 16, done, blocks - done, 1, &result), 2,
                     KVSTORE_OK, KVSTORE_BUSY);
        CHECK(result.blocks_done > 0); /* an empty host tier takes at least one */
        done += result.blocks_done;
    }
    check_restore(ns, &shape, tokens, blocks, 1);
    close_store(store);
    free(tokens);
}

/* A namespace of which the host tier cannot hold four blocks is refused, and no other is harmed. */
static void host_tier_too_small(void) {
    shape_t large = shape_large(), small = shape_gqa();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_config_t config;
    kvstore_namespace_config_t ns_config;
    kvstore_t *store;
    kvstore_namespace_t *ns = NULL;
    small_config(&config, path_in_dir("store"));
    config.host_bytes = MIB / 2;
    store = open_store(&config);
    namespace_config(&large, &ns_config);
    CHECK_STATUS(kvstore_namespace_open(store, &ns_config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    CHECK(strstr(kvstore_last_error_message(), "host_bytes") != NULL);
    ns = open_namespace(store, &small);
    offload_prompt(ns, &small, tokens, 10, 1);
    check_restore(ns, &small, tokens, 10, 1);
    close_store(store);
    free(tokens);
}

static void flush_with_a_deadline(void) {
    shape_t shape = shape_large();
    uint32_t *tokens = make_tokens(1, 16 * 16);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_flush_result_t result = flush_zero();
    kvstore_status_t status;
    uint64_t durable;
    offload_prompt(ns, &shape, tokens, 16, 1);
    status = CHECK_ONE_OF(kvstore_flush(store, 1, &result), 2, KVSTORE_OK, KVSTORE_BUSY);
    durable = status == KVSTORE_OK ? result.blocks_durable : 0;
    CHECK_STATUS(kvstore_flush(store, UINT64_MAX, &result), KVSTORE_OK); /* a deadline beyond all clocks */
    CHECK(durable + result.blocks_durable <= 16);
    CHECK_EQ(stats_of(store).blocks_stored, 16);
    close_store(store);
    free(tokens);
}
const test_case_t capacity_cases[] = {
    {"disk_is_bounded", disk_is_bounded},
    {"the_archive_takes_what_leaves", the_archive_takes_what_leaves},
    {"offload_that_may_not_wait", offload_that_may_not_wait},
    {"host_tier_too_small", host_tier_too_small},
    {"flush_with_a_deadline", flush_with_a_deadline},
    {NULL, NULL},
};
