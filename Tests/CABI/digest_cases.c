/* Blocks that are known by more than their tokens: digests of the caller's own, extra bytes. */
#include "harness.h"

/* ---------------------------------------------------------------- digest mode */

static kvstore_namespace_t *open_digest_namespace(kvstore_t *store, const shape_t *shape, uint32_t digest_bytes) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    namespace_config(shape, &config);
    config.identity_mode = KVSTORE_IDENTITY_DIGEST;
    config.digest_bytes = digest_bytes;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    return ns;
}

static kvstore_status_t offload_digests(kvstore_namespace_t *ns, const shape_t *shape, const unsigned char *digests,
                                        uint64_t digest_count, uint64_t first, uint64_t count, uint64_t seed,
                                        kvstore_transfer_result_t *result) {
    kvstore_prompt_t prompt = digest_prompt(digests, (size_t)digest_count);
    pieces_t pieces = pieces_new(shape, first, count, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_status_t status;
    pieces_fill(&pieces, seed);
    status = kvstore_offload(ns, &prompt, &transfer, result);
    pieces_free(&pieces);
    return status;
}

static void digest_mode_of(uint32_t digest_bytes) {
    enum { blocks = 12 };
    shape_t shape = shape_mha();
    unsigned char *memory = (unsigned char *)must_malloc(blocks * digest_bytes + 1);
    unsigned char *digests = memory + 1; /* no alignment needed */
    unsigned char *other = (unsigned char *)must_malloc(blocks * digest_bytes);
    char name[32];
    kvstore_t *store;
    kvstore_namespace_t *ns;
    kvstore_match_t match = match_zero();
    kvstore_transfer_result_t result = result_zero();
    kvstore_prompt_t prompt = digest_prompt(digests, blocks);
    kvstore_block_key_t keys[blocks];
    size_t count = 0;
    pieces_t pieces = pieces_new(&shape, 0, blocks, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    uint64_t removed = 0;
    uint32_t i;
    snprintf(name, sizeof name, "store-%u", digest_bytes);
    for (i = 0; i < blocks * digest_bytes; i++) digests[i] = (unsigned char)mix64(i);
    store = open_small(path_in_dir(name));
    ns = open_digest_namespace(store, &shape, digest_bytes);

    CHECK_STATUS(kvstore_match_keys(ns, digests, blocks, 0, 0, &match), KVSTORE_MISS);
    CHECK_STATUS(offload_digests(ns, &shape, digests, blocks, 6, 2, 1, &result), KVSTORE_PARENT_MISSING);
    CHECK_STATUS(offload_digests(ns, &shape, digests, 5, 0, 5, 1, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 5);
    CHECK_STATUS(kvstore_match_keys(ns, digests, blocks, 0, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 5);
    CHECK_EQ(match.tokens_matched, 5 * 16);
    CHECK(match.lease != 0);
    CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    CHECK_STATUS(offload_digests(ns, &shape, digests, blocks, 5, blocks - 5, 1, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_host, blocks - 5);
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK); /* the other way to ask */
    CHECK_EQ(match.blocks_matched, blocks);
    CHECK_STATUS(kvstore_block_keys(ns, &prompt, keys, blocks, &count), KVSTORE_OK);
    CHECK_EQ(count, blocks);
    /* Compared whole: the last bit of the last digest differs. */
    memcpy(other, digests, blocks * digest_bytes);
    other[blocks * digest_bytes - 1] ^= 1;
    CHECK_STATUS(kvstore_match_keys(ns, other, blocks, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, blocks - 1);
    CHECK_STATUS(kvstore_match_keys(ns, digests, blocks, KVSTORE_MATCH_PEEK | KVSTORE_MATCH_LEAVE_ONE_TOKEN, 0,
                                    &match),
                 KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, blocks - 1);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK(pieces_match(&pieces, 1, blocks));
    close_store(store);

    store = open_small(path_in_dir(name));
    ns = open_digest_namespace(store, &shape, digest_bytes);
    CHECK_STATUS(kvstore_match_keys(ns, digests, blocks, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, blocks);
    pieces_clear(&pieces);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK(pieces_match(&pieces, 1, blocks));
    CHECK_STATUS(kvstore_touch(ns, &prompt, &removed), KVSTORE_OK);
    CHECK_EQ(removed, blocks);
    prompt.digest_count = 3;
    CHECK_STATUS(kvstore_forget(ns, &prompt, &removed), KVSTORE_OK);
    CHECK_EQ(removed, blocks - 2);
    CHECK_STATUS(kvstore_match_keys(ns, digests, blocks, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 2);
    close_store(store);
    pieces_free(&pieces);
    free(memory);
    free(other);
}

static void digest_mode(void) {
    digest_mode_of(32);
    digest_mode_of(48);
    digest_mode_of(64);
}

static void digest_mode_bad_input(void) {
    shape_t shape = shape_mha();
    unsigned char digests[4 * 32] = {1};
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *by_digest = open_digest_namespace(store, &shape, 32);
    kvstore_namespace_t *by_tokens = open_namespace(store, &shape);
    kvstore_match_t match = match_zero();
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    static const uint32_t bad_sizes[] = {0, 1, 16, 28, 31, 33, 34, 63, 65, 68, 1024, UINT32_MAX};
    size_t i;
    namespace_config(&shape, &config);
    config.identity_mode = KVSTORE_IDENTITY_DIGEST;
    for (i = 0; i < sizeof bad_sizes / sizeof bad_sizes[0]; i++) {
        config.digest_bytes = bad_sizes[i];
        CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    }
    config.identity_mode = KVSTORE_IDENTITY_TOKENS;
    config.digest_bytes = 32; /* "else 0" */
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    config.digest_bytes = 0;
    config.identity_mode = 2;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);

    /* The other mode's prompt. */
    CHECK_STATUS(kvstore_match(by_digest, &prompt, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    prompt = digest_prompt(digests, 4);
    CHECK_STATUS(kvstore_match(by_tokens, &prompt, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_keys(by_tokens, digests, 4, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);

    CHECK_STATUS(kvstore_match_keys(by_digest, NULL, 4, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_keys(by_digest, digests, 4, 0, 0, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_keys(by_digest, digests, 4, 8, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_keys(by_digest, digests, SIZE_MAX, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_keys(by_digest, digests, SIZE_MAX / 32 + 1, 0, 0, &match),
                 KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_keys(by_digest, NULL, 0, 0, 0, &match), KVSTORE_MISS);
    close_store(store);
    free(tokens);
}

/* ---------------------------------------------------------------- extra bytes */

static void extra_bytes_are_identity(void) {
    enum { blocks = 6 };
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, blocks * 16);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_bytes_t cat[4], dog[4];
    unsigned char largest[256];
    kvstore_prompt_t plain = prompt_of(tokens, blocks * 16), with_cat = plain, with_dog = plain;
    kvstore_match_t match = match_zero();
    pieces_t pieces = pieces_new(&shape, 0, blocks, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    int round;
    memset(cat, 0, sizeof cat);
    memset(largest, 0x3C, sizeof largest);
    cat[2].data = "image of a cat";
    cat[2].length = 14;
    cat[3].data = largest;
    cat[3].length = sizeof largest; /* extra_bytes_max exactly */
    memcpy(dog, cat, sizeof dog);
    dog[2].data = "image of a dog";
    with_cat.extra = cat;
    with_cat.extra_count = 4; /* the rest have none */
    with_dog.extra = dog;
    with_dog.extra_count = 4;

    pieces_fill(&pieces, 1);
    CHECK_STATUS(kvstore_offload(ns, &plain, &transfer, &result), KVSTORE_OK);
    CHECK_STATUS(kvstore_match(ns, &with_cat, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 2);
    pieces_fill(&pieces, 2);
    CHECK_STATUS(kvstore_offload(ns, &with_cat, &transfer, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_host, blocks - 2);
    for (round = 0; round < 2; round++) {
        CHECK_STATUS(kvstore_match(ns, &plain, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
        CHECK_EQ(match.blocks_matched, blocks);
        CHECK_STATUS(kvstore_match(ns, &with_cat, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
        CHECK_EQ(match.blocks_matched, blocks);
        CHECK_STATUS(kvstore_match(ns, &with_dog, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
        CHECK_EQ(match.blocks_matched, 2);
        pieces_clear(&pieces);
        CHECK_STATUS(kvstore_restore(ns, &plain, &transfer, &result), KVSTORE_OK);
        CHECK(pieces_match(&pieces, 1, blocks));
        transfer.first_block = pieces.first_block = 2;
        transfer.block_count = pieces.block_count = blocks - 2;
        transfer.span_count = pieces.span_count = (blocks - 2) * 8;
        CHECK_STATUS(kvstore_restore(ns, &with_cat, &transfer, &result), KVSTORE_OK);
        CHECK(pieces_match(&pieces, 2, blocks - 2));
        transfer.first_block = pieces.first_block = 0;
        transfer.block_count = pieces.block_count = blocks;
        transfer.span_count = pieces.span_count = blocks * 8;
        close_store(store);
        store = open_small(path_in_dir("store"));
        ns = open_namespace(store, &shape);
    }
    /* Entries of no bytes are the same as no entries. */
    memset(cat, 0, sizeof cat);
    cat[1].data = "ignored";
    CHECK_STATUS(kvstore_match(ns, &with_cat, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, blocks);
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}

/* A picture that ends anywhere, and a question of any length behind it: the entry of the last block, which is not full, is no
 * error, and makes no difference before the block is full. */
static void extra_bytes_of_a_block_that_is_not_full(void) {
    enum { blocks = 4, size = 16 };
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, blocks * size + 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_bytes_t picture[blocks + 4];
    size_t first, last, count, i;
    for (first = 0; first < blocks; first++)
        for (last = first; last < blocks; last++) {
            kvstore_prompt_t stored = prompt_of(tokens, blocks * size);
            pieces_t pieces = pieces_new(&shape, 0, blocks, 0, 0);
            kvstore_transfer_t transfer = transfer_of(&pieces);
            memset(picture, 0, sizeof picture);
            for (i = first; i <= last; i++) {
                picture[i].data = "picture";
                picture[i].length = 7;
            }
            stored.extra = picture;
            stored.extra_count = last + 1;
            pieces_fill(&pieces, first * blocks + last);
            CHECK_STATUS(kvstore_offload(ns, &stored, &transfer, NULL), KVSTORE_OK);
            for (count = last * size + 1; count <= blocks * size; count++) {
                kvstore_prompt_t asked = prompt_of(tokens, count);
                kvstore_match_t match = match_zero();
                kvstore_status_t status;
                asked.extra = picture;
                asked.extra_count = last + 1; /* of the last, partial block as well */
                status = kvstore_match(ns, &asked, 0, 0, &match);
                CHECK_STATUS(status, count >= size ? KVSTORE_OK : KVSTORE_MISS);
                CHECK_EQ(match.blocks_matched, count / size);
                CHECK(count < size || match.lease != 0);
                if (match.lease != 0) CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
                asked.extra_count = (count + size - 1) / size + 1;
                CHECK_STATUS(kvstore_match(ns, &asked, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
            }
            CHECK_STATUS(kvstore_forget(ns, &stored, NULL), KVSTORE_OK);
            pieces_free(&pieces);
        }
    for (i = 0; i < blocks + 4; i++) {
        picture[i].data = "picture";
        picture[i].length = 7;
    }
    for (count = 1; count <= 64; count++) { /* a picture behind what is stored, and a question behind it */
        kvstore_prompt_t front = prompt_of(tokens, blocks * size), asked = prompt_of(tokens, blocks * size + count);
        kvstore_match_t match = match_zero();
        if (count == 1) offload_prompt(ns, &shape, tokens, blocks, 1);
        memset(picture, 0, sizeof *picture * blocks);
        asked.extra = picture;
        asked.extra_count = blocks + (count + size - 1) / size;
        CHECK_STATUS(kvstore_match(ns, &asked, 0, 0, &match), KVSTORE_OK);
        CHECK_EQ(match.blocks_matched, blocks);
        CHECK(match.lease != 0);
        CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
        front.extra = picture;
        front.extra_count = blocks;
        CHECK_STATUS(kvstore_match(ns, &front, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
    }
    close_store(store);
    free(tokens);
}

static void extra_bytes_bad_input(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    unsigned char bytes[300] = {0};
    kvstore_bytes_t extra[5];
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_match_t match = match_zero();
    memset(extra, 0, sizeof extra);
    prompt.extra = extra;
    prompt.extra_count = 4;
    extra[3].data = bytes;
    extra[3].length = 257; /* more than extra_bytes_max */
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    extra[3].length = SIZE_MAX;
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    extra[3].data = NULL;
    extra[3].length = 4;
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    extra[3].length = 0;
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_MISS);
    prompt.extra = NULL; /* entries announced, none there */
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    prompt.extra = extra;
    prompt.extra_count = 5; /* more entries than blocks: the caller's mistake, or without effect */
    CHECK_ONE_OF(kvstore_match(ns, &prompt, 0, 0, &match), 2, KVSTORE_MISS, KVSTORE_E_INVALID_ARGUMENT);
    prompt.extra_count = SIZE_MAX;
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
    close_store(store);
    free(tokens);
}

const test_case_t digest_cases[] = {
    {"digest_mode", digest_mode},
    {"digest_mode_bad_input", digest_mode_bad_input},
    {"extra_bytes_are_identity", extra_bytes_are_identity},
    {"extra_bytes_of_a_block_that_is_not_full", extra_bytes_of_a_block_that_is_not_full},
    {"extra_bytes_bad_input", extra_bytes_bad_input},
    {NULL, NULL},
};
