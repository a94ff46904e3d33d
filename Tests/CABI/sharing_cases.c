/* Several processes on one store: what one does, the others see; and what happens while one of them hangs in the middle of something. */
#include "harness.h"
#include "pause.h"
#include "peer.h"

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>

#define BLOCKS PEER_BLOCKS

static kvstore_status_t offload(kvstore_namespace_t *ns, uint64_t seed) {
    shape_t shape = shape_large();
    size_t token_count = (size_t)BLOCKS * shape.tokens_per_block;
    uint32_t *tokens = make_tokens(seed, token_count);
    kvstore_transfer_result_t result = result_zero();
    kvstore_status_t status = offload_blocks(ns, &shape, tokens, token_count, 0, BLOCKS, seed, &result);
    free(tokens);
    return status;
}

static uint64_t peek(kvstore_namespace_t *ns, uint64_t seed) {
    shape_t shape = shape_large();
    return peek_seed(ns, &shape, seed, BLOCKS);
}

static void restore_all(kvstore_namespace_t *ns, uint64_t seed, uint64_t blocks) {
    shape_t shape = shape_large();
    check_restore_seed(ns, &shape, seed, blocks);
}

/* The first block, and with it all of the prompt. */
static uint64_t forget(kvstore_namespace_t *ns, uint64_t seed) {
    shape_t shape = shape_large();
    uint32_t *tokens = make_tokens(seed, shape.tokens_per_block);
    kvstore_prompt_t prompt = prompt_of(tokens, shape.tokens_per_block);
    uint64_t blocks = 0;
    CHECK_STATUS(kvstore_forget(ns, &prompt, &blocks), KVSTORE_OK);
    free(tokens);
    return blocks;
}

/* Offloads prompts 0, 1, 2 ... by way of the peer until it has to evict; returns how many. */
static uint64_t fill_by_peer(peer_t *peer) {
    uint64_t count = 0;
    while (peer_ask(peer, "evicted", 0) == 0) {
        CHECK_EQ(peer_ask(peer, "offload", count++), BLOCKS);
        CHECK_EQ(peer_ask(peer, "flush", 0), 0);
    }
    return count;
}

static void removals_are_seen_by_others(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_for_peers();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    peer_t peer = peer_start();
    uint64_t p;

    /* What one offloads, the other has; what one forgets, the other has no more. Neither opens the store again. */
    CHECK_STATUS(offload(ns, 1), KVSTORE_OK);
    flush_store(store);
    CHECK_EQ(peer_ask(&peer, "restore", 1), BLOCKS);
    CHECK_EQ(peer_ask(&peer, "indexed", 0), BLOCKS);
    CHECK_EQ(forget(ns, 1), BLOCKS);
    /* Its index loses the blocks without a look-up that could notice. */
    EVENTUALLY(peer_ask(&peer, "indexed", 0) == 0);
    CHECK_EQ(peer_ask(&peer, "peek", 1), 0);

    CHECK_EQ(peer_ask(&peer, "offload", 2), BLOCKS);
    CHECK_EQ(peer_ask(&peer, "flush", 0), 0);
    restore_all(ns, 2, BLOCKS);
    CHECK_EQ(stats_of(store).index_blocks, BLOCKS);
    CHECK_EQ(peer_ask(&peer, "forget", 2), 1); /* the last block */
    EVENTUALLY(stats_of(store).index_blocks == BLOCKS - 1);
    CHECK_EQ(peek(ns, 2), BLOCKS - 1);

    /* Evictions: the other fills the store. */
    for (p = 100; p < 140; p++) CHECK_EQ(peer_ask(&peer, "offload", p), BLOCKS);
    CHECK_EQ(peer_ask(&peer, "flush", 0), 0);
    CHECK(peer_ask(&peer, "evicted", 0) > 0);
    EVENTUALLY(stats_of(store).index_blocks == 0);
    CHECK_EQ(peek(ns, 2), 0);
    CHECK_EQ(stats_of(store).misses_stale + stats_of(store).misses_corrupt, 0);

    peer_end(&peer);
    close_store(store);
}

/* The peer is stopped while more happens than the ring of events holds: it forgets what it knows, and finds all of it again. */
static void a_lapped_peer_starts_over(void) {
    enum { more_than_the_ring = 66000 };
    shape_t shape = shape_large(), small = shape_gqa();
    kvstore_t *store = open_for_peers();
    kvstore_namespace_t *ns = open_namespace(store, &shape), *storm = open_namespace(store, &small);
    peer_t peer = peer_start();
    uint64_t prompt;
    int status;

    CHECK_STATUS(offload(ns, 1), KVSTORE_OK);
    CHECK_STATUS(offload(ns, 2), KVSTORE_OK);
    flush_store(store);
    CHECK_EQ(peer_ask(&peer, "restore", 1), BLOCKS);
    CHECK_EQ(peer_ask(&peer, "restore", 2), BLOCKS);
    CHECK(peer_ask(&peer, "events", 0) > 0);
    CHECK(kill((pid_t)peer.pid, SIGSTOP) == 0);
    CHECK(waitpid((pid_t)peer.pid, &status, WUNTRACED) == (pid_t)peer.pid && WIFSTOPPED(status));

    CHECK_EQ(forget(ns, 1), BLOCKS);
    for (prompt = 0; prompt < more_than_the_ring; prompt++) {
        uint32_t *tokens = make_tokens(1000 + prompt, 16);
        kvstore_transfer_result_t result = result_zero();
        CHECK_STATUS(offload_blocks(storm, &small, tokens, 16, 0, 1, 1, &result), KVSTORE_OK);
        free(tokens);
        if (prompt % 2048 == 0) flush_store(store);
    }
    CHECK_STATUS(offload(ns, 3), KVSTORE_OK);
    flush_store(store);

    CHECK(kill((pid_t)peer.pid, SIGCONT) == 0);
    EVENTUALLY(peer_ask(&peer, "indexed", 0) == 0);
    CHECK(peer_ask(&peer, "events", 0) >= UINT64_C(1) << 32);
    CHECK_EQ(peer_ask(&peer, "peek", 1), 0);
    CHECK_EQ(peer_ask(&peer, "restore", 3), BLOCKS);
    /* From here on it follows again. */
    CHECK_EQ(forget(ns, 3), BLOCKS);
    EVENTUALLY(peer_ask(&peer, "indexed", 0) == 0);
    CHECK(peer_ask(&peer, "events", 0) < UINT64_C(1) << 32);

    peer_end(&peer);
    close_store(store);
}

/* The peer's read of a slot is held between look-up and read, while the slot is evicted and written anew. */
static void stale_is_not_corrupt(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_for_peers();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    peer_t peer;
    uint64_t p;
    CHECK_STATUS(offload(ns, 1), KVSTORE_OK);
    flush_store(store);
    peer = peer_start();
    CHECK_EQ(peer_ask(&peer, "peek", 1), BLOCKS);
    pause_order(test_dir, PAUSE_READ);
    peer_order(&peer, "restore", 1);
    pause_wait(test_dir, PAUSE_READ);
    for (p = 100; p < 140; p++) {
        CHECK_STATUS(offload(ns, p), KVSTORE_OK);
        flush_store(store);
    }
    CHECK_EQ(peek(ns, 1), 0);
    pause_end(test_dir, PAUSE_READ);
    CHECK_EQ(peer_answer(&peer), 0); /* a miss, never another prompt's bytes */
    CHECK(peer_ask(&peer, "stale", 0) > 0);
    CHECK_EQ(peer_ask(&peer, "corrupt", 0), 0);
    CHECK_EQ(stats_of(store).blocks_quarantined, 0);
    CHECK_EQ(peer_ask(&peer, "restore", 139), BLOCKS);
    peer_end(&peer);
    close_store(store);
}

/* The peer is stopped in the middle of a commit, with the catalog's write lock held. */
static void a_stopped_writer_stops_nobody_else(void) {
    shape_t shape = shape_large(), other = shape_mla();
    kvstore_config_t config;
    kvstore_t *store, *again;
    kvstore_namespace_t *ns, *unknown = NULL;
    kvstore_namespace_config_t unknown_config;
    kvstore_status_t status = KVSTORE_OK;
    peer_t peer;
    size_t token_count = (size_t)BLOCKS * shape.tokens_per_block;
    uint32_t *one = make_tokens(1, token_count);
    kvstore_prompt_t prompt = prompt_of(one, token_count);
    uint64_t p, taken = 0;
    pid_t third;
    config_for_peers(&config);
    config.offload_timeout_nanoseconds = UINT64_C(300000000);
    config.wait_timeout_nanoseconds = UINT64_C(1000000000);
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    CHECK_STATUS(offload(ns, 1), KVSTORE_OK);
    flush_store(store);
    peer = peer_start();
    CHECK_EQ(peer_ask(&peer, "peek", 1), BLOCKS);
    pause_order(test_dir, PAUSE_COMMIT);
    peer_order(&peer, "offload", 50);
    pause_wait(test_dir, PAUSE_COMMIT);
    CHECK(kill((pid_t)peer.pid, SIGSTOP) == 0);

    /* Offloads are taken as long as the arena has room, then they are BUSY at their deadline. */
    for (p = 2; p < 20; p++) {
        status = offload(ns, p);
        if (status != KVSTORE_OK) break;
        taken = p;
    }
    CHECK_EQ(status, KVSTORE_BUSY);
    CHECK(taken >= 2);
    /* Look-ups and restores go on: of what is durable, and of what is on its way. */
    CHECK_EQ(peek(ns, 1), BLOCKS);
    restore_all(ns, 1, BLOCKS);
    restore_all(ns, 2, BLOCKS);
    CHECK_STATUS(kvstore_flush(store, UINT64_C(200000000), NULL), KVSTORE_BUSY);
    CHECK_STATUS(kvstore_forget(ns, &prompt, NULL), KVSTORE_BUSY);
    namespace_config(&other, &unknown_config);
    CHECK_STATUS(kvstore_namespace_open(store, &unknown_config, &unknown), KVSTORE_BUSY);
    CHECK(unknown == NULL);
    /* A process that opens now gives up as well. */
    third = fork();
    CHECK(third >= 0);
    if (third == 0) {
        kvstore_t *mine = NULL;
        _exit(kvstore_open(&config, &mine) == KVSTORE_E_LOCKED && mine == NULL ? 0 : 1);
    }
    CHECK_EQ(wait_for((int)third), 0);
    CHECK_STATUS(kvstore_close(store), KVSTORE_BUSY);
    CHECK_STATUS(kvstore_flush(store, 0, NULL), KVSTORE_E_BAD_HANDLE); /* closed all the same */
    /* A new open shares what is being written. */
    again = open_store(&config);
    CHECK_STATUS(kvstore_flush(again, UINT64_C(200000000), NULL), KVSTORE_BUSY);

    /* It goes on: what was taken is written, in the background. */
    pause_end(test_dir, PAUSE_COMMIT);
    CHECK(kill((pid_t)peer.pid, SIGCONT) == 0);
    CHECK_EQ(peer_answer(&peer), BLOCKS);
    flush_store(again);
    ns = open_namespace(again, &shape);
    for (p = 2; p <= taken; p++) restore_all(ns, p, BLOCKS);
    CHECK_EQ(stats_of(again).misses_corrupt, 0);
    peer_end(&peer);
    close_store(again);
    free(one);
}

/* The peer is held in the commit of an eviction. A lease that is taken on a victim meanwhile is refused, or honoured. */
static void leases_hold_against_evictors_elsewhere(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_for_peers();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    peer_t peer = peer_start();
    size_t token_count = (size_t)BLOCKS * shape.tokens_per_block;
    uint64_t oldest = 0, newest = fill_by_peer(&peer), round, refused = 0, leased = 0;
    for (round = 0; round < 12; round++) {
        uint32_t *tokens;
        kvstore_prompt_t prompt;
        kvstore_match_t match = match_zero();
        while (peek(ns, oldest) == 0) oldest++;
        /* In every other round it is in the index here already. */
        tokens = make_tokens(oldest, token_count);
        prompt = prompt_of(tokens, token_count);
        pause_order(test_dir, PAUSE_COMMIT);
        peer_order(&peer, "offload", newest++);
        pause_wait(test_dir, PAUSE_COMMIT);
        CHECK_ONE_OF(kvstore_match(ns, &prompt, 0, 0, &match), 2, KVSTORE_OK, KVSTORE_MISS);
        if (match.blocks_matched < BLOCKS) refused++;
        pause_end(test_dir, PAUSE_COMMIT);
        CHECK_EQ(peer_answer(&peer), BLOCKS);
        CHECK_EQ(peer_ask(&peer, "flush", 0), 0);
        /* More than the store holds goes through it; what is leased stays. */
        CHECK_EQ(peer_ask(&peer, "offload", newest++), BLOCKS);
        CHECK_EQ(peer_ask(&peer, "flush", 0), 0);
        if (match.lease != 0) {
            leased++;
            restore_all(ns, oldest, match.blocks_matched);
            CHECK_STATUS(kvstore_lease_release(store, match.lease), KVSTORE_OK);
        }
        free(tokens);
    }
    CHECK(refused > 0); /* the commit that was held was an eviction's, at least once */
    printf("      %" PRIu64 " rounds: %" PRIu64 " prefixes were shortened, %" PRIu64 " leases held\n", round,
           refused, leased);
    CHECK_EQ(stats_of(store).misses_corrupt, 0);
    peer_end(&peer);
    close_store(store);
}

/* An evictor is killed with its victims announced: they are not hidden for good. */
static void a_dead_evictor_hides_nothing(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_for_peers();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    peer_t peer = peer_start();
    uint64_t newest = fill_by_peer(&peer), oldest = 0;
    while (peek(ns, oldest) == 0) oldest++;
    pause_order(test_dir, PAUSE_COMMIT);
    peer_order(&peer, "offload", newest++);
    pause_wait(test_dir, PAUSE_COMMIT);
    kill_child(peer.pid);
    pause_end(test_dir, PAUSE_COMMIT);
    /* Its transaction died with it. */
    restore_all(ns, oldest, peek(ns, oldest));
    CHECK(peek(ns, oldest) > 0);
    CHECK_STATUS(offload(ns, newest), KVSTORE_OK);
    flush_store(store);
    restore_all(ns, newest, BLOCKS);
    close_store(store);
}
const test_case_t sharing_cases[] = {
    {"removals_are_seen_by_others", removals_are_seen_by_others},
    {"a_lapped_peer_starts_over", a_lapped_peer_starts_over},
    {"stale_is_not_corrupt", stale_is_not_corrupt},
    {"a_stopped_writer_stops_nobody_else", a_stopped_writer_stops_nobody_else},
    {"leases_hold_against_evictors_elsewhere", leases_hold_against_evictors_elsewhere},
    {"a_dead_evictor_hides_nothing", a_dead_evictor_hides_nothing},
    {NULL, NULL},
};
