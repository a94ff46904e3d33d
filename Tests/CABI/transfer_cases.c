/* Transfers of a part of a prompt: some blocks, some regions, the layers of some groups. */
#include "harness.h"

/* Some blocks and regions of a prompt, as pieces_new takes them: offloaded, and restored and compared. */
static void offload_part(kvstore_namespace_t *ns, const shape_t *shape, const kvstore_prompt_t *prompt,
                         uint64_t first_block, uint64_t block_count, uint32_t first_region, uint32_t region_count,
                         uint64_t content_seed) {
    pieces_t pieces = pieces_new(shape, first_block, block_count, first_region, region_count);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    pieces_fill(&pieces, content_seed);
    CHECK_STATUS(kvstore_offload(ns, prompt, &transfer, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, block_count);
    CHECK(pieces_match(&pieces, content_seed, block_count));
    pieces_free(&pieces);
}

static void restore_part(kvstore_namespace_t *ns, const shape_t *shape, const kvstore_prompt_t *prompt,
                         uint64_t first_block, uint64_t block_count, uint32_t first_region, uint32_t region_count,
                         uint64_t content_seed) {
    pieces_t pieces = pieces_new(shape, first_block, block_count, first_region, region_count);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    pieces_clear(&pieces);
    CHECK_STATUS(kvstore_restore(ns, prompt, &transfer, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, block_count);
    CHECK(pieces_match(&pieces, content_seed, block_count));
    pieces_free(&pieces);
}

static void offload_in_pieces(void) {
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_transfer_result_t result = result_zero();
    /* 10 blocks as 1 + 4 + 3 + 2, once with a prompt that ends there, once with the whole prompt. */
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 16, 0, 1, 1, &result), KVSTORE_OK);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 1);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 80, 1, 4, 1, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 4);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 5);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 160, 5, 3, 1, &result), KVSTORE_OK);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 8);
    flush_store(store);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 160, 8, 2, 1, &result), KVSTORE_OK);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 10);
    check_restore(ns, &shape, tokens, 10, 1);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    check_restore(ns, &shape, tokens, 10, 1);
    close_store(store);
    free(tokens);
}

static void restore_in_pieces(void) {
    shape_t shape = shape_fp8();
    size_t token_count = 20 * shape.tokens_per_block;
    uint32_t *tokens = make_tokens(1, token_count);
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    int round;
    for (round = 0; round < 2; round++) {
        kvstore_t *store = open_small(path_in_dir("store"));
        kvstore_namespace_t *ns = open_namespace(store, &shape);
        uint64_t first, count;
        if (round == 0) offload_prompt(ns, &shape, tokens, 20, 1);
        for (first = 0; first < 20; first += 3)
            for (count = 1; first + count <= 20; count += 5)
                restore_part(ns, &shape, &prompt, first, count, 0, 0, 1);
        close_store(store);
    }
    free(tokens);
}

/* block_count 0 and region_count 0 stand for "to the last one"; result and block_status may be NULL. */
static void defaults_of_a_transfer(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 96);
    kvstore_prompt_t prompt = prompt_of(tokens, 96);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t all = pieces_new(&shape, 0, 6, 0, 0), some = pieces_new(&shape, 2, 4, 3, 0);
    kvstore_transfer_t transfer = transfer_of(&all);
    pieces_fill(&all, 1);
    transfer.block_count = 0;
    transfer.region_count = 0;
    transfer.block_status = NULL;
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, NULL), KVSTORE_OK);
    transfer = transfer_of(&some);
    transfer.block_count = 0;
    transfer.region_count = 0;
    transfer.block_status = NULL;
    pieces_clear(&some);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, NULL), KVSTORE_OK);
    CHECK(pieces_match(&some, 1, 4));
    close_store(store);
    pieces_free(&all);
    pieces_free(&some);
    free(tokens);
}

/* Layer by layer: visible when all regions of a block have come, read back a layer at a time. */
static void layer_wise(shape_t shape, uint32_t step) {
    enum { blocks = 6 };
    size_t token_count = blocks * shape.tokens_per_block;
    uint32_t *tokens = make_tokens(1, token_count);
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    int round;
    for (round = 0; round < 2; round++) {
        kvstore_t *store = open_small(path_in_dir("store"));
        kvstore_namespace_t *ns = open_namespace(store, &shape);
        uint32_t r;
        if (round == 0) {
            for (r = 0; r < shape.region_count; r += step) {
                CHECK_EQ(peek_blocks(ns, tokens, token_count), 0); /* not before the last one */
                offload_part(ns, &shape, &prompt, 0, blocks, r, step, 1);
            }
            CHECK_EQ(peek_blocks(ns, tokens, token_count), blocks);
        }
        check_restore(ns, &shape, tokens, blocks, 1);
        for (r = 0; r < shape.region_count; r += step)
            restore_part(ns, &shape, &prompt, 1, blocks - 1, r, step, 1);
        close_store(store);
    }
    free(tokens);
}

static void layer_wise_mha(void) { layer_wise(shape_mha(), 2); }
static void layer_wise_fp8(void) { layer_wise(shape_fp8(), 4); }

static void region_by_region(void) { layer_wise(shape_gqa(), 1); }

/* Regions that come in another order, two prompts interleaved, and half a block that is given up. */
static void layer_wise_interleaved(void) {
    shape_t shape = shape_mla();
    uint32_t *one = make_tokens(1, 64), *two = make_tokens(2, 64), *three = make_tokens(3, 64);
    kvstore_prompt_t prompt_one = prompt_of(one, 64), prompt_two = prompt_of(two, 64);
    kvstore_prompt_t prompt_three = prompt_of(three, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    static const uint32_t order[] = {2, 0, 1};
    int i;
    for (i = 0; i < 3; i++) {
        offload_part(ns, &shape, &prompt_one, 0, 4, order[i], 1, 1);
        offload_part(ns, &shape, &prompt_two, 0, 4, order[i], 1, 2);
        if (i == 0) offload_part(ns, &shape, &prompt_three, 0, 4, order[i], 1, 3);
    }
    check_restore(ns, &shape, one, 4, 1);
    check_restore(ns, &shape, two, 4, 2);
    CHECK_EQ(peek_blocks(ns, three, 64), 0);
    flush_store(store);
    close_store(store); /* with the third prompt half there */
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    check_restore(ns, &shape, one, 4, 1);
    CHECK_EQ(peek_blocks(ns, three, 64), 0);
    offload_prompt(ns, &shape, three, 4, 3); /* and it can still come */
    check_restore(ns, &shape, three, 4, 3);
    close_store(store);
    free(one);
    free(two);
    free(three);
}

/* Layers that look back two blocks: only those of the last two blocks are brought, from RAM and from disk. */
static void groups_bring_the_last_window(void) {
    enum { blocks = 8 };
    shape_t shape = shape_mla();
    uint64_t bytes = shape.region_bytes[0];
    uint32_t *tokens = make_tokens(1, blocks * 16);
    kvstore_prompt_t prompt = prompt_of(tokens, blocks * 16);
    kvstore_group_t groups[2] = {{0, 1, 0, 0}, {1, 2, 32, 0}};
    kvstore_namespace_config_t config;
    int round;
    namespace_config(&shape, &config);
    config.groups = groups;
    config.group_count = 2;
    for (round = 0; round < 2; round++) {
        kvstore_t *store = open_small(path_in_dir("store"));
        kvstore_namespace_t *ns;
        pieces_t pieces = pieces_new(&shape, 0, blocks, 0, 0), head = pieces_new(&shape, 0, 3, 0, 0);
        kvstore_transfer_t transfer = transfer_of(&pieces), part = transfer_of(&head);
        kvstore_transfer_result_t result = result_zero();
        kvstore_operation_t *operation;
        size_t s;
        CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
        if (round == 0) offload_prompt(ns, &shape, tokens, blocks, 1);
        pieces_clear(&pieces);
        /* What is not brought needs no memory. */
        for (s = 0; s < pieces.span_count; s++)
            if (s / 3 < 6 && s % 3 > 0) {
                transfer.spans[s].data = NULL;
                transfer.spans[s].capacity = 0;
            }
        CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
        CHECK_EQ(result.blocks_done, blocks);
        CHECK_EQ(result.bytes, (blocks + 2 * 2) * bytes);
        for (s = 0; s < pieces.span_count; s++)
            CHECK_EQ(pieces.spans[s].length, s / 3 < 6 && s % 3 > 0 ? 0 : bytes);
        pieces_free(&pieces);
        /* The same prefix in pieces: the first three blocks lie before its window. As an operation, too. */
        part.prefix_block_count = 5;
        CHECK_STATUS(kvstore_restore(ns, &prompt, &part, &result), KVSTORE_OK);
        CHECK_EQ(result.bytes, 3 * bytes);
        part.prefix_block_count = 4;
        CHECK_STATUS(kvstore_restore_start(ns, &prompt, &part, &operation), KVSTORE_OK);
        CHECK_STATUS(kvstore_wait(operation, 0, &result), KVSTORE_OK);
        CHECK_EQ(result.bytes, (3 + 2) * bytes);
        part.flags = KVSTORE_TRANSFER_WHOLE;
        pieces_clear(&head);
        CHECK_STATUS(kvstore_restore(ns, &prompt, &part, &result), KVSTORE_OK);
        CHECK_EQ(result.bytes, 9 * bytes);
        CHECK(pieces_match(&head, 1, 3));
        /* A windowed layer alone: of blocks before the window nothing is read. */
        part.flags = 0;
        part.prefix_block_count = 5;
        part.first_region = 1;
        part.region_count = 1;
        part.span_count = 3;
        CHECK_STATUS(kvstore_restore(ns, &prompt, &part, &result), KVSTORE_OK);
        CHECK_EQ(result.blocks_done, 3);
        CHECK_EQ(result.blocks_host + result.blocks_disk + result.bytes, 0);
        part.prefix_block_count = 2;
        CHECK_STATUS(kvstore_restore(ns, &prompt, &part, &result), KVSTORE_E_INVALID_ARGUMENT);
        part.prefix_block_count = blocks + 1;
        CHECK_STATUS(kvstore_restore(ns, &prompt, &part, &result), KVSTORE_E_INVALID_ARGUMENT);
        pieces_free(&head);
        close_store(store);
    }
    free(tokens);
}

static void groups_are_checked(void) {
    shape_t shape = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns;
    kvstore_group_t groups[2] = {{0, 1, 32, 0}, {1, 2, 0, 0}};
    kvstore_namespace_config_t config;
    namespace_config(&shape, &config);
    config.group_count = 2;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT); /* NULL */
    config.groups = groups;
    groups[1].reserved = 1;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    groups[1].reserved = 0;
    groups[1].region_count = 3;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    groups[1].region_count = UINT32_MAX;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    groups[1].region_count = 0;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    groups[1].region_count = 2;
    groups[1].first_region = 0;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    config.group_count = SIZE_MAX;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    config.group_count = 2;
    groups[1].first_region = 1;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    close_store(store);
}
const test_case_t transfer_cases[] = {
    {"offload_in_pieces", offload_in_pieces},
    {"restore_in_pieces", restore_in_pieces},
    {"defaults_of_a_transfer", defaults_of_a_transfer},
    {"layer_wise_mha", layer_wise_mha},
    {"layer_wise_fp8", layer_wise_fp8},
    {"region_by_region", region_by_region},
    {"layer_wise_interleaved", layer_wise_interleaved},
    {"groups_bring_the_last_window", groups_bring_the_last_window},
    {"groups_are_checked", groups_are_checked},
    {NULL, NULL},
};
