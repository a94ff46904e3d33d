/* Match, digest mode, extra bytes, statistics. */
#include "harness.h"

static void match_of_prefixes(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 170), *branch = make_tokens(1, 170);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    size_t at;
    offload_prompt(ns, &shape, tokens, 10, 1);
    for (at = 0; at <= 170; at += 5) /* every length, full blocks only */
        CHECK_EQ(peek_blocks(ns, tokens, at), at / 16 > 10 ? 10 : at / 16);
    for (at = 0; at < 160; at += 7) { /* one token differs: the match ends before its block */
        branch[at] ^= 1;
        CHECK_EQ(peek_blocks(ns, branch, 170), at / 16);
        branch[at] ^= 1;
    }
    /* A branch that is stored as well. */
    vary_tokens(branch, 100, 170, 2);
    CHECK_STATUS(offload_blocks(ns, &shape, branch, 160, 0, 10, 2, NULL), KVSTORE_OK);
    CHECK_EQ(peek_blocks(ns, branch, 170), 10);
    CHECK_EQ(peek_blocks(ns, tokens, 170), 10);
    branch[105] ^= 1;
    CHECK_EQ(peek_blocks(ns, branch, 170), 6);
    close_store(store);
    free(tokens);
    free(branch);
}

static void match_fills_the_struct(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_match_t match;
    memset(&match, 0xA5, sizeof match);
    match.struct_size = (uint32_t)sizeof match;
    match.reserved = 0;
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_MISS);
    CHECK_EQ(match.struct_size, sizeof match);
    CHECK_EQ(match.tokens_matched, 0); /* filled with zeros */
    CHECK_EQ(match.blocks_matched, 0);
    CHECK_EQ(match.blocks_host, 0);
    CHECK_EQ(match.blocks_disk, 0);
    CHECK_EQ(match.lease, 0);
    offload_prompt(ns, &shape, tokens, 7, 1);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 7);
    CHECK_EQ(match.tokens_matched, 7 * 16);
    CHECK_EQ(match.blocks_host + match.blocks_disk, 7);
    CHECK(match.lease != 0);
    CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    close_store(store);
    free(tokens);
}

static void match_leaves_one_token(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 81);
    kvstore_prompt_t prompt = prompt_of(tokens, 80);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_match_t match = match_zero();
    uint32_t flags = KVSTORE_MATCH_LEAVE_ONE_TOKEN | KVSTORE_MATCH_PEEK;
    offload_prompt(ns, &shape, tokens, 5, 1);
    CHECK_STATUS(kvstore_match(ns, &prompt, flags, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 4); /* all five would leave none */
    CHECK_EQ(match.tokens_matched, 64);
    prompt.token_count = 81;
    CHECK_STATUS(kvstore_match(ns, &prompt, flags, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 5);
    prompt.token_count = 79;
    CHECK_STATUS(kvstore_match(ns, &prompt, flags, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 4);
    prompt.token_count = 16;
    CHECK_STATUS(kvstore_match(ns, &prompt, flags, 0, &match), KVSTORE_MISS);
    CHECK_EQ(match.blocks_matched, 0);
    prompt.token_count = 80; /* and with a lease */
    CHECK_STATUS(kvstore_match(ns, &prompt, KVSTORE_MATCH_LEAVE_ONE_TOKEN, 0, &match), KVSTORE_OK);
    CHECK_EQ(match.blocks_matched, 4);
    CHECK(match.lease != 0);
    close_store(store);
    free(tokens);
}

static void peek_leaves_no_trace(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_stats_t before, after;
    int i;
    offload_prompt(ns, &shape, tokens, 10, 1);
    flush_store(store);
    before = stats_of(store);
    for (i = 0; i < 1000; i++) CHECK_EQ(peek_blocks(ns, tokens, 160), 10);
    after = stats_of(store);
    CHECK_EQ(after.match_calls, before.match_calls);
    CHECK_EQ(after.match_tokens_asked, before.match_tokens_asked);
    CHECK_EQ(after.match_tokens_found, before.match_tokens_found);
    CHECK_EQ(after.leases_active, 0);
    CHECK_EQ(after.catalog_commits, before.catalog_commits);
    close_store(store);
    free(tokens);
}

static void statistics_make_sense(void) {
    enum { blocks = 512 };
    shape_t shape = shape_gqa();
    size_t token_count = blocks * 16;
    uint32_t *tokens = make_tokens(1, token_count);
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    kvstore_match_t match = match_zero();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_stats_t start = stats_of(store), before, after;
    int i;
    CHECK_EQ(start.struct_size, sizeof start);
    CHECK_EQ(start.io_path, KVSTORE_IO_NONE);
    CHECK_EQ(start.disk_bytes_capacity, 256 * MIB);
    CHECK(start.disk_bytes_used <= start.disk_bytes_capacity);
    CHECK_EQ(start.catalog_bytes_capacity, 32 * MIB);
    CHECK(start.catalog_bytes_used <= start.catalog_bytes_capacity);
    CHECK_EQ(start.host_bytes_capacity, 16 * MIB);
    CHECK_EQ(start.blocks_stored, 0);
    CHECK_EQ(start.poisoned, 0);

    offload_prompt(ns, &shape, tokens, blocks, 1);
    flush_store(store);
    after = stats_of(store);
    CHECK_EQ(after.blocks_offloaded, blocks);
    CHECK_EQ(after.offloaded_bytes, blocks * 8 * 1024);
    CHECK_EQ(after.blocks_stored, blocks);
    CHECK_EQ(after.payload_bytes_stored, blocks * 8 * 1024);
    CHECK(after.hashes_computed > 0);
    CHECK(after.syncs > 0 && after.catalog_commits > 0);
    CHECK_EQ(after.disk_bytes_written, 0); /* payloads this small live in the catalog */
    CHECK(after.disk_bytes_used >= blocks * 8 * 1024 && after.disk_bytes_used <= after.disk_bytes_capacity);
    /* One chain without a fork is one node or a few, not one a block. */
    CHECK_EQ(after.index_blocks, blocks);
    CHECK(after.index_nodes >= 1 && after.index_nodes <= blocks / 16);
    CHECK(after.index_bytes > 0);

    /* A warm match computes no hash, and the counters count it. */
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    before = stats_of(store);
    for (i = 0; i < 100; i++) {
        CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
        CHECK_EQ(match.blocks_matched, blocks);
        CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    }
    after = stats_of(store);
    CHECK_EQ(after.hashes_computed, before.hashes_computed);
    CHECK_EQ(after.match_calls, before.match_calls + 100);
    CHECK_EQ(after.match_tokens_asked, before.match_tokens_asked + 100 * token_count);
    CHECK_EQ(after.match_tokens_found, before.match_tokens_found + 100 * token_count);
    CHECK_EQ(after.match_blocks_found, before.match_blocks_found + 100 * blocks);
    CHECK_EQ(after.disk_bytes_read, before.disk_bytes_read);

    before = after;
    check_restore(ns, &shape, tokens, blocks, 1);
    after = stats_of(store);
    CHECK_EQ(after.blocks_restored_host + after.blocks_restored_disk,
             before.blocks_restored_host + before.blocks_restored_disk + blocks);
    CHECK_EQ(after.restored_bytes, before.restored_bytes + blocks * 8 * 1024);
    CHECK_EQ(after.misses_corrupt + after.misses_stale + after.key_collisions, 0);
    CHECK_EQ(after.blocks_evicted + after.blocks_forgotten + after.blocks_quarantined, 0);
    CHECK_EQ(after.blocks_dropped_full + after.blocks_dropped_parent + after.blocks_dropped_error, 0);
    close_store(store);

    store = open_small(path_in_dir("store")); /* counters are of this open, sizes of the store */
    ns = open_namespace(store, &shape);
    after = stats_of(store);
    CHECK_EQ(after.blocks_offloaded, 0);
    CHECK_EQ(after.match_calls, 0);
    CHECK_EQ(after.blocks_stored, blocks);
    CHECK_EQ(after.payload_bytes_stored, blocks * 8 * 1024);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    before = stats_of(store);
    CHECK(before.index_blocks >= 1 && before.index_nodes <= blocks / 16);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK);
    CHECK_EQ(stats_of(store).hashes_computed, before.hashes_computed); /* warm since the first one */
    close_store(store);
    free(tokens);
}

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
    CHECK_STATUS(kvstore_match_keys(by_digest, digests, 4, 4, 0, &match), KVSTORE_E_INVALID_ARGUMENT);
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

static uint64_t usable_blocks(kvstore_namespace_t *ns, kvstore_namespace_t *section, const kvstore_prompt_t *prompt) {
    kvstore_match_t matches[2] = {match_zero(), match_zero()};
    kvstore_status_t status = kvstore_match_sections(ns, &section, 1, prompt, KVSTORE_MATCH_PEEK, 0, matches);
    CHECK_STATUS(status, matches[0].blocks_matched > 0 ? KVSTORE_OK : KVSTORE_MISS);
    CHECK_EQ(matches[1].blocks_matched, matches[0].blocks_matched > 0 ? 1 : 0);
    return matches[0].blocks_matched;
}

/* The section behind some blocks of a prompt, offloaded or restored as any block in digest mode is. */
static kvstore_status_t move_section(kvstore_namespace_t *section, const kvstore_prompt_t *prompt, uint64_t blocks, void *data,
                                     size_t *length, size_t capacity, int restores) {
    unsigned char digest[64];
    size_t byte_count = 0;
    kvstore_prompt_t place;
    kvstore_span_t span = {data, capacity, *length};
    kvstore_transfer_t transfer;
    kvstore_status_t status;
    CHECK_STATUS(kvstore_section_digest(section, prompt, blocks, digest, sizeof digest, &byte_count), KVSTORE_OK);
    CHECK_EQ(byte_count, 32);
    place = digest_prompt(digest, 1);
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.spans = &span;
    transfer.span_count = 1;
    status = restores ? kvstore_restore(section, &place, &transfer, NULL) : kvstore_offload(section, &place, &transfer, NULL);
    *length = span.length;
    return status;
}

static void sections_bound_what_is_usable(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 170);
    unsigned char state[3000], back[4000];
    size_t length = sizeof state, i;
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape), *section = NULL, *again = NULL;
    kvstore_prompt_t prompt = prompt_of(tokens, 170);
    kvstore_match_t matches[2] = {match_zero(), match_zero()};
    kvstore_stats_t stats;
    uint64_t purged = 0;
    for (i = 0; i < sizeof state; i++) state[i] = (unsigned char)(i * 7 + i / 256);
    CHECK_STATUS(kvstore_section_open(ns, "recurrent", 4000, KVSTORE_KEEP, &section), KVSTORE_OK);
    CHECK_EQ(usable_blocks(ns, section, &prompt), 0);
    offload_prompt(ns, &shape, tokens, 10, 1);
    CHECK_EQ(usable_blocks(ns, section, &prompt), 0);
    CHECK_STATUS(move_section(section, &prompt, 6, state, &length, sizeof state, 0), KVSTORE_OK);
    CHECK_EQ(usable_blocks(ns, section, &prompt), 6);
    flush_store(store);
    close_store(store);

    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_STATUS(kvstore_section_open(ns, "recurrent", 4000, KVSTORE_KEEP, &section), KVSTORE_OK);
    CHECK_STATUS(kvstore_match_sections(ns, &section, 1, &prompt, 0, 0, matches), KVSTORE_OK);
    CHECK_EQ(matches[0].blocks_matched, 6);
    CHECK_EQ(matches[0].tokens_matched, 96);
    CHECK_EQ(matches[1].blocks_matched, 1);
    CHECK(matches[0].lease != 0 && matches[1].lease != 0);
    length = 0;
    CHECK_STATUS(move_section(section, &prompt, 6, back, &length, sizeof back, 1), KVSTORE_OK);
    CHECK_EQ(length, sizeof state);
    CHECK(memcmp(back, state, sizeof state) == 0);
    CHECK_STATUS(kvstore_match_sections(ns, NULL, 0, &prompt, KVSTORE_MATCH_PEEK, 0, matches), KVSTORE_OK);
    CHECK_EQ(matches[0].blocks_matched, 10);

    /* Bad input. */
    CHECK_STATUS(kvstore_section_open(ns, NULL, 4000, KVSTORE_KEEP, &again), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_section_open(ns, "", 4000, KVSTORE_KEEP, &again), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_section_open(ns, "\xff", 4000, KVSTORE_KEEP, &again), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_section_open(ns, "x", 0, KVSTORE_KEEP, &again), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_section_open(ns, "x", UINT64_MAX, KVSTORE_KEEP, &again), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_section_open(section, "x", 4000, KVSTORE_KEEP, &again), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_section_open(ns, "x", 4000, KVSTORE_KEEP, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK(again == NULL);
    CHECK_STATUS(kvstore_section_digest(ns, &prompt, 0, back, sizeof back, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_section_digest(section, &prompt, 11, back, sizeof back, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_section_digest(section, &prompt, UINT64_MAX, back, sizeof back, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_section_digest(section, &prompt, 0, NULL, 0, &length), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK_EQ(length, 32);
    CHECK_STATUS(kvstore_section_digest(section, &prompt, 0, back, 31, NULL), KVSTORE_E_BUFFER_TOO_SMALL);
    again = ns;
    CHECK_STATUS(kvstore_match_sections(ns, &again, 1, &prompt, 0, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    again = NULL;
    CHECK_STATUS(kvstore_match_sections(ns, &again, 1, &prompt, 0, 0, matches), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_match_sections(ns, NULL, 1, &prompt, 0, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_sections(ns, &section, SIZE_MAX, &prompt, 0, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_sections(ns, &section, 1, &prompt, 0, 0, NULL), KVSTORE_E_INVALID_ARGUMENT);

    /* Leases do not hold back a purge, which takes the sections along. */
    CHECK_STATUS(kvstore_namespace_purge(ns, &purged), KVSTORE_OK);
    CHECK_EQ(purged, 11);
    length = 0;
    CHECK_STATUS(move_section(section, &prompt, 6, back, &length, sizeof back, 1), KVSTORE_MISS);
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    CHECK_STATUS(kvstore_stats(store, &stats), KVSTORE_OK);
    CHECK_EQ(stats.blocks_stored, 0);
    CHECK_STATUS(kvstore_namespace_close(section), KVSTORE_OK);
    close_store(store);
    free(tokens);
}

const test_case_t lookup_cases[] = {
    {"sections_bound_what_is_usable", sections_bound_what_is_usable},
    {"match_of_prefixes", match_of_prefixes},
    {"match_fills_the_struct", match_fills_the_struct},
    {"match_leaves_one_token", match_leaves_one_token},
    {"peek_leaves_no_trace", peek_leaves_no_trace},
    {"statistics_make_sense", statistics_make_sense},
    {"digest_mode", digest_mode},
    {"digest_mode_bad_input", digest_mode_bad_input},
    {"extra_bytes_are_identity", extra_bytes_are_identity},
    {"extra_bytes_bad_input", extra_bytes_bad_input},
    {NULL, NULL},
};
