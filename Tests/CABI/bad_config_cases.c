/* Bad arguments for the calls that set up, open, flush and count: a status and a message, never a crash, and no harm to the store. */
#include "bad_input.h"
#include "harness.h"

static void init_arguments(void) {
    kvstore_config_t config;
    kvstore_namespace_config_t ns;
    uint32_t sizes[BAD_SIZE_COUNT];
    unsigned char *bytes = (unsigned char *)&config;
    size_t i;
    CHECK_STATUS(kvstore_config_init(NULL, sizeof config), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_namespace_config_init(NULL, sizeof ns), KVSTORE_E_INVALID_ARGUMENT);
    memset(&config, 0x5A, sizeof config);
    bad_sizes(sizeof config, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++)
        CHECK_STATUS(kvstore_config_init(&config, sizes[i]), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_config_init(&config, SIZE_MAX), KVSTORE_E_INVALID_ARGUMENT);
    for (i = 0; i < sizeof config; i++) CHECK_EQ(bytes[i], 0x5A); /* nothing was written */
    bad_sizes(sizeof ns, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++)
        CHECK_STATUS(kvstore_namespace_config_init(&ns, sizes[i]), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_namespace_config_init(&ns, SIZE_MAX), KVSTORE_E_INVALID_ARGUMENT);
}

static void open_arguments(void) {
    char *path = path_in_dir("store");
    kvstore_config_t config;
    kvstore_t *store = NULL;
    uint32_t sizes[BAD_SIZE_COUNT];
    size_t i;
    later_t memory;
    char *long_path = (char *)must_malloc(70000);
    small_config(&config, path);
    CHECK_STATUS(kvstore_open(NULL, &store), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_open(&config, NULL), KVSTORE_E_INVALID_ARGUMENT);
    bad_sizes(sizeof config, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++) {
        config.struct_size = sizes[i];
        CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    }
    small_config(&config, NULL);
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    small_config(&config, "");
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    small_config(&config, "\xff\xfe"); /* no UTF-8 */
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    memset(long_path, 'x', 69999);
    long_path[69999] = '\0';
    small_config(&config, long_path);
    CHECK_ONE_OF(kvstore_open(&config, &store), 2, KVSTORE_E_INVALID_ARGUMENT, KVSTORE_E_IO);
    small_config(&config, path);
    for (i = 2; i < 32; i++) { /* every flag that there is not */
        config.flags = UINT32_C(1) << i;
        CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    }
    small_config(&config, path);
    config.capacity_bytes = 64 * MIB - 1;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    config.capacity_bytes = 0;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    small_config(&config, path);
    config.catalog_bytes = config.capacity_bytes + 1; /* a part larger than the whole */
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    config.catalog_bytes = UINT64_MAX;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    small_config(&config, path);
    config.eviction_policy = KVSTORE_EVICTION_DENSITY + 1;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    small_config(&config, path);
    config.reserved2 = 1;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_E_INVALID_ARGUMENT);
    CHECK(store == NULL);
    CHECK(access(path, F_OK) != 0); /* nothing was created on the way */

    /* A later caller's longer struct: fine while what we do not know is zero. */
    small_config(&config, path);
    CHECK_STATUS(kvstore_open((const kvstore_config_t *)later(&memory, &config, sizeof config, 1), &store),
                 KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_open((const kvstore_config_t *)later(&memory, &config, sizeof config, 0), &store),
                 KVSTORE_OK);
    close_store(store);
    free(long_path);
}

/* Sizes beyond all reason: an answer, whichever, and no crash. */
static void open_with_absurd_sizes(void) {
    static const uint64_t absurd[] = {UINT64_MAX, UINT64_C(1) << 63, INT64_MAX, UINT64_C(1) << 50};
    size_t i, field;
    for (i = 0; i < sizeof absurd / sizeof absurd[0]; i++)
        for (field = 0; field < 5; field++) {
            kvstore_config_t config;
            kvstore_t *store = NULL;
            kvstore_status_t status;
            char name[32];
            snprintf(name, sizeof name, "store-%zu-%zu", i, field);
            small_config(&config, path_in_dir(name));
            if (field == 0) config.capacity_bytes = absurd[i];
            if (field == 1) config.host_bytes = absurd[i];
            if (field == 2) config.inline_payload_bytes_max = absurd[i];
            if (field == 3) config.offload_timeout_nanoseconds = absurd[i];
            if (field == 4) config.commit_interval_nanoseconds = absurd[i];
            status = CHECK_ONE_OF(kvstore_open(&config, &store), 5, KVSTORE_OK, KVSTORE_E_INVALID_ARGUMENT,
                                  KVSTORE_E_OUT_OF_MEMORY, KVSTORE_E_NO_SPACE, KVSTORE_E_IO);
            if (status == KVSTORE_OK) {
                shape_t shape = shape_mha();
                kvstore_namespace_t *ns = open_namespace(store, &shape);
                offload_seed(ns, &shape, 1, 4);
                flush_store(store);
                check_restore_seed(ns, &shape, 1, 4);
                close_store(store);
            }
        }
}

static void namespace_arguments(void) {
    static const uint64_t zero_regions[] = {0}, huge_regions[] = {UINT64_MAX, 2},
                          large_regions[] = {UINT64_C(1) << 40}, wrap_regions[] = {UINT64_C(1) << 63,
                                                                                 UINT64_C(1) << 63};
    static uint64_t many_regions[4097];
    shape_t shape = shape_mha();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_config_t good, config;
    kvstore_namespace_t *ns = NULL;
    kvstore_stats_t before;
    uint32_t sizes[BAD_SIZE_COUNT];
    later_t memory;
    size_t i;
    char *text = (char *)must_malloc(1 << 20);
    namespace_config(&shape, &good);
    before = stats_of(store);
    for (i = 0; i < 4097; i++) many_regions[i] = 8;

#define REFUSED(statement)                                                                             \
    do {                                                                                               \
        config = good;                                                                                 \
        statement;                                                                                     \
        CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);         \
        CHECK(ns == NULL);                                                                             \
    } while (0)

    CHECK_STATUS(kvstore_namespace_open(store, NULL, &ns), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_namespace_open(store, &good, NULL), KVSTORE_E_INVALID_ARGUMENT);
    bad_sizes(sizeof config, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++) REFUSED(config.struct_size = sizes[i]);
    for (i = 2; i < 32; i++) REFUSED(config.flags = UINT32_C(1) << i);
    REFUSED(config.identity_mode = 2);
    REFUSED(config.identity_mode = UINT32_MAX);
    REFUSED(config.tokens_per_block = 0);
    REFUSED(config.region_count = 0);
    REFUSED(config.region_count = 4097; config.region_bytes = many_regions);
    REFUSED(config.region_count = UINT32_MAX);
    REFUSED(config.region_bytes = NULL);
    REFUSED(config.region_count = 1; config.region_bytes = zero_regions);
    REFUSED(config.region_count = 2; config.region_bytes = huge_regions);
    REFUSED(config.region_count = 2; config.region_bytes = wrap_regions); /* the sum overflows */
    REFUSED(config.region_count = 1; config.region_bytes = large_regions);
    REFUSED(config.tensor_parallel_size = 0);
    REFUSED(config.pipeline_parallel_size = 0);
    REFUSED(config.context_parallel_size = 0);
    REFUSED(config.tensor_parallel_rank = 1); /* of one */
    REFUSED(config.pipeline_parallel_rank = 7);
    REFUSED(config.context_parallel_rank = UINT32_MAX);
    REFUSED(config.reserved = 1);
    REFUSED(config.extra_bytes_max = UINT32_MAX);
    REFUSED(config.model_name = "\xc3\x28"); /* no UTF-8 */
    REFUSED(config.layout = "\xff");
    REFUSED(config.weights_digest.length = 8); /* no data */
    REFUSED(config.adapter_digest.length = 1);
    REFUSED(config.tokenizer_digest.length = SIZE_MAX);
    REFUSED(config.engine_bytes.length = 8);
    REFUSED(config.salt.length = 8);
    REFUSED(config.salt.data = "x"; config.salt.length = SIZE_MAX);
    REFUSED(config.weights_digest.data = "x"; config.weights_digest.length = SIZE_MAX / 2);
#undef REFUSED

    /* Large numbers that may or may not be taken. */
    config = good;
    config.tokens_per_block = UINT32_MAX;
    CHECK_ONE_OF(kvstore_namespace_open(store, &config, &ns), 2, KVSTORE_OK, KVSTORE_E_INVALID_ARGUMENT);
    config = good;
    memset(text, 'x', (1 << 20) - 1);
    text[(1 << 20) - 1] = '\0';
    config.model_name = text;
    CHECK_ONE_OF(kvstore_namespace_open(store, &config, &ns), 3, KVSTORE_OK, KVSTORE_E_INVALID_ARGUMENT,
                 KVSTORE_FULL);
    config = good;
    config.region_count = 4096;
    config.region_bytes = many_regions;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);

    CHECK_STATUS(kvstore_namespace_open(
                     store, (const kvstore_namespace_config_t *)later(&memory, &good, sizeof good, 1), &ns),
                 KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_namespace_open(
                     store, (const kvstore_namespace_config_t *)later(&memory, &good, sizeof good, 0), &ns),
                 KVSTORE_OK);
    CHECK_EQ(stats_of(store).poisoned, before.poisoned);
    close_store(store);
    free(text);
}

static void stats_and_flush_arguments(void) {
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_stats_t stats;
    kvstore_flush_result_t result = flush_zero();
    uint32_t sizes[BAD_SIZE_COUNT];
    later_t memory;
    kvstore_stats_t *longer;
    size_t i;
    CHECK_STATUS(kvstore_stats(store, NULL), KVSTORE_E_INVALID_ARGUMENT);
    bad_sizes(sizeof stats, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++) {
        if (sizes[i] == sizeof stats - 1) continue; /* an older, shorter struct is a possibility here */
        stats = stats_zero();
        stats.struct_size = sizes[i];
        CHECK_STATUS(kvstore_stats(store, &stats), KVSTORE_E_INVALID_ARGUMENT);
    }
    bad_sizes(sizeof result, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++) {
        result = flush_zero();
        result.struct_size = sizes[i];
        CHECK_STATUS(kvstore_flush(store, 0, &result), KVSTORE_E_INVALID_ARGUMENT);
    }
    stats = stats_zero();
    longer = (kvstore_stats_t *)later(&memory, &stats, sizeof stats, 0x77);
    CHECK_STATUS(kvstore_stats(store, longer), KVSTORE_OK);
    CHECK_EQ(longer->disk_bytes_capacity, 256 * MIB);
    for (i = sizeof stats; i < sizeof memory.bytes; i++) CHECK_EQ(memory.bytes[i], 0x77);
    CHECK_STATUS(kvstore_flush(store, 0, NULL), KVSTORE_OK);
    close_store(store);
}
const test_case_t bad_config_cases[] = {
    {"init_arguments", init_arguments},
    {"open_arguments", open_arguments},
    {"open_with_absurd_sizes", open_with_absurd_sizes},
    {"namespace_arguments", namespace_arguments},
    {"stats_and_flush_arguments", stats_and_flush_arguments},
    {NULL, NULL},
};
