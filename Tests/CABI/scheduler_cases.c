/* What a scheduler in front of several engines asks: what all ranks have, namespaces that are there, events. */
#include "harness.h"

#define BLOCKS 8
#define TOKENS (BLOCKS * 16)

static kvstore_namespace_t *open_rank(kvstore_t *store, const shape_t *shape, uint32_t rank) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    namespace_config(shape, &config);
    config.tensor_parallel_size = 3;
    config.tensor_parallel_rank = rank;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    return ns;
}

static void ranks_match_together(void) {
    shape_t shape = shape_mla(), other = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ranks[3], *odd;
    uint32_t *tokens = make_tokens(1, TOKENS);
    kvstore_prompt_t prompt = prompt_of(tokens, TOKENS);
    kvstore_match_t matches[3];
    uint32_t r, id = 0, id2 = 0;
    for (r = 0; r < 3; r++) {
        ranks[r] = open_rank(store, &shape, r);
        matches[r] = match_zero();
    }
    CHECK_STATUS(kvstore_namespace_id(ranks[0], &id), KVSTORE_OK);
    CHECK_STATUS(kvstore_namespace_id(ranks[1], &id2), KVSTORE_OK);
    CHECK(id != id2);
    CHECK_STATUS(kvstore_namespace_id(ranks[0], NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_namespace_id(NULL, &id), KVSTORE_E_BAD_HANDLE);

    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, 0, 0, matches), KVSTORE_MISS);
    offload_prompt(ranks[0], &shape, tokens, BLOCKS, 1);
    offload_prompt(ranks[1], &shape, tokens, BLOCKS - 3, 2);
    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, 0, 0, matches), KVSTORE_MISS); /* rank 2 has nothing */
    for (r = 0; r < 3; r++) CHECK_EQ(matches[r].lease, 0);
    CHECK_EQ(stats_of(store).leases_active, 0);
    offload_prompt(ranks[2], &shape, tokens, BLOCKS - 1, 3);
    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, KVSTORE_MATCH_PEEK, 0, matches), KVSTORE_OK);
    CHECK_EQ(stats_of(store).leases_active, 0);
    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, 0, 0, matches), KVSTORE_OK);
    CHECK_EQ(stats_of(store).leases_active, 3);
    for (r = 0; r < 3; r++) {
        CHECK_EQ(matches[r].blocks_matched, BLOCKS - 3);
        CHECK_EQ(matches[r].tokens_matched, (BLOCKS - 3) * 16);
        CHECK_STATUS(kvstore_lease_release(store, matches[r].lease), KVSTORE_OK);
    }
    CHECK_EQ(stats_of(store).leases_active, 0);

    CHECK_STATUS(kvstore_match_all(NULL, 3, &prompt, 0, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_all(ranks, 0, &prompt, 0, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_all(ranks, SIZE_MAX, &prompt, 0, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, 0, 0, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, 1u << 20, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    matches[1].struct_size = 48; /* of an older header than the others */
    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, 0, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    matches[1].struct_size = sizeof matches[1];
    for (r = 0; r < 3; r++) matches[r].struct_size = sizeof matches[r] + 8; /* where would the second one lie? */
    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, 0, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    for (r = 0; r < 3; r++) matches[r].struct_size = sizeof matches[r];
    other.tokens_per_block = 32;
    odd = open_namespace(store, &other);
    ranks[2] = odd;
    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, 0, 0, matches), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_namespace_close(odd), KVSTORE_OK);
    CHECK_STATUS(kvstore_match_all(ranks, 3, &prompt, 0, 0, matches), KVSTORE_E_BAD_HANDLE);
    close_store(store);
    free(tokens);
}

/* A scheduler looks up under salts that clients make up: nothing is written for them. */
static void only_existing_namespaces(void) {
    shape_t shape = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL, *made;
    uint32_t *tokens = make_tokens(1, TOKENS);
    uint64_t commits;
    namespace_config(&shape, &config);
    config.flags |= KVSTORE_NAMESPACE_EXISTING;
    commits = stats_of(store).catalog_commits;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_MISS);
    CHECK(ns == NULL);
    CHECK_EQ(stats_of(store).catalog_commits, commits);
    made = open_namespace(store, &shape);
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    offload_prompt(made, &shape, tokens, BLOCKS, 1);
    check_restore(ns, &shape, tokens, BLOCKS, 1); /* the flag is no part of the identity */
    config.flags |= 4;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    close_store(store);
    free(tokens);
}

static void events_tell_what_happened(void) {
    shape_t shape = shape_mla();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint32_t *tokens = make_tokens(1, TOKENS), id = 0;
    kvstore_prompt_t prompt = prompt_of(tokens, TOKENS - 16);
    kvstore_event_t events[16];
    uint64_t cursor = 0, far = UINT64_C(1) << 40, blocks = 0, before;
    size_t count = 99, i;
    CHECK_STATUS(kvstore_namespace_id(ns, &id), KVSTORE_OK);
    CHECK_STATUS(kvstore_events_read(store, &cursor, events, sizeof *events, 16, &count), KVSTORE_OK);
    CHECK_EQ(count, 0);
    offload_prompt(ns, &shape, tokens, BLOCKS, 1);
    flush_store(store);
    CHECK_STATUS(kvstore_events_read(store, &cursor, events, sizeof *events, 16, &count), KVSTORE_OK);
    for (i = 0; i < count; i++) {
        CHECK_EQ(events[i].kind, KVSTORE_EVENT_STORED);
        CHECK_EQ(events[i].namespace_id, id);
        CHECK(events[i].time_nanoseconds > 0 && events[i].run > 0 && events[i].owner > 0);
        blocks += events[i].block_count;
    }
    CHECK_EQ(blocks, BLOCKS);
    before = cursor;
    CHECK_STATUS(kvstore_events_read(store, &cursor, events, sizeof *events, 16, &count), KVSTORE_OK);
    CHECK_EQ(count, 0);
    CHECK_EQ(cursor, before);
    CHECK_STATUS(kvstore_forget(ns, &prompt, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 2);
    CHECK_STATUS(kvstore_events_read(store, &cursor, events, sizeof *events, 16, &count), KVSTORE_OK);
    CHECK_EQ(count, 1);
    CHECK_EQ(events[0].kind, KVSTORE_EVENT_REMOVED);
    CHECK_EQ(events[0].reason, KVSTORE_REASON_FORGOTTEN);
    CHECK_EQ(events[0].first_position, BLOCKS - 2);
    CHECK_EQ(events[0].block_count, 2);
    /* One at a time from the oldest. */
    cursor = 0;
    CHECK_STATUS(kvstore_events_read(store, &cursor, events, sizeof *events, 1, &count), KVSTORE_OK);
    CHECK_EQ(count, 1);
    CHECK_EQ(cursor, events[0].sequence);
    CHECK_STATUS(kvstore_events_read(store, &cursor, NULL, sizeof *events, 0, &count), KVSTORE_OK);
    CHECK_EQ(count, 0);
    /* A cursor of another store, or from the future: start over. */
    CHECK_STATUS(kvstore_events_read(store, &far, events, sizeof *events, 16, &count), KVSTORE_LAPPED);
    CHECK_EQ(count, 0);
    CHECK(far < UINT64_C(1) << 40);
    CHECK_STATUS(kvstore_events_read(store, &far, events, sizeof *events, 16, &count), KVSTORE_OK);

    CHECK_STATUS(kvstore_events_read(NULL, &cursor, events, sizeof *events, 16, &count), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_events_read(store, NULL, events, sizeof *events, 16, &count),
                 KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_events_read(store, &cursor, NULL, sizeof *events, 16, &count),
                 KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_events_read(store, &cursor, events, sizeof *events - 8, 16, &count),
                 KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_events_read(store, &cursor, events, sizeof *events, 16, NULL),
                 KVSTORE_E_INVALID_ARGUMENT);
    close_store(store);
    free(tokens);
}
const test_case_t scheduler_cases[] = {
    {"only_existing_namespaces", only_existing_namespaces},
    {"ranks_match_together", ranks_match_together},
    {"events_tell_what_happened", events_tell_what_happened},
    {NULL, NULL},
};
