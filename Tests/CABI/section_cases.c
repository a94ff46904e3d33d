/* Side sections: a prefix is usable where all that is asked for is stored. */
#include "harness.h"

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
    CHECK_EQ(stats_of(store).blocks_stored, 0);
    CHECK_STATUS(kvstore_namespace_close(section), KVSTORE_OK);
    close_store(store);
    free(tokens);
}

const test_case_t section_cases[] = {
    {"sections_bound_what_is_usable", sections_bound_what_is_usable},
    {NULL, NULL},
};
