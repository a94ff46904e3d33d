/* A store with every feature in use: written, and looked at again by a later version of the library.
 *
 *   every_feature write FOLDER          makes FOLDER/store and FOLDER/archive
 *   every_feature check FOLDER [twice]  finds in it what was written; with `twice` what a check has left as well
 *
 * Compiled against the header of the version that wrote the store, so that it shows as well that a program of then runs
 * with the library of now. */
#include "harness.h"

#include <time.h>


#define YEARS_10 (UINT64_C(10) * 365 * 86400 * 1000000000)
#define SECONDS UINT64_C(1000000000)

/* ---------------------------------------------------------------- the store */

static kvstore_t *open_all(bool archive) {
    kvstore_config_t config;
    CHECK_STATUS(kvstore_config_init(&config, sizeof config), KVSTORE_OK);
    config.path = path_in_dir("store");
    config.capacity_bytes = 64 * MIB;
    config.host_bytes = 16 * MIB;
    if (archive) {
        config.archive_bytes = 128 * MIB;
        config.archive_path = path_in_dir("archive");
    }
    return open_store(&config);
}

static kvstore_namespace_t *open_with(kvstore_t *store, const shape_t *shape, const char *name, const char *salt, uint64_t quota,
                                      uint64_t ttl, uint32_t kind) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    namespace_config(shape, &config);
    config.model_name = name;
    config.kv_dtype = "fp16";
    config.salt.data = salt;
    config.salt.length = salt ? strlen(salt) : 0;
    config.quota_bytes = quota;
    config.ttl_nanoseconds = ttl;
    config.ttl_kind = kind;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    return ns;
}

/* Blocks with extra bytes: an image in the second one. */
static const kvstore_bytes_t with_image[] = {{NULL, 0}, {"sha256 of an image", 18}};

static kvstore_prompt_t prompt_with_image(const uint32_t *tokens, size_t count) {
    kvstore_prompt_t prompt = prompt_of(tokens, count);
    prompt.extra = with_image;
    prompt.extra_count = 2;
    return prompt;
}

static void offload_prompt_of(kvstore_namespace_t *ns, const shape_t *shape, const kvstore_prompt_t *prompt, uint64_t blocks,
                              uint64_t seed, uint64_t ttl, uint32_t kind, int priority) {
    pieces_t pieces = pieces_new(shape, 0, blocks, 0, shape->region_count);
    kvstore_transfer_t transfer;
    pieces_fill(&pieces, seed);
    transfer = transfer_of(&pieces);
    transfer.ttl_nanoseconds = ttl;
    transfer.ttl_kind = kind;
    if (priority >= 0) {
        transfer.flags = KVSTORE_TRANSFER_PRIORITY;
        transfer.priority = (uint32_t)priority;
    }
    CHECK_STATUS(kvstore_offload(ns, prompt, &transfer, NULL), KVSTORE_OK);
    pieces_free(&pieces);
}

static void restore_prompt_of(kvstore_namespace_t *ns, const shape_t *shape, const kvstore_prompt_t *prompt, uint64_t blocks,
                              uint64_t seed) {
    pieces_t pieces = pieces_new(shape, 0, blocks, 0, shape->region_count);
    kvstore_transfer_t transfer;
    pieces_clear(&pieces);
    transfer = transfer_of(&pieces);
    CHECK_STATUS(kvstore_restore(ns, prompt, &transfer, NULL), KVSTORE_OK);
    CHECK(pieces_match(&pieces, seed, blocks));
    pieces_free(&pieces);
}

static uint64_t peek(kvstore_namespace_t *ns, const kvstore_prompt_t *prompt) {
    kvstore_match_t match = match_zero();
    kvstore_status_t status = kvstore_match(ns, prompt, KVSTORE_MATCH_PEEK, 0, &match);
    CHECK_ONE_OF(status, 2, KVSTORE_OK, KVSTORE_MISS);
    return match.blocks_matched;
}


/* Large blocks whose bytes repeat, so that the fixture is small: byte i of a block is that of `flat_byte`. */
#define FLAT_BLOCKS 8

static unsigned char flat_byte(uint64_t seed, uint64_t block, size_t i) {
    return (unsigned char)(mix64(seed * FLAT_BLOCKS + block) >> (i / 512 % 7 * 8));
}

static kvstore_status_t move_flat(kvstore_namespace_t *ns, uint64_t seed, bool restores) {
    shape_t shape = shape_large();
    size_t bytes = (size_t)shape.region_bytes[0], b, i;
    uint32_t *tokens = make_tokens(seed, FLAT_BLOCKS * shape.tokens_per_block);
    kvstore_prompt_t prompt = prompt_of(tokens, FLAT_BLOCKS * shape.tokens_per_block);
    unsigned char *payload = (unsigned char *)must_malloc(FLAT_BLOCKS * bytes);
    kvstore_span_t spans[FLAT_BLOCKS];
    kvstore_transfer_t transfer;
    kvstore_status_t status;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.spans = spans;
    transfer.span_count = FLAT_BLOCKS;
    for (b = 0; b < FLAT_BLOCKS; b++) {
        spans[b].data = payload + b * bytes;
        spans[b].capacity = spans[b].length = bytes;
        for (i = 0; i < bytes; i++) payload[b * bytes + i] = restores ? 0 : flat_byte(seed, b, i);
    }
    status = restores ? kvstore_restore(ns, &prompt, &transfer, NULL) : kvstore_offload(ns, &prompt, &transfer, NULL);
    for (b = 0; b < FLAT_BLOCKS && status == KVSTORE_OK; b++)
        for (i = 0; i < bytes; i++) CHECK_EQ(payload[b * bytes + i], flat_byte(seed, b, i));
    free(payload);
    free(tokens);
    return status;
}

/* The recurrent state behind a prompt's first blocks. */
static void move_section(kvstore_namespace_t *section, const kvstore_prompt_t *prompt, uint64_t blocks, unsigned char *state,
                         size_t bytes, bool restores) {
    unsigned char digest[64];
    size_t byte_count = 0;
    kvstore_prompt_t place;
    kvstore_span_t span = {state, bytes, restores ? 0 : bytes};
    kvstore_transfer_t transfer;
    CHECK_STATUS(kvstore_section_digest(section, prompt, blocks, digest, sizeof digest, &byte_count), KVSTORE_OK);
    place = digest_prompt(digest, 1);
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.spans = &span;
    transfer.span_count = 1;
    if (restores)
        CHECK_STATUS(kvstore_restore(section, &place, &transfer, NULL), KVSTORE_OK);
    else
        CHECK_STATUS(kvstore_offload(section, &place, &transfer, NULL), KVSTORE_OK);
    CHECK_EQ(span.length, bytes);
}

static void fill_state(unsigned char *state, size_t bytes) {
    size_t i;
    for (i = 0; i < bytes; i++) state[i] = (unsigned char)(i * 7 + i / 256);
}

/* Layers with a window beside layers that look at everything. */
static kvstore_namespace_t *open_groups(kvstore_t *store, const shape_t *shape) {
    static const kvstore_group_t groups[2] = {{0, 6, 16, 0}, {6, 2, 0, 0}};
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    namespace_config(shape, &config);
    config.model_name = "groups";
    config.groups = groups;
    config.group_count = 2;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    return ns;
}

static kvstore_namespace_t *open_digests(kvstore_t *store, const shape_t *shape) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    namespace_config(shape, &config);
    config.model_name = "digests";
    config.identity_mode = KVSTORE_IDENTITY_DIGEST;
    config.digest_bytes = 32;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    return ns;
}

/* ---------------------------------------------------------------- write */

static void write_all(void) {
    shape_t mha = shape_mha(), gqa = shape_gqa(), fp8 = shape_fp8(), blob = shape_blob(), large = shape_large();
    unsigned char state[3000], digests[4 * 32];
    kvstore_t *store = open_all(true);
    kvstore_namespace_t *ns, *section = NULL;
    kvstore_session_t *session = NULL;
    kvstore_match_t match = match_zero();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    uint64_t pin = 0, seed;
    size_t i;

    ns = open_with(store, &mha, "plain", NULL, 0, 0, 0); /* a tree with a fork, pins, a session, a section */
    offload_seed(ns, &mha, 1, 10);
    vary_tokens(tokens, 96, 160, 77);
    offload_prompt_of(ns, &mha, &prompt, 10, 1, 0, 0, 90);
    CHECK_STATUS(kvstore_pin(ns, &prompt, KVSTORE_PIN_NANOSECONDS_MAX, &pin, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_section_open(ns, "recurrent", 4000, KVSTORE_KEEP, &section), KVSTORE_OK);
    fill_state(state, sizeof state);
    move_section(section, &prompt, 8, state, sizeof state, false);
    CHECK_STATUS(kvstore_session_begin(ns, "agent 7", &session, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_match(session, &prompt, 0, 0, &match), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_step(session, 160, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_session_end(session), KVSTORE_OK);
    CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    offload_seed(ns, &mha, 2, 4); /* forgotten, and purged: marks and tombstones */
    offload_seed(ns, &mha, 3, 4);
    CHECK_STATUS(kvstore_flush(store, 0, NULL), KVSTORE_OK);
    {
        uint32_t *gone = make_tokens(2, 64), *purged = make_tokens(3, 64);
        kvstore_prompt_t first = prompt_of(gone, 16), second = prompt_of(purged, 16);
        CHECK_STATUS(kvstore_forget(ns, &first, NULL), KVSTORE_OK);
        CHECK_STATUS(kvstore_purge(ns, &second, 0, NULL), KVSTORE_OK);
        free(gone);
        free(purged);
    }

    ns = open_with(store, &gqa, "inline", "a tenant's secret", 0, 0, 0); /* payload in the catalog */
    offload_seed(ns, &gqa, 4, 6);
    ns = open_with(store, &fp8, "odd", NULL, 0, 0, 0); /* regions of odd length */
    offload_seed(ns, &fp8, 5, 6);
    ns = open_with(store, &blob, "blob", NULL, 0, 0, 0); /* regions of variable length */
    offload_seed(ns, &blob, 6, 3);
    ns = open_groups(store, &mha);
    offload_seed(ns, &mha, 7, 6);
    ns = open_digests(store, &mha);
    for (i = 0; i < sizeof digests; i++) digests[i] = (unsigned char)(i * 31 + 5);
    prompt = digest_prompt(digests, 4);
    offload_prompt_of(ns, &mha, &prompt, 4, 8, 0, 0, -1);
    ns = open_with(store, &mha, "images", NULL, 0, 0, 0);
    free(tokens);
    tokens = make_tokens(9, 64);
    prompt = prompt_with_image(tokens, 64);
    offload_prompt_of(ns, &mha, &prompt, 4, 9, 0, 0, -1);
    free(tokens);

    ns = open_with(store, &mha, "ending", NULL, 0, YEARS_10, KVSTORE_TTL_IDLE); /* times to live */
    offload_seed(ns, &mha, 10, 4);
    tokens = make_tokens(11, 64);
    prompt = prompt_of(tokens, 64);
    offload_prompt_of(ns, &mha, &prompt, 4, 11, YEARS_10, KVSTORE_TTL_ABSOLUTE, -1);
    free(tokens);
    tokens = make_tokens(12, 64);
    prompt = prompt_of(tokens, 64);
    offload_prompt_of(ns, &mha, &prompt, 4, 12, SECONDS, KVSTORE_TTL_ABSOLUTE, -1);
    free(tokens);
    CHECK_STATUS(kvstore_flush(store, 0, NULL), KVSTORE_OK);

    ns = open_with(store, &large, "large", NULL, 24 * MIB, 0, 0); /* over its quota */
    for (seed = 100; seed < 120; seed++) {
        CHECK_STATUS(move_flat(ns, seed, false), KVSTORE_OK);
        CHECK_STATUS(kvstore_flush(store, 0, NULL), KVSTORE_OK);
    }
    CHECK_EQ(peek_seed(ns, &large, 119, 8), 8);
    ns = open_with(store, &large, "larger", NULL, 0, 0, 0); /* fills the disk, so that blocks go to the archive */
    for (seed = 200; seed < 208; seed++) {
        CHECK_STATUS(move_flat(ns, seed, false), KVSTORE_OK);
        CHECK_STATUS(kvstore_flush(store, 0, NULL), KVSTORE_OK);
    }
    EVENTUALLY(stats_of(store).slots_erase_pending == 0);
    CHECK(stats_of(store).blocks_demoted > 0);
    close_store(store);
}

/* ---------------------------------------------------------------- check */

static void check_all(bool twice) {
    shape_t mha = shape_mha(), gqa = shape_gqa(), fp8 = shape_fp8(), blob = shape_blob(), large = shape_large();
    unsigned char state[3000], expected[3000], digests[4 * 32];
    kvstore_t *store = open_all(true);
    kvstore_namespace_t *ns, *section = NULL;
    kvstore_match_t matches[2] = {match_zero(), match_zero()};
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_event_t event;
    uint64_t cursor = 0, seed, archived = 0;
    size_t count = 0, i;

    ns = open_with(store, &mha, "plain", NULL, KVSTORE_KEEP, KVSTORE_KEEP, 0);
    check_restore_seed(ns, &mha, 1, 10);
    vary_tokens(tokens, 96, 160, 77);
    restore_prompt_of(ns, &mha, &prompt, 10, 1);
    CHECK_STATUS(kvstore_section_open(ns, "recurrent", 4000, KVSTORE_KEEP, &section), KVSTORE_OK);
    CHECK_STATUS(kvstore_match_sections(ns, &section, 1, &prompt, KVSTORE_MATCH_PEEK, 0, matches), KVSTORE_OK);
    CHECK_EQ(matches[0].blocks_matched, 8);
    fill_state(expected, sizeof expected);
    move_section(section, &prompt, 8, state, sizeof state, true);
    CHECK(memcmp(state, expected, sizeof state) == 0);
    CHECK_EQ(peek_seed(ns, &mha, 2, 4), 0); /* forgotten */
    CHECK_EQ(peek_seed(ns, &mha, 3, 4), 0); /* purged */
    /* Fixtures are checked for years, and a pin lasts 90 days. */
    CHECK(stats_of(store).pins_active <= 1);

    ns = open_with(store, &gqa, "inline", "a tenant's secret", KVSTORE_KEEP, KVSTORE_KEEP, 0);
    check_restore_seed(ns, &gqa, 4, 6);
    ns = open_with(store, &gqa, "inline", "another's", KVSTORE_KEEP, KVSTORE_KEEP, 0);
    CHECK_EQ(peek_seed(ns, &gqa, 4, 6), 0);
    ns = open_with(store, &fp8, "odd", NULL, KVSTORE_KEEP, KVSTORE_KEEP, 0);
    check_restore_seed(ns, &fp8, 5, 6);
    ns = open_with(store, &blob, "blob", NULL, KVSTORE_KEEP, KVSTORE_KEEP, 0);
    check_restore_seed(ns, &blob, 6, 3);
    ns = open_groups(store, &mha);
    {
        uint32_t *all = make_tokens(7, 96);
        pieces_t pieces = pieces_new(&mha, 0, 6, 0, mha.region_count);
        kvstore_transfer_t transfer;
        kvstore_prompt_t six = prompt_of(all, 96);
        pieces_clear(&pieces);
        transfer = transfer_of(&pieces);
        transfer.flags = KVSTORE_TRANSFER_WHOLE;
        CHECK_STATUS(kvstore_restore(ns, &six, &transfer, NULL), KVSTORE_OK);
        CHECK(pieces_match(&pieces, 7, 6));
        pieces_free(&pieces);
        free(all);
    }
    ns = open_digests(store, &mha);
    for (i = 0; i < sizeof digests; i++) digests[i] = (unsigned char)(i * 31 + 5);
    prompt = digest_prompt(digests, 4);
    restore_prompt_of(ns, &mha, &prompt, 4, 8);
    ns = open_with(store, &mha, "images", NULL, KVSTORE_KEEP, KVSTORE_KEEP, 0);
    free(tokens);
    tokens = make_tokens(9, 64);
    prompt = prompt_with_image(tokens, 64);
    restore_prompt_of(ns, &mha, &prompt, 4, 9);
    prompt = prompt_of(tokens, 64);
    CHECK_EQ(peek(ns, &prompt), 1); /* another image, or none, is another block */
    free(tokens);

    ns = open_with(store, &mha, "ending", NULL, KVSTORE_KEEP, KVSTORE_KEEP, 0);
    if (time(NULL) < 2000000000) { /* the absolute ones end in 2036 */
        check_restore_seed(ns, &mha, 10, 4);
        check_restore_seed(ns, &mha, 11, 4);
    }
    CHECK_EQ(peek_seed(ns, &mha, 12, 4), 0); /* its second is over */

    ns = open_with(store, &large, "large", NULL, KVSTORE_KEEP, KVSTORE_KEEP, 0);
    CHECK_EQ(peek_seed(ns, &large, 100, 8), 0); /* over its quota */
    ns = open_with(store, &large, "larger", NULL, KVSTORE_KEEP, KVSTORE_KEEP, 0);
    for (seed = 200; seed < 208; seed++) {
        uint32_t *asked = make_tokens(seed, 128);
        kvstore_match_t match = match_zero();
        kvstore_prompt_t eight = prompt_of(asked, 128);
        CHECK_STATUS(kvstore_match(ns, &eight, KVSTORE_MATCH_PEEK, 0, &match), KVSTORE_OK);
        CHECK_EQ(match.blocks_matched, 8);
        archived += match.blocks_archive;
        CHECK_STATUS(move_flat(ns, seed, true), KVSTORE_OK);
        free(asked);
    }
    if (!twice) CHECK(archived > 0);
    CHECK_STATUS(kvstore_events_read(store, &cursor, &event, sizeof event, 1, &count), KVSTORE_OK);
    CHECK_EQ(count, 1);
    CHECK_EQ(stats_of(store).misses_corrupt, 0);

    /* And it goes on. */
    ns = open_with(store, &mha, "plain", NULL, KVSTORE_KEEP, KVSTORE_KEEP, 0);
    if (twice) check_restore_seed(ns, &mha, 50, 8);
    offload_seed(ns, &mha, 50, 8);
    flush_store(store);
    check_restore_seed(ns, &mha, 50, 8);
    close_store(store);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    test_dir = argv[2];
    if (strcmp(argv[1], "write") == 0)
        write_all();
    else
        check_all(argc > 3);
    return 0;
}

