/* Offload and restore: every shape, in pieces, by regions, bounded disk, damaged files. */
#include "harness.h"

#include <dirent.h>
#include <sys/stat.h>

/* Offload, match, restore from host; flush, reopen, match, restore from disk. */
static void round_trip(shape_t shape) {
    enum { blocks = 9 };
    size_t token_count = blocks * shape.tokens_per_block;
    uint32_t *tokens = make_tokens(11, token_count);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    kvstore_match_t match = match_zero();
    kvstore_transfer_result_t result = result_zero();
    kvstore_flush_result_t flushed = flush_zero();
    uint64_t bytes = 0, b;
    uint32_t r;
    for (b = 0; b < blocks; b++)
        for (r = 0; r < shape.region_count; r++) bytes += region_length(&shape, 5, b, r);

    CHECK_EQ(peek_blocks(ns, tokens, token_count), 0);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, token_count, 0, blocks, 5, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, blocks);
    CHECK_EQ(result.blocks_host, blocks); /* taken now */
    CHECK_EQ(result.blocks_disk, 0);      /* already there */
    CHECK_EQ(result.bytes, bytes);
    /* Visible at once in this process. */
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, blocks);
    CHECK_EQ(match.tokens_matched, token_count);
    CHECK_EQ(match.blocks_host + match.blocks_disk, blocks);
    check_restore(ns, &shape, tokens, blocks, 5);
    CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
    CHECK_EQ(flushed.blocks_durable, blocks);
    CHECK_EQ(flushed.blocks_dropped_full + flushed.blocks_dropped_parent + flushed.blocks_dropped_error, 0);
    flushed = flush_zero();
    CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
    CHECK_EQ(flushed.blocks_durable, 0); /* since the last flush */
    check_restore(ns, &shape, tokens, blocks, 5);
    close_store(store);

    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, blocks);
    CHECK_EQ(match.blocks_disk, blocks); /* a copy in RAM belongs to a process */
    check_restore(ns, &shape, tokens, blocks, 5);
    CHECK_EQ(stats_of(store).blocks_restored_disk, blocks);
    CHECK_EQ(stats_of(store).blocks_stored, blocks);
    CHECK_EQ(stats_of(store).payload_bytes_stored, bytes);
    close_store(store);
    free(tokens);
}

static void round_trip_mha(void) { round_trip(shape_mha()); }
static void round_trip_gqa(void) { round_trip(shape_gqa()); }
static void round_trip_mla(void) { round_trip(shape_mla()); }
static void round_trip_fp8(void) { round_trip(shape_fp8()); }
static void round_trip_blob(void) { round_trip(shape_blob()); }
static void round_trip_large(void) { round_trip(shape_large()); }

static void round_trip_one_token_blocks(void) {
    shape_t shape = shape_gqa();
    shape.tokens_per_block = 1;
    shape.region_count = 1;
    shape.region_bytes[0] = 1; /* the smallest payload there is */
    round_trip(shape);
}

/* Everything in the catalog, and nothing in it: the same answers. */
static void inline_limit_at_both_ends(void) {
    static const uint64_t limits[] = {0, 1024 * 1024};
    shape_t shapes[3];
    size_t l, s;
    shapes[0] = shape_gqa();
    shapes[1] = shape_mla();
    shapes[2] = shape_blob();
    for (l = 0; l < 2; l++) {
        char name[32];
        kvstore_config_t config;
        kvstore_t *store;
        int round;
        snprintf(name, sizeof name, "store-%zu", l);
        for (round = 0; round < 2; round++) {
            small_config(&config, path_in_dir(name));
            config.inline_payload_bytes_max = limits[l];
            CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
            for (s = 0; s < 3; s++) {
                uint32_t *tokens = make_tokens(s, 160);
                kvstore_namespace_t *ns = open_namespace(store, &shapes[s]);
                if (round == 0) offload_prompt(ns, &shapes[s], tokens, 10, s);
                check_restore(ns, &shapes[s], tokens, 10, s);
                free(tokens);
            }
            close_store(store);
        }
    }
}

/* A namespace keeps the place of its payloads when the setting changes. */
static void inline_limit_changes_later(void) {
    shape_t shape = shape_gqa();
    uint32_t *tokens = make_tokens(1, 320);
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    small_config(&config, path_in_dir("store"));
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    ns = open_namespace(store, &shape);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 160, 0, 10, 1, NULL), KVSTORE_OK);
    close_store(store);
    config.inline_payload_bytes_max = 0;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    ns = open_namespace(store, &shape);
    check_restore(ns, &shape, tokens, 10, 1);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 320, 10, 10, 1, NULL), KVSTORE_OK);
    flush_store(store);
    check_restore(ns, &shape, tokens, 20, 1);
    close_store(store);
    free(tokens);
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
            for (count = 1; first + count <= 20; count += 5) {
                pieces_t pieces = pieces_new(&shape, first, count, 0, 0);
                kvstore_transfer_t transfer = transfer_of(&pieces);
                kvstore_transfer_result_t result = result_zero();
                pieces_clear(&pieces);
                CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
                CHECK_EQ(result.blocks_done, count);
                CHECK(pieces_match(&pieces, 1, count));
                pieces_free(&pieces);
            }
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
                pieces_t pieces = pieces_new(&shape, 0, blocks, r, step);
                kvstore_transfer_t transfer = transfer_of(&pieces);
                kvstore_transfer_result_t result = result_zero();
                CHECK_EQ(peek_blocks(ns, tokens, token_count), 0); /* not before the last one */
                pieces_fill(&pieces, 1);
                CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &result), KVSTORE_OK);
                CHECK_EQ(result.blocks_done, blocks);
                CHECK(pieces_match(&pieces, 1, blocks));
                pieces_free(&pieces);
            }
            CHECK_EQ(peek_blocks(ns, tokens, token_count), blocks);
        }
        check_restore(ns, &shape, tokens, blocks, 1);
        for (r = 0; r < shape.region_count; r += step) {
            pieces_t pieces = pieces_new(&shape, 1, blocks - 1, r, step);
            kvstore_transfer_t transfer = transfer_of(&pieces);
            kvstore_transfer_result_t result = result_zero();
            pieces_clear(&pieces);
            CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
            CHECK_EQ(result.blocks_done, blocks - 1);
            CHECK(pieces_match(&pieces, 1, blocks - 1));
            pieces_free(&pieces);
        }
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
        pieces_t pieces = pieces_new(&shape, 0, 4, order[i], 1);
        kvstore_transfer_t transfer = transfer_of(&pieces);
        pieces_fill(&pieces, 1);
        CHECK_STATUS(kvstore_offload(ns, &prompt_one, &transfer, NULL), KVSTORE_OK);
        pieces_fill(&pieces, 2);
        CHECK_STATUS(kvstore_offload(ns, &prompt_two, &transfer, NULL), KVSTORE_OK);
        if (i == 0) {
            pieces_fill(&pieces, 3);
            CHECK_STATUS(kvstore_offload(ns, &prompt_three, &transfer, NULL), KVSTORE_OK);
        }
        pieces_free(&pieces);
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

static void blocks_are_stored_once(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160), *branch = make_tokens(1, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_transfer_result_t result = result_zero();
    int round;
    offload_prompt(ns, &shape, tokens, 10, 1);
    for (round = 0; round < 2; round++) { /* still in RAM only; durable */
        CHECK_STATUS(offload_blocks(ns, &shape, tokens, 160, 0, 10, 1, &result), KVSTORE_OK);
        CHECK_EQ(result.blocks_done, 10);
        CHECK_EQ(result.blocks_host, 0);
        CHECK_EQ(result.blocks_disk, 10);
        CHECK_EQ(result.bytes, 0);
        flush_store(store);
    }
    /* A branch off block 4 adds only what is new. */
    vary_tokens(branch, 64, 160, 2);
    CHECK_STATUS(offload_blocks(ns, &shape, branch, 160, 0, 10, 1, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 10);
    CHECK_EQ(result.blocks_host, 6);
    CHECK_EQ(result.blocks_disk, 4);
    flush_store(store);
    CHECK_EQ(stats_of(store).blocks_stored, 16);
    CHECK_EQ(stats_of(store).blocks_offloaded, 16);
    CHECK_EQ(stats_of(store).blocks_deduplicated, 24);
    CHECK_EQ(stats_of(store).payload_bytes_stored, 16 * 8 * 4096);
    check_restore(ns, &shape, tokens, 10, 1);
    check_restore(ns, &shape, branch, 10, 1);
    close_store(store);
    free(tokens);
    free(branch);
}

static void parent_missing(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_transfer_result_t result = result_zero();
    pieces_t pieces = pieces_new(&shape, 4, 3, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    int i;
    pieces_fill(&pieces, 1);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &result), KVSTORE_PARENT_MISSING);
    CHECK_EQ(result.blocks_done, 0);
    for (i = 0; i < 3; i++) CHECK_EQ(pieces.block_status[i], KVSTORE_PARENT_MISSING);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 0);
    /* Three of the four that are needed. */
    offload_prompt(ns, &shape, tokens, 3, 1);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &result), KVSTORE_PARENT_MISSING);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 3);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 64, 3, 1, 1, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 3);
    for (i = 0; i < 3; i++) CHECK_EQ(pieces.block_status[i], KVSTORE_OK);
    flush_store(store);
    check_restore(ns, &shape, tokens, 7, 1);
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}

static void restore_of_what_is_not_there(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_transfer_result_t result = result_zero();
    pieces_t pieces = pieces_new(&shape, 0, 10, 0, 0), behind = pieces_new(&shape, 6, 4, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    int i;
    pieces_clear(&pieces);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_MISS);
    CHECK_EQ(result.blocks_done, 0);
    for (i = 0; i < 10; i++) CHECK_EQ(pieces.block_status[i], KVSTORE_MISS);
    CHECK(stats_of(store).misses_absent > 0);
    offload_prompt(ns, &shape, tokens, 6, 1);
    pieces_clear(&pieces);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_MISS);
    CHECK_EQ(result.blocks_done, 6);
    CHECK(pieces_match(&pieces, 1, 6));
    for (i = 0; i < 10; i++) CHECK_EQ(pieces.block_status[i], i < 6 ? KVSTORE_OK : KVSTORE_MISS);
    transfer = transfer_of(&behind); /* a range that begins behind what is stored */
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_MISS);
    CHECK_EQ(result.blocks_done, 0);
    close_store(store);
    pieces_free(&pieces);
    pieces_free(&behind);
    free(tokens);
}

static void restore_into_too_little_room(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t pieces = pieces_new(&shape, 0, 4, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    offload_prompt(ns, &shape, tokens, 4, 1);
    pieces_clear(&pieces);
    pieces.spans[2 * 8 + 5].capacity = 4095; /* block 2, region 5 */
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK_EQ(pieces.spans[2 * 8 + 5].length, 4096); /* says how many bytes */
    CHECK_EQ(pieces.block_status[2], KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK(result.blocks_done <= 2);
    CHECK_EQ(((unsigned char *)pieces.spans[2 * 8 + 5].data)[4095], 0xA5); /* not written behind the end */
    pieces.spans[2 * 8 + 5].capacity = 4096;
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK(pieces_match(&pieces, 1, 4));
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}

/* An opaque blob's length is not known beforehand: it is what `length` is for. */
static void blob_into_too_little_room(void) {
    shape_t shape = shape_blob();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t pieces = pieces_new(&shape, 0, 4, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    uint64_t length = region_length(&shape, 1, 2, 0);
    offload_prompt(ns, &shape, tokens, 4, 1);
    pieces_clear(&pieces);
    pieces.spans[2].capacity = (size_t)length - 1;
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK_EQ(pieces.spans[2].length, length);
    pieces.spans[2].capacity = (size_t)length; /* exactly enough */
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK(pieces_match(&pieces, 1, 4));
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}

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
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    ns = open_namespace(store, &shape);
    for (p = 0; p < prompts; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        offload_prompt(ns, &shape, tokens, blocks, p);
        if (p % 8 == 7) {
            flush_store(store);
            stats = stats_of(store);
            CHECK_EQ(stats.disk_bytes_capacity, 96 * MIB);
            CHECK(stats.disk_bytes_used <= stats.disk_bytes_capacity);
            CHECK_EQ(peek_blocks(ns, tokens, 64), blocks); /* the newest is there */
        }
        free(tokens);
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
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    ns = open_namespace(store, &shape);
    for (p = 0; p < prompts; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        uint64_t stored = peek_blocks(ns, tokens, 64);
        if (stored > 0) check_restore(ns, &shape, tokens, stored, p);
        found += stored;
        free(tokens);
    }
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
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    ns = open_namespace(store, &shape);
    for (p = 0; p < prompts; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        offload_prompt(ns, &shape, tokens, blocks, p);
        if (p % 8 == 7) flush_store(store);
        free(tokens);
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
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    ns = open_namespace(store, &shape);
    for (p = 0; p < prompts; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        kvstore_prompt_t prompt = prompt_of(tokens, 64);
        kvstore_match_t match;
        memset(&match, 0, sizeof match);
        match.struct_size = (uint32_t)sizeof match;
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

/* Bytes on disk that were changed behind the store's back: a miss, never other bytes. */
static void damaged_files_are_misses(void) {
    enum { blocks = 16 };
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(1, blocks * 16);
    kvstore_prompt_t prompt = prompt_of(tokens, blocks * 16);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t pieces = pieces_new(&shape, 0, blocks, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    DIR *folder;
    struct dirent *entry;
    size_t changed = 0;
    kvstore_status_t status;
    offload_prompt(ns, &shape, tokens, blocks, 1);
    close_store(store);
    folder = opendir(path_in_dir("store/slots"));
    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL) {
        char file_path[4096];
        FILE *file;
        long at;
        if (entry->d_name[0] == '.') continue;
        CHECK((size_t)snprintf(file_path, sizeof file_path, "%s/store/slots/%s", test_dir, entry->d_name) <
              sizeof file_path);
        file = fopen(file_path, "r+b");
        CHECK(file != NULL);
        /* One byte in each 64 KiB from 200,000 on: a few blocks in the middle of the chain. */
        for (at = 200000; at < 700000; at += 65536) {
            int byte;
            if (fseek(file, at, SEEK_SET) != 0 || (byte = fgetc(file)) == EOF) break;
            CHECK(fseek(file, at, SEEK_SET) == 0);
            CHECK(fputc(byte ^ 0x40, file) != EOF);
            changed++;
        }
        CHECK(fclose(file) == 0);
    }
    closedir(folder);
    CHECK(changed > 0);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    pieces_clear(&pieces);
    status = kvstore_restore(ns, &prompt, &transfer, &result);
    CHECK_ONE_OF(status, 2, KVSTORE_OK, KVSTORE_MISS);
    CHECK(pieces_match(&pieces, 1, result.blocks_done));
    CHECK_STATUS(status, KVSTORE_MISS);
    CHECK(result.blocks_done > 0 && result.blocks_done < blocks);
    CHECK(stats_of(store).misses_corrupt > 0);
    /* It is hidden at once, and can be computed and offloaded anew. */
    CHECK(peek_blocks(ns, tokens, blocks * 16) <= result.blocks_done);
    flush_store(store);
    offload_prompt(ns, &shape, tokens, blocks, 1);
    flush_store(store);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    /* Blocks behind the first damaged one went along with it, so all of them are new and whole. */
    check_restore(ns, &shape, tokens, blocks, 1);
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
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
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
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
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
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

const test_case_t move_cases[] = {
    {"round_trip_mha", round_trip_mha},
    {"round_trip_gqa", round_trip_gqa},
    {"round_trip_mla", round_trip_mla},
    {"round_trip_fp8", round_trip_fp8},
    {"round_trip_blob", round_trip_blob},
    {"round_trip_large", round_trip_large},
    {"round_trip_one_token_blocks", round_trip_one_token_blocks},
    {"inline_limit_at_both_ends", inline_limit_at_both_ends},
    {"inline_limit_changes_later", inline_limit_changes_later},
    {"offload_in_pieces", offload_in_pieces},
    {"restore_in_pieces", restore_in_pieces},
    {"defaults_of_a_transfer", defaults_of_a_transfer},
    {"layer_wise_mha", layer_wise_mha},
    {"layer_wise_fp8", layer_wise_fp8},
    {"region_by_region", region_by_region},
    {"layer_wise_interleaved", layer_wise_interleaved},
    {"groups_bring_the_last_window", groups_bring_the_last_window},
    {"groups_are_checked", groups_are_checked},
    {"blocks_are_stored_once", blocks_are_stored_once},
    {"parent_missing", parent_missing},
    {"restore_of_what_is_not_there", restore_of_what_is_not_there},
    {"restore_into_too_little_room", restore_into_too_little_room},
    {"blob_into_too_little_room", blob_into_too_little_room},
    {"disk_is_bounded", disk_is_bounded},
    {"the_archive_takes_what_leaves", the_archive_takes_what_leaves},
    {"damaged_files_are_misses", damaged_files_are_misses},
    {"offload_that_may_not_wait", offload_that_may_not_wait},
    {"host_tier_too_small", host_tier_too_small},
    {"flush_with_a_deadline", flush_with_a_deadline},
    {NULL, NULL},
};
