/* Leases, touch, forget, and what eviction makes of them. */
#include "harness.h"

#define MILLISECOND UINT64_C(1000000)

static void lease_life(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_match_t first = match_zero(), second = match_zero();
    offload_prompt(ns, &shape, tokens, 4, 1);
    CHECK_EQ(stats_of(store).leases_active, 0);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &first), KVSTORE_OK);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, KVSTORE_LEASE_NANOSECONDS_MAX, &second), KVSTORE_OK);
    CHECK(first.lease != 0 && second.lease != 0 && first.lease != second.lease);
    CHECK_EQ(stats_of(store).leases_active, 2);
    CHECK_STATUS(kvstore_lease_extend(store, first.lease, 0), KVSTORE_OK);
    CHECK_STATUS(kvstore_lease_extend(store, first.lease, KVSTORE_LEASE_NANOSECONDS_MAX), KVSTORE_OK);
    CHECK_STATUS(kvstore_lease_release(store, first.lease), KVSTORE_OK);
    CHECK_EQ(stats_of(store).leases_active, 1);
    CHECK_STATUS(kvstore_lease_release(store, first.lease), KVSTORE_OK); /* it has ended: fine */
    CHECK_EQ(stats_of(store).leases_active, 1);                          /* and the other one is untouched */
    CHECK_STATUS(kvstore_lease_extend(store, first.lease, 0), KVSTORE_MISS);
    CHECK_STATUS(kvstore_lease_release(store, second.lease), KVSTORE_OK);
    CHECK_EQ(stats_of(store).leases_active, 0);
    /* What a miss answers is no lease: releasing it is no error. */
    CHECK_STATUS(kvstore_lease_release(store, 0), KVSTORE_OK);
    /* Ids that never were. */
    CHECK_STATUS(kvstore_lease_release(store, UINT64_MAX), KVSTORE_E_BAD_HANDLE);
    CHECK_ONE_OF(kvstore_lease_extend(store, UINT64_MAX, 0), 2, KVSTORE_MISS, KVSTORE_E_BAD_HANDLE);
    /* More than the maximum is refused or cut, never taken. */
    CHECK_ONE_OF(kvstore_match(ns, &prompt, 0, KVSTORE_LEASE_NANOSECONDS_MAX + 1, &first), 2, KVSTORE_OK,
                 KVSTORE_E_INVALID_ARGUMENT);
    close_store(store);
    free(tokens);
}

static void lease_ends_by_itself(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_match_t match = match_zero();
    offload_prompt(ns, &shape, tokens, 4, 1);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 50 * MILLISECOND, &match), KVSTORE_OK);
    sleep_milliseconds(120);
    CHECK_STATUS(kvstore_lease_extend(store, match.lease, 0), KVSTORE_MISS);
    CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    CHECK_EQ(stats_of(store).leases_active, 0);
    /* One that is extended outlives its first end. */
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 200 * MILLISECOND, &match), KVSTORE_OK);
    CHECK_STATUS(kvstore_lease_extend(store, match.lease, 60000 * MILLISECOND), KVSTORE_OK);
    sleep_milliseconds(300);
    CHECK_STATUS(kvstore_lease_extend(store, match.lease, 0), KVSTORE_OK);
    /* The leases of the process end with its last handle. */
    close_store(store);
    store = open_small(path_in_dir("store"));
    CHECK_EQ(stats_of(store).leases_active, 0);
    close_store(store);
    free(tokens);
}

static void many_leases(void) {
    shape_t shape = shape_gqa();
    uint32_t *tokens = make_tokens(1, 64 * 16);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    enum { count = 500 };
    uint64_t leases[count];
    int i, taken = 0;
    offload_prompt(ns, &shape, tokens, 64, 1);
    for (i = 0; i < count; i++) {
        kvstore_prompt_t prompt = prompt_of(tokens, (size_t)(1 + i % 64) * 16);
        kvstore_match_t match = match_zero();
        /* FULL: no lease is free, the match counts all the same. */
        kvstore_status_t status =
            CHECK_ONE_OF(kvstore_match(ns, &prompt, 0, 0, &match), 2, KVSTORE_OK, KVSTORE_FULL);
        CHECK_EQ(match.blocks_matched, 1 + i % 64);
        CHECK((status == KVSTORE_OK) == (match.lease != 0));
        if (status == KVSTORE_OK) leases[taken++] = match.lease;
    }
    CHECK(taken >= 64);
    CHECK_EQ(stats_of(store).leases_active, taken);
    for (i = 0; i < taken; i++) CHECK_STATUS(kvstore_lease_release(store, leases[i]), KVSTORE_OK);
    CHECK_EQ(stats_of(store).leases_active, 0);
    close_store(store);
    free(tokens);
}

/* A store of 64 MiB that holds a good hundred blocks of 256 KiB. */
static kvstore_t *open_tight(void) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    small_config(&config, path_in_dir("store"));
    config.capacity_bytes = 64 * MIB;
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    return store;
}

static void lease_keeps_from_eviction(void) {
    shape_t shape = shape_large();
    uint32_t *kept = make_tokens(1000, 64), *other = make_tokens(1001, 64);
    kvstore_prompt_t prompt = prompt_of(kept, 64);
    kvstore_t *store = open_tight();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_match_t match = match_zero();
    uint64_t p;
    offload_prompt(ns, &shape, kept, 4, 1);
    offload_prompt(ns, &shape, other, 4, 2);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, KVSTORE_LEASE_NANOSECONDS_MAX, &match), KVSTORE_OK);
    /* Make `other` the younger of the two: without the lease, `kept` would go first. */
    prompt = prompt_of(other, 64);
    CHECK_STATUS(kvstore_touch(ns, &prompt, NULL), KVSTORE_OK);
    for (p = 0; p < 120; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        offload_prompt(ns, &shape, tokens, 4, p);
        if (p % 8 == 7) flush_store(store);
        free(tokens);
    }
    flush_store(store);
    CHECK(stats_of(store).blocks_evicted > 0);
    CHECK_EQ(peek_blocks(ns, other, 64), 0); /* went long ago */
    check_restore(ns, &shape, kept, 4, 1);
    /* Released, it leaves like any other. */
    CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    for (p = 200; p < 320; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        offload_prompt(ns, &shape, tokens, 4, p);
        if (p % 8 == 7) flush_store(store);
        free(tokens);
    }
    flush_store(store);
    CHECK_EQ(peek_blocks(ns, kept, 64), 0);
    close_store(store);
    free(kept);
    free(other);
}

/* Everything leased: new blocks are refused or dropped and counted, nothing that is leased goes. */
static void full_of_leases(void) {
    enum { prompts = 120 };
    shape_t shape = shape_large();
    kvstore_t *store = open_tight();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t leased[prompts] = {0}, dropped = 0, p;
    bool refused = false;
    for (p = 0; p < prompts && !refused && dropped == 0; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        kvstore_prompt_t prompt = prompt_of(tokens, 64);
        kvstore_match_t match = match_zero();
        kvstore_flush_result_t flushed = flush_zero();
        kvstore_status_t status =
            CHECK_ONE_OF(offload_blocks(ns, &shape, tokens, 64, 0, 4, p, NULL), 3, KVSTORE_OK, KVSTORE_FULL,
                         KVSTORE_BUSY);
        refused = status != KVSTORE_OK;
        CHECK_STATUS(kvstore_flush(store, 0, &flushed), KVSTORE_OK);
        dropped += flushed.blocks_dropped_full;
        status = CHECK_ONE_OF(kvstore_match(ns, &prompt, 0, KVSTORE_LEASE_NANOSECONDS_MAX, &match), 2,
                              KVSTORE_OK, KVSTORE_MISS);
        leased[p] = match.blocks_matched;
        free(tokens);
    }
    CHECK(refused || dropped > 0); /* 120 MiB do not fit into 64 */
    CHECK(stats_of(store).disk_bytes_used <= 64 * MIB);
    for (p = 0; p < prompts; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        if (leased[p] > 0) check_restore(ns, &shape, tokens, leased[p], p);
        free(tokens);
    }
    close_store(store);
}

static void touch_keeps_longer(void) {
    shape_t shape = shape_large();
    uint32_t *kept = make_tokens(1000, 64), *other = make_tokens(1001, 64);
    kvstore_prompt_t prompt = prompt_of(kept, 64);
    kvstore_t *store = open_tight();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t p, blocks = 0;
    offload_prompt(ns, &shape, kept, 4, 1);
    offload_prompt(ns, &shape, other, 4, 2);
    flush_store(store);
    for (p = 0; p < 120; p++) {
        uint32_t *tokens = make_tokens(p, 64);
        CHECK_STATUS(kvstore_touch(ns, &prompt, &blocks), KVSTORE_OK);
        CHECK_EQ(blocks, 4);
        offload_prompt(ns, &shape, tokens, 4, p);
        if (p % 4 == 3) flush_store(store);
        free(tokens);
    }
    CHECK_EQ(peek_blocks(ns, other, 64), 0);
    CHECK_EQ(stats_of(store).leases_active, 0);
    check_restore(ns, &shape, kept, 4, 1);
    close_store(store);
    free(kept);
    free(other);
}

static void touch_counts(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160), *absent = make_tokens(2, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t blocks = 99;
    CHECK_STATUS(kvstore_touch(ns, &prompt, &blocks), KVSTORE_MISS);
    CHECK_EQ(blocks, 0);
    offload_prompt(ns, &shape, tokens, 7, 1);
    CHECK_STATUS(kvstore_touch(ns, &prompt, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 7);
    CHECK_STATUS(kvstore_touch(ns, &prompt, NULL), KVSTORE_OK);
    prompt.token_count = 32;
    CHECK_STATUS(kvstore_touch(ns, &prompt, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 2);
    prompt = prompt_of(absent, 160);
    CHECK_STATUS(kvstore_touch(ns, &prompt, NULL), KVSTORE_MISS);
    close_store(store);
    free(tokens);
    free(absent);
}

static void forget_a_prefix(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160), *branch = make_tokens(1, 160), *other = make_tokens(2, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 80);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t blocks = 99;
    vary_tokens(branch, 112, 160, 3); /* shares seven blocks */
    CHECK_STATUS(kvstore_forget(ns, &prompt, &blocks), KVSTORE_MISS);
    CHECK_EQ(blocks, 0);
    offload_prompt(ns, &shape, tokens, 10, 1);
    CHECK_STATUS(offload_blocks(ns, &shape, branch, 160, 7, 3, 3, NULL), KVSTORE_OK);
    offload_prompt(ns, &shape, other, 10, 2);
    /* Block 5 goes, and all below it: 6 to 10 and the branch's three. */
    CHECK_STATUS(kvstore_forget(ns, &prompt, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 6 + 3);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 4);
    CHECK_EQ(peek_blocks(ns, branch, 160), 4);
    CHECK_EQ(peek_blocks(ns, other, 160), 10);
    CHECK_STATUS(kvstore_forget(ns, &prompt, &blocks), KVSTORE_MISS); /* its last block is not there */
    CHECK_EQ(peek_blocks(ns, tokens, 160), 4);
    flush_store(store);
    CHECK_EQ(stats_of(store).blocks_stored, 14);
    CHECK_EQ(stats_of(store).blocks_forgotten, 9);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 4);
    CHECK_EQ(peek_blocks(ns, branch, 160), 4);
    check_restore(ns, &shape, other, 10, 2);
    /* It can be stored anew, with other bytes if the engine now computes others. */
    offload_prompt(ns, &shape, tokens, 10, 1);
    check_restore(ns, &shape, tokens, 10, 1);
    close_store(store);
    free(tokens);
    free(branch);
    free(other);
}

/* What a session has alone goes, what it shares stays. */
static void purge_a_sessions_tail(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160), *branch = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160), other = prompt_of(branch, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t blocks = 99;
    vary_tokens(branch, 112, 160, 3);
    CHECK_STATUS(kvstore_purge(ns, &prompt, 0, &blocks), KVSTORE_MISS);
    CHECK_STATUS(kvstore_purge(ns, &prompt, 2, &blocks), KVSTORE_E_INVALID_ARGUMENT);
    offload_prompt(ns, &shape, tokens, 10, 1);
    CHECK_STATUS(offload_blocks(ns, &shape, branch, 160, 7, 3, 3, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_purge(ns, &prompt, KVSTORE_PURGE_TAIL, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 3);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 7);
    CHECK_EQ(peek_blocks(ns, branch, 160), 10);
    CHECK_STATUS(kvstore_purge(ns, &prompt, KVSTORE_PURGE_TAIL, &blocks), KVSTORE_MISS);
    other.token_count = 48; /* the first three blocks, and all below them */
    CHECK_STATUS(kvstore_purge(ns, &other, 0, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 8);
    CHECK_EQ(peek_blocks(ns, branch, 160), 2);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_EQ(peek_blocks(ns, branch, 160), 2);
    close_store(store);
    free(tokens);
    free(branch);
}

static void forget_everything(void) {
    shape_t shape = shape_mha(), neighbour_shape = shape_gqa();
    uint32_t *tokens = make_tokens(1, 160), *other = make_tokens(2, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160), empty = prompt_of(NULL, 0), short_prompt;
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_namespace_t *neighbour = open_namespace(store, &neighbour_shape);
    kvstore_match_t match = match_zero();
    uint64_t blocks = 99;
    CHECK_STATUS(kvstore_forget(ns, &empty, &blocks), KVSTORE_MISS); /* nothing stored */
    CHECK_EQ(blocks, 0);
    offload_prompt(ns, &shape, tokens, 10, 1);
    offload_prompt(ns, &shape, other, 10, 2);
    offload_prompt(neighbour, &neighbour_shape, tokens, 10, 3);
    /* A prompt that fills no block is not the empty prompt. */
    short_prompt = prompt_of(tokens, 15);
    CHECK_ONE_OF(kvstore_forget(ns, &short_prompt, &blocks), 2, KVSTORE_MISS, KVSTORE_E_INVALID_ARGUMENT);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 10);
    CHECK_EQ(peek_blocks(ns, other, 160), 10);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK); /* leased blocks go too */
    CHECK_STATUS(kvstore_forget(ns, &empty, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 20);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 0);
    CHECK_EQ(peek_blocks(ns, other, 160), 0);
    CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
    check_restore(neighbour, &neighbour_shape, tokens, 10, 3);
    offload_prompt(ns, &shape, tokens, 3, 4); /* the namespace still works */
    check_restore(ns, &shape, tokens, 3, 4);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    neighbour = open_namespace(store, &neighbour_shape);
    check_restore(ns, &shape, tokens, 3, 4);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 3);
    CHECK_EQ(peek_blocks(ns, other, 160), 0);
    check_restore(neighbour, &neighbour_shape, tokens, 10, 3);
    close_store(store);
    free(tokens);
    free(other);
}

/* Waits until what was purged is overwritten; ten seconds are more than any disk takes for it. */
static void wait_until_erased(kvstore_t *store) {
    int i;
    for (i = 0; i < 1000 && stats_of(store).slots_erase_pending > 0; i++) sleep_milliseconds(10);
    CHECK_EQ(stats_of(store).slots_erase_pending, 0);
}

static void purge_a_namespace(void) {
    shape_t shape = shape_mha(), neighbour_shape = shape_gqa();
    uint32_t *tokens = make_tokens(1, 160), *branch = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_namespace_t *neighbour = open_namespace(store, &neighbour_shape);
    kvstore_match_t match = match_zero();
    uint64_t blocks = 99, used;
    vary_tokens(branch, 112, 160, 3);
    CHECK_STATUS(kvstore_namespace_purge(ns, &blocks), KVSTORE_MISS); /* nothing stored */
    CHECK_EQ(blocks, 0);
    offload_prompt(ns, &shape, tokens, 10, 1); /* not flushed: purge comes after it all the same */
    CHECK_STATUS(offload_blocks(ns, &shape, branch, 160, 7, 3, 3, NULL), KVSTORE_OK);
    offload_prompt(neighbour, &neighbour_shape, tokens, 10, 3);
    CHECK_STATUS(kvstore_match(ns, &prompt, 0, 0, &match), KVSTORE_OK); /* leased blocks go too */
    CHECK_STATUS(kvstore_namespace_purge(ns, &blocks), KVSTORE_OK);
    CHECK_EQ(blocks, 13);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 0);
    CHECK_EQ(peek_blocks(ns, branch, 160), 0);
    CHECK_EQ(stats_of(store).blocks_stored, 10);
    wait_until_erased(store);
    CHECK_EQ(stats_of(store).slots_erased, 13);
    used = stats_of(store).disk_bytes_used;
    check_restore(neighbour, &neighbour_shape, tokens, 10, 3);
    offload_prompt(ns, &shape, tokens, 10, 4); /* the namespace still works, in the same slots */
    check_restore(ns, &shape, tokens, 10, 4);
    flush_store(store);
    CHECK(stats_of(store).disk_bytes_used <= used + 64 * 1024); /* no new slot file; the catalog may have grown */
    CHECK_STATUS(kvstore_namespace_purge(neighbour, NULL), KVSTORE_OK); /* payloads in the catalog */
    CHECK_EQ(peek_blocks(neighbour, tokens, 160), 0);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    neighbour = open_namespace(store, &neighbour_shape);
    check_restore(ns, &shape, tokens, 10, 4);
    CHECK_EQ(peek_blocks(ns, branch, 160), 7);
    CHECK_EQ(peek_blocks(neighbour, tokens, 160), 0);
    close_store(store);
    free(tokens);
    free(branch);
}

/* Offload and forget at once, without a flush between: forget wins over what came before it. */
static void forget_what_is_not_durable_yet(void) {
    shape_t shape = shape_mla();
    int round;
    for (round = 0; round < 20; round++) {
        uint32_t *tokens = make_tokens((uint64_t)round, 160);
        kvstore_prompt_t prompt = prompt_of(tokens, 48);
        kvstore_t *store = open_small(path_in_dir("store"));
        kvstore_namespace_t *ns = open_namespace(store, &shape);
        uint64_t blocks = 0;
        offload_prompt(ns, &shape, tokens, 10, 1);
        if (round % 2 == 1) sleep_milliseconds((unsigned)round);
        CHECK_STATUS(kvstore_forget(ns, &prompt, &blocks), KVSTORE_OK);
        CHECK_EQ(blocks, 8);
        CHECK_EQ(peek_blocks(ns, tokens, 160), 2);
        close_store(store);
        store = open_small(path_in_dir("store"));
        ns = open_namespace(store, &shape);
        CHECK_EQ(peek_blocks(ns, tokens, 160), 2);
        check_restore(ns, &shape, tokens, 2, 1);
        close_store(store);
        free(tokens);
    }
}

static kvstore_namespace_t *open_with_ttl(kvstore_t *store, const shape_t *shape, uint64_t ttl, uint32_t kind) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns;
    namespace_config(shape, &config);
    CHECK_EQ(config.ttl_nanoseconds, KVSTORE_KEEP);
    config.ttl_nanoseconds = ttl;
    config.ttl_kind = kind;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    return ns;
}

static kvstore_status_t offload_with(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens,
                                     uint64_t blocks, uint64_t ttl, uint32_t kind, uint32_t priority) {
    kvstore_prompt_t prompt = prompt_of(tokens, (size_t)blocks * shape->tokens_per_block);
    pieces_t pieces = pieces_new(shape, 0, blocks, 0, 0);
    kvstore_transfer_t transfer;
    kvstore_status_t status;
    pieces_fill(&pieces, 1);
    transfer = transfer_of(&pieces);
    transfer.ttl_nanoseconds = ttl;
    transfer.ttl_kind = kind;
    transfer.priority = priority;
    transfer.flags = priority ? KVSTORE_TRANSFER_PRIORITY : 0;
    status = kvstore_offload(ns, &prompt, &transfer, NULL);
    pieces_free(&pieces);
    return status;
}

/* Lives end at their time, and not before; uses prolong the idle ones. */
static void lives_end(void) {
    shape_t shape = shape_gqa();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_with_ttl(store, &shape, 600 * MILLISECOND, KVSTORE_TTL_IDLE);
    uint32_t *idle = make_tokens(1, 64), *used = make_tokens(2, 64), *forever = make_tokens(3, 64),
             *absolute = make_tokens(4, 64);
    uint64_t start = now_nanoseconds();
    kvstore_prompt_t prompt = prompt_of(used, 64);
    CHECK_STATUS(offload_with(ns, &shape, idle, 4, 0, 0, 0), KVSTORE_OK);
    CHECK_STATUS(offload_with(ns, &shape, used, 4, 0, 0, 0), KVSTORE_OK);
    CHECK_STATUS(offload_with(ns, &shape, forever, 4, KVSTORE_TTL_UNLIMITED, KVSTORE_TTL_IDLE, 0), KVSTORE_OK);
    CHECK_STATUS(offload_with(ns, &shape, absolute, 4, 600 * MILLISECOND, KVSTORE_TTL_ABSOLUTE, 0), KVSTORE_OK);
    flush_store(store);
    if (now_nanoseconds() - start < 500 * MILLISECOND) { /* a busy machine may be slower */
        CHECK_EQ(peek_blocks(ns, idle, 64), 4);
        CHECK_EQ(peek_blocks(ns, absolute, 64), 4);
    }
    sleep_milliseconds(700);
    CHECK_EQ(peek_blocks(ns, idle, 64), 0);
    CHECK_EQ(peek_blocks(ns, absolute, 64), 0);
    CHECK_EQ(peek_blocks(ns, forever, 64), 4);
    CHECK_STATUS(kvstore_touch(ns, &prompt, NULL), KVSTORE_MISS);
    /* What is over leaves the disk by itself. */
    while (stats_of(store).blocks_stored > 4) sleep_milliseconds(50);
    CHECK_EQ(stats_of(store).blocks_expired, 12);
    close_store(store);
    free(idle), free(used), free(forever), free(absolute);
}

static void bad_lives_and_pins(void) {
    shape_t shape = shape_gqa();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_namespace_config_t config;
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    uint64_t pin = 7, blocks = 7;
    namespace_config(&shape, &config);
    config.ttl_nanoseconds = 5;
    config.ttl_kind = 2;
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_E_INVALID_ARGUMENT);
    ns = open_namespace(store, &shape);
    CHECK_STATUS(offload_with(ns, &shape, tokens, 4, 5, 2, 0), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(offload_with(ns, &shape, tokens, 4, 0, 0, 101), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_pin(ns, &prompt, 1000 * MILLISECOND, &pin, &blocks), KVSTORE_MISS);
    CHECK(pin == 0 && blocks == 0);
    offload_prompt(ns, &shape, tokens, 4, 1);
    CHECK_STATUS(kvstore_pin(ns, &prompt, 0, &pin, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_pin(ns, &prompt, KVSTORE_PIN_NANOSECONDS_MAX + 1, &pin, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_pin(ns, &prompt, 1, NULL, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_pin(NULL, &prompt, 1, &pin, NULL), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_unpin(store, 12345), KVSTORE_MISS);
    CHECK_STATUS(kvstore_unpin(NULL, 1), KVSTORE_E_BAD_HANDLE);
    close_store(store);
    free(tokens);
}

/* A pinned prefix outlives evictions, its idle life and the process's handle; without the pin it goes. */
static void pins_keep(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_with_ttl(store, &shape, 300 * MILLISECOND, KVSTORE_TTL_IDLE);
    uint32_t *tokens = make_tokens(1, (size_t)4 * shape.tokens_per_block);
    size_t count = (size_t)4 * shape.tokens_per_block;
    kvstore_prompt_t prompt = prompt_of(tokens, count);
    uint64_t pin = 0, blocks = 0;
    CHECK_STATUS(offload_with(ns, &shape, tokens, 4, 60000 * MILLISECOND, KVSTORE_TTL_IDLE, 0), KVSTORE_OK);
    CHECK_STATUS(kvstore_pin(ns, &prompt, 600000 * MILLISECOND, &pin, &blocks), KVSTORE_OK);
    CHECK(pin != 0 && blocks == 4);
    CHECK_EQ(stats_of(store).pins_active, 1);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    CHECK_EQ(stats_of(store).pins_active, 1);
    CHECK_EQ(peek_blocks(ns, tokens, count), 4);
    check_restore(ns, &shape, tokens, 4, 1);
    CHECK_STATUS(kvstore_unpin(store, pin), KVSTORE_OK);
    CHECK_STATUS(kvstore_unpin(store, pin), KVSTORE_MISS);
    CHECK_EQ(stats_of(store).pins_active, 0);
    close_store(store);
    free(tokens);
}

const test_case_t keep_cases[] = {
    {"lease_life", lease_life},
    {"lease_ends_by_itself", lease_ends_by_itself},
    {"many_leases", many_leases},
    {"lease_keeps_from_eviction", lease_keeps_from_eviction},
    {"full_of_leases", full_of_leases},
    {"touch_keeps_longer", touch_keeps_longer},
    {"touch_counts", touch_counts},
    {"forget_a_prefix", forget_a_prefix},
    {"forget_everything", forget_everything},
    {"purge_a_sessions_tail", purge_a_sessions_tail},
    {"purge_a_namespace", purge_a_namespace},
    {"forget_what_is_not_durable_yet", forget_what_is_not_durable_yet},
    {"lives_end", lives_end},
    {"bad_lives_and_pins", bad_lives_and_pins},
    {"pins_keep", pins_keep},
    {NULL, NULL},
};
