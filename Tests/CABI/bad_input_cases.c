/* Every argument that a careless or hostile caller may pass: a status and a message, never a crash, and no
 * harm to the store. */
#include "harness.h"

/* Sizes that no version of a struct of `size` bytes ever had. */
#define BAD_SIZE_COUNT 6
static void bad_sizes(size_t size, uint32_t sizes[BAD_SIZE_COUNT]) {
    sizes[0] = 0;
    sizes[1] = 3;
    sizes[2] = 4;
    sizes[3] = (uint32_t)size - 1;
    sizes[4] = 1u << 20;
    sizes[5] = UINT32_MAX;
}

/* A struct of a later version: longer than ours, with a tail that we know nothing of. */
#define LATER_BYTES 64
typedef union {
    unsigned char bytes[1024];
    uint64_t align;
} later_t;

static void *later(later_t *memory, const void *ours, size_t size, unsigned char tail) {
    uint32_t later_size = (uint32_t)(size + LATER_BYTES);
    memset(memory->bytes, tail, sizeof memory->bytes);
    memcpy(memory->bytes, ours, size);
    memcpy(memory->bytes, &later_size, sizeof later_size);
    return memory->bytes;
}

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
                uint32_t *tokens = make_tokens(1, 64);
                kvstore_namespace_t *ns = open_namespace(store, &shape);
                offload_prompt(ns, &shape, tokens, 4, 1);
                flush_store(store);
                check_restore(ns, &shape, tokens, 4, 1);
                close_store(store);
                free(tokens);
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

/* Calls every function that takes a prompt; each answers E_INVALID_ARGUMENT. */
static void check_bad_prompt(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt, int line) {
    shape_t shape = shape_mha();
    kvstore_match_t match = match_zero();
    kvstore_transfer_result_t result = result_zero();
    kvstore_block_key_t keys[4];
    pieces_t pieces = pieces_new(&shape, 0, 4, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    size_t count = 0;
    uint64_t blocks = 0;
    pieces_fill(&pieces, 1);
#define BAD(call) check_status(__FILE__, line, #call, call, KVSTORE_E_INVALID_ARGUMENT)
    BAD(kvstore_block_keys(ns, prompt, keys, 4, &count));
    BAD(kvstore_match(ns, prompt, 0, 0, &match));
    BAD(kvstore_match(ns, prompt, KVSTORE_MATCH_PEEK, 0, &match));
    BAD(kvstore_restore(ns, prompt, &transfer, &result));
    BAD(kvstore_offload(ns, prompt, &transfer, &result));
    BAD(kvstore_touch(ns, prompt, &blocks));
    BAD(kvstore_forget(ns, prompt, &blocks));
#undef BAD
    pieces_free(&pieces);
}

static void prompt_arguments(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_prompt_t good = prompt_of(tokens, 64), prompt;
    uint32_t sizes[BAD_SIZE_COUNT];
    later_t memory;
    kvstore_match_t match = match_zero();
    size_t i;
    offload_prompt(ns, &shape, tokens, 4, 1);
    check_bad_prompt(ns, NULL, __LINE__);
    bad_sizes(sizeof prompt, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++) {
        prompt = good;
        prompt.struct_size = sizes[i];
        check_bad_prompt(ns, &prompt, __LINE__);
    }
    for (i = 0; i < 32; i++) {
        prompt = good;
        prompt.flags = UINT32_C(1) << i;
        check_bad_prompt(ns, &prompt, __LINE__);
    }
    prompt = good;
    prompt.tokens = NULL;
    check_bad_prompt(ns, &prompt, __LINE__);
    prompt = good;
    prompt.token_count = SIZE_MAX;
    check_bad_prompt(ns, &prompt, __LINE__);
    prompt.token_count = (SIZE_MAX >> 1) + 1;
    check_bad_prompt(ns, &prompt, __LINE__);
    prompt.token_count = SIZE_MAX / 4 + 5; /* its byte count wraps round to a small one */
    check_bad_prompt(ns, &prompt, __LINE__);
    prompt = good; /* both identities at once */
    prompt.digests = tokens;
    prompt.digest_count = 4;
    check_bad_prompt(ns, &prompt, __LINE__);
    check_bad_prompt(ns, (const kvstore_prompt_t *)later(&memory, &good, sizeof good, 1), __LINE__);
    CHECK_STATUS(kvstore_match(ns, (const kvstore_prompt_t *)later(&memory, &good, sizeof good, 0),
                               KVSTORE_MATCH_PEEK, 0, &match),
                 KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 4);
    /* Nothing of that did harm. */
    check_restore(ns, &shape, tokens, 4, 1);
    CHECK_EQ(stats_of(store).poisoned, 0);
    close_store(store);
    free(tokens);
}

static void match_arguments(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_match_t match;
    uint32_t sizes[BAD_SIZE_COUNT];
    later_t memory;
    kvstore_match_t *longer;
    kvstore_block_key_t keys[4];
    size_t count = 0, i;
    offload_prompt(ns, &shape, tokens, 4, 1);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, NULL), KVSTORE_E_INVALID_ARGUMENT);
    bad_sizes(sizeof match, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++) {
        match = match_zero();
        match.struct_size = sizes[i];
        CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    }
    for (i = 2; i < 32; i++) {
        match = match_zero();
        CHECK_STATUS(kvstore_match(ns, &prompt, UINT32_C(1) << i, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
        CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK | (UINT32_C(1) << i), 0, &match),
                     KVSTORE_E_INVALID_ARGUMENT);
    }
    CHECK_EQ(stats_of(store).leases_active, 0); /* no refused call took one */
    /* A later caller's longer struct is filled as far as we know it. */
    match = match_zero();
    longer = (kvstore_match_t *)later(&memory, &match, sizeof match, 0);
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, longer), KVSTORE_OK);
    CHECK_EQ(longer->blocks_matched, 4);
    CHECK_EQ(longer->struct_size, sizeof match + LATER_BYTES);
    for (i = sizeof match; i < sizeof memory.bytes; i++) CHECK_EQ(memory.bytes[i], 0);
    /* Zero tokens: nothing matches. */
    prompt.token_count = 0;
    match = match_zero();
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_MISS);
    prompt.tokens = NULL;
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_LEAVE_ONE_TOKEN, 0, &match), KVSTORE_MISS);
    CHECK_STATUS(kvstore_touch(ns, &prompt, NULL), KVSTORE_MISS);
    prompt = prompt_of(tokens, 64);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, keys, 4, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, NULL, 4, &count), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, keys, SIZE_MAX, &count), KVSTORE_OK); /* more room than needed */
    CHECK_EQ(count, 4);
    close_store(store);
    free(tokens);
}

static void transfer_arguments_of(bool restore) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_t *store = open_small(path_in_dir(restore ? "restore" : "offload"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_prompt_t prompt = prompt_of(tokens, 64), other_prompt;
    pieces_t pieces = pieces_new(&shape, 0, 4, 0, 0);
    kvstore_span_t good_spans[32];
    kvstore_transfer_t good = transfer_of(&pieces), transfer;
    kvstore_transfer_result_t result = result_zero();
    kvstore_stats_t before, after;
    uint32_t sizes[BAD_SIZE_COUNT];
    later_t memory;
    size_t i;
    kvstore_status_t (*move)(kvstore_namespace_t *, const kvstore_prompt_t *, const kvstore_transfer_t *,
                             kvstore_transfer_result_t *) = restore ? kvstore_restore : kvstore_offload;
    pieces_fill(&pieces, 1);
    memcpy(good_spans, pieces.spans, sizeof good_spans);
    if (restore) offload_prompt(ns, &shape, tokens, 4, 1);
    flush_store(store);
    before = stats_of(store);

#define REFUSED(statement)                                                                          \
    do {                                                                                            \
        transfer = good;                                                                            \
        memcpy(pieces.spans, good_spans, sizeof good_spans);                                        \
        statement;                                                                                  \
        CHECK_STATUS(move(ns, &prompt, &transfer, &result), KVSTORE_E_INVALID_ARGUMENT);            \
    } while (0)

    CHECK_STATUS(move(ns, &prompt, NULL, &result), KVSTORE_E_INVALID_ARGUMENT);
    bad_sizes(sizeof transfer, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++) REFUSED(transfer.struct_size = sizes[i]);
    bad_sizes(sizeof result, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++) REFUSED(result.struct_size = sizes[i]);
    result = result_zero();
    for (i = 0; i < 32; i++)
        if ((UINT32_C(1) << i & (KVSTORE_TRANSFER_PRIORITY | KVSTORE_TRANSFER_WHOLE)) == 0)
            REFUSED(transfer.flags = UINT32_C(1) << i);
    REFUSED(transfer.prefix_block_count = 1000);
    REFUSED(transfer.prefix_block_count = UINT64_MAX);
    /* Scatter lists that do not fit. */
    REFUSED(transfer.spans = NULL);
    REFUSED(transfer.spans = NULL; transfer.span_count = 0);
    REFUSED(transfer.span_count = 0);
    REFUSED(transfer.span_count = 31);
    REFUSED(transfer.span_count = 33);
    REFUSED(transfer.span_count = SIZE_MAX);
    REFUSED(transfer.span_count = (SIZE_MAX >> 1) + 1);
    REFUSED(transfer.span_count = UINT64_C(1) << 36);
    REFUSED(transfer.block_count = 3);
    REFUSED(transfer.block_count = 5); /* more than the prompt has */
    REFUSED(transfer.block_count = 5; transfer.span_count = 40);
    REFUSED(transfer.block_count = UINT64_MAX);
    REFUSED(transfer.block_count = UINT64_MAX / 8 + 5); /* × 8 regions wraps round to 32 */
    REFUSED(transfer.first_block = 1);                  /* 1 + 4 blocks */
    REFUSED(transfer.first_block = 4; transfer.block_count = 1; transfer.span_count = 8);
    REFUSED(transfer.first_block = UINT64_MAX; transfer.block_count = 2; transfer.span_count = 16);
    REFUSED(transfer.first_block = UINT64_MAX - 3); /* + 4 wraps round to 0 */
    REFUSED(transfer.region_count = 7);
    REFUSED(transfer.region_count = 9);
    REFUSED(transfer.region_count = UINT32_MAX);
    REFUSED(transfer.first_region = 1);
    REFUSED(transfer.first_region = 8; transfer.region_count = 1; transfer.span_count = 4);
    REFUSED(transfer.first_region = UINT32_MAX; transfer.region_count = 1; transfer.span_count = 4);
    REFUSED(transfer.first_region = UINT32_MAX - 7); /* + 8 wraps round */
    REFUSED(pieces.spans[5].data = NULL);
    if (restore) {
        pieces.spans[5] = good_spans[5];
    } else {
        /* Lengths that are not the namespace's. */
        REFUSED(pieces.spans[5].length = 4095);
        REFUSED(pieces.spans[5].length = 4097);
        REFUSED(pieces.spans[31].length = 0);
        REFUSED(pieces.spans[31].length = SIZE_MAX);
        /* A rest that fills no block. */
        transfer = good;
        memcpy(pieces.spans, good_spans, sizeof good_spans);
        other_prompt = prompt_of(tokens, 65);
        CHECK_STATUS(move(ns, &other_prompt, &transfer, &result), KVSTORE_E_INVALID_ARGUMENT);
        other_prompt = prompt_of(tokens, 63);
        CHECK_STATUS(move(ns, &other_prompt, &transfer, &result), KVSTORE_E_INVALID_ARGUMENT);
    }
    /* Zero tokens with pieces for four blocks. */
    transfer = good;
    memcpy(pieces.spans, good_spans, sizeof good_spans);
    other_prompt = prompt_of(tokens, 0);
    CHECK_STATUS(move(ns, &other_prompt, &transfer, &result), KVSTORE_E_INVALID_ARGUMENT);
    other_prompt = prompt_of(NULL, 0);
    CHECK_STATUS(move(ns, &other_prompt, &transfer, &result), KVSTORE_E_INVALID_ARGUMENT);
    /* Zero tokens and no pieces: nothing to do is no crash. */
    transfer.block_count = 0;
    transfer.spans = NULL;
    transfer.span_count = 0;
    CHECK_ONE_OF(move(ns, &other_prompt, &transfer, &result), 3, KVSTORE_OK, KVSTORE_MISS,
                 KVSTORE_E_INVALID_ARGUMENT);
#undef REFUSED

    after = stats_of(store);
    CHECK_EQ(after.blocks_offloaded, before.blocks_offloaded);
    CHECK_EQ(after.blocks_stored, before.blocks_stored);
    CHECK_EQ(after.blocks_restored_host + after.blocks_restored_disk, 0);
    CHECK_EQ(after.poisoned, 0);
    CHECK_EQ(peek_blocks(ns, tokens, 64), restore ? 4 : 0);

    /* Later callers' longer structs, and then the good call itself. */
    memcpy(pieces.spans, good_spans, sizeof good_spans);
    CHECK_STATUS(move(ns, &prompt, (const kvstore_transfer_t *)later(&memory, &good, sizeof good, 1), &result),
                 KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(move(ns, &prompt, (const kvstore_transfer_t *)later(&memory, &good, sizeof good, 0), &result),
                 KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 4);
    check_restore(ns, &shape, tokens, 4, 1);
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}

static void offload_arguments(void) { transfer_arguments_of(false); }
static void restore_arguments(void) { transfer_arguments_of(true); }

static void blob_lengths(void) {
    shape_t shape = shape_blob();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    pieces_t pieces = pieces_new(&shape, 0, 4, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    pieces_fill(&pieces, 1);
    pieces.spans[3].length = 100001; /* above the maximum */
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, NULL), KVSTORE_E_INVALID_ARGUMENT);
    pieces.spans[3].length = SIZE_MAX;
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_EQ(peek_blocks(ns, tokens, 64), 0);
    pieces_fill(&pieces, 1);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, NULL), KVSTORE_OK);
    check_restore(ns, &shape, tokens, 4, 1);
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
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
        memset(&stats, 0, sizeof stats);
        stats.struct_size = sizes[i];
        CHECK_STATUS(kvstore_stats(store, &stats), KVSTORE_E_INVALID_ARGUMENT);
    }
    bad_sizes(sizeof result, sizes);
    for (i = 0; i < BAD_SIZE_COUNT; i++) {
        result = flush_zero();
        result.struct_size = sizes[i];
        CHECK_STATUS(kvstore_flush(store, 0, &result), KVSTORE_E_INVALID_ARGUMENT);
    }
    memset(&stats, 0, sizeof stats);
    longer = (kvstore_stats_t *)later(&memory, &stats, sizeof stats, 0x77);
    CHECK_STATUS(kvstore_stats(store, longer), KVSTORE_OK);
    CHECK_EQ(longer->disk_bytes_capacity, 256 * MIB);
    for (i = sizeof stats; i < sizeof memory.bytes; i++) CHECK_EQ(memory.bytes[i], 0x77);
    CHECK_STATUS(kvstore_flush(store, 0, NULL), KVSTORE_OK);
    close_store(store);
}

static uint64_t pick(uint64_t *state) {
    static const uint64_t wild[] = {0, 1, 2, 3, 4, 7, 8, 9, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, UINT64_C(1) << 62,
                                    UINT64_C(1) << 63, UINT64_MAX - 7, UINT64_MAX};
    *state = mix64(*state);
    return wild[(*state >> 8) % (sizeof wild / sizeof wild[0])];
}

/* Wild numbers from a seed, with real pointers: whatever they say, an answer. The spans and the statuses are as
 * many as the whole prompt needs, so a count beyond them contradicts another and must be refused. */
static void random_numbers(void) {
    shape_t shape = shape_fp8();
    size_t token_count = 8 * shape.tokens_per_block;
    uint32_t *tokens = make_tokens(1, token_count);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    pieces_t pieces = pieces_new(&shape, 0, 8, 0, 0);
    uint64_t state = 42, step, lease, nanoseconds;
    offload_prompt(ns, &shape, tokens, 8, 1);
    for (step = 0; step < 20000; step++) {
        kvstore_transfer_t transfer = transfer_of(&pieces);
        kvstore_transfer_result_t result = result_zero();
        kvstore_match_t match = match_zero();
        kvstore_status_t status;
        uint32_t flags;
        uint64_t fields;
        state = mix64(state + step);
        fields = state;
        if (fields & 1) transfer.first_block = pick(&state);
        if (fields & 2) transfer.block_count = pick(&state);
        if (fields & 4) transfer.first_region = (uint32_t)pick(&state);
        if (fields & 8) transfer.region_count = (uint32_t)pick(&state);
        if (fields & 16) transfer.span_count = (size_t)pick(&state);
        if (fields & 32) transfer.block_status = NULL;
        status = kvstore_restore(ns, &prompt, &transfer, &result);
        CHECK_ONE_OF(status, 3, KVSTORE_OK, KVSTORE_E_BUFFER_TOO_SMALL, KVSTORE_E_INVALID_ARGUMENT);
        flags = (uint32_t)pick(&state) | KVSTORE_MATCH_PEEK;
        nanoseconds = pick(&state);
        CHECK_ONE_OF(kvstore_match(ns, &prompt, flags, nanoseconds, &match), 2, KVSTORE_OK,
                     KVSTORE_E_INVALID_ARGUMENT);
        lease = pick(&state);
        CHECK_ONE_OF(kvstore_lease_release(store, lease), 2, KVSTORE_OK, KVSTORE_E_BAD_HANDLE);
        lease = pick(&state);
        nanoseconds = pick(&state);
        CHECK_ONE_OF(kvstore_lease_extend(store, lease, nanoseconds), 3, KVSTORE_MISS, KVSTORE_E_BAD_HANDLE,
                     KVSTORE_E_INVALID_ARGUMENT);
    }
    CHECK_EQ(stats_of(store).poisoned, 0);
    check_restore(ns, &shape, tokens, 8, 1);
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}

const test_case_t bad_input_cases[] = {
    {"init_arguments", init_arguments},
    {"open_arguments", open_arguments},
    {"open_with_absurd_sizes", open_with_absurd_sizes},
    {"namespace_arguments", namespace_arguments},
    {"prompt_arguments", prompt_arguments},
    {"match_arguments", match_arguments},
    {"offload_arguments", offload_arguments},
    {"restore_arguments", restore_arguments},
    {"blob_lengths", blob_lengths},
    {"stats_and_flush_arguments", stats_and_flush_arguments},
    {"random_numbers", random_numbers},
    {NULL, NULL},
};
