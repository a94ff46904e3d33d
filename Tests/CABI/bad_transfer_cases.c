/* Bad arguments for the calls that take a prompt: a status and a message, never a crash, and no harm to the store. */
#include "bad_input.h"
#include "harness.h"

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
    for (i = 3; i < 32; i++) {
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
const test_case_t bad_transfer_cases[] = {
    {"prompt_arguments", prompt_arguments},
    {"match_arguments", match_arguments},
    {"offload_arguments", offload_arguments},
    {"restore_arguments", restore_arguments},
    {"blob_lengths", blob_lengths},
    {"random_numbers", random_numbers},
    {NULL, NULL},
};
