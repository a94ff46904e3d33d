/* Several processes on one store: what one does, the others see; and what happens while one of them hangs in the middle of something. */
#include "harness.h"
#include "pause.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>

#define BLOCKS 8
#define TOKENS (BLOCKS * 16)

/* ---------------------------------------------------------------- a peer: another process that does as it is told */

typedef struct {
    int pid;
    FILE *orders, *answers;
} peer_t;

static void config_for_peers(kvstore_config_t *config) {
    CHECK_STATUS(kvstore_config_init(config, sizeof *config), KVSTORE_OK);
    config->path = path_in_dir("store");
    config->capacity_bytes = 64 * MIB;
    config->host_bytes = 8 * MIB;
}

static kvstore_t *open_for_peers(void) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    config_for_peers(&config);
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    return store;
}

/* Orders: "VERB NUMBER", a line each; the answer is one number, a line each. Prompts are named by their seed. */
static int role_peer(int argc, char **argv) {
    shape_t shape = shape_large();
    FILE *orders = fopen(argv[0], "r");
    kvstore_t *store = open_for_peers();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    char verb[32];
    uint64_t number, cursor = 0;
    (void)argc;
    if (orders == NULL) return 1;
    pause_in(test_dir);
    while (fscanf(orders, "%31s %" SCNu64, verb, &number) == 2) {
        uint32_t *tokens = make_tokens(number, TOKENS);
        kvstore_prompt_t prompt = prompt_of(tokens, TOKENS);
        uint64_t answer = 0;
        if (strcmp(verb, "offload") == 0) {
            kvstore_transfer_result_t result = result_zero();
            (void)offload_blocks(ns, &shape, tokens, TOKENS, 0, BLOCKS, number, &result);
            answer = result.blocks_done;
        } else if (strcmp(verb, "flush") == 0) {
            flush_store(store);
        } else if (strcmp(verb, "forget") == 0) {
            CHECK_ONE_OF(kvstore_forget(ns, &prompt, &answer), 2, KVSTORE_OK, KVSTORE_MISS);
        } else if (strcmp(verb, "peek") == 0) {
            answer = peek_blocks(ns, tokens, TOKENS);
        } else if (strcmp(verb, "restore") == 0) {
            /* All that is there, every byte compared. */
            pieces_t pieces = pieces_new(&shape, 0, BLOCKS, 0, 0);
            kvstore_transfer_t transfer = transfer_of(&pieces);
            kvstore_transfer_result_t result = result_zero();
            pieces_clear(&pieces);
            CHECK_ONE_OF(kvstore_restore(ns, &prompt, &transfer, &result), 2, KVSTORE_OK, KVSTORE_MISS);
            CHECK(pieces_match(&pieces, number, result.blocks_done));
            pieces_free(&pieces);
            answer = result.blocks_done;
        } else if (strcmp(verb, "stale") == 0) {
            answer = stats_of(store).misses_stale;
        } else if (strcmp(verb, "corrupt") == 0) {
            answer = stats_of(store).misses_corrupt + stats_of(store).blocks_quarantined;
        } else if (strcmp(verb, "indexed") == 0) {
            answer = stats_of(store).index_blocks;
        } else if (strcmp(verb, "evicted") == 0) {
            answer = stats_of(store).blocks_evicted;
        } else if (strcmp(verb, "events") == 0) {
            /* All since the last time, or 2^32 where they have been overwritten. */
            kvstore_event_t events[64];
            size_t count = 0;
            kvstore_status_t status;
            do {
                status = kvstore_events_read(store, &cursor, events, sizeof *events, 64, &count);
                CHECK_ONE_OF(status, 2, KVSTORE_OK, KVSTORE_LAPPED);
                answer += status == KVSTORE_LAPPED ? UINT64_C(1) << 32 : count;
            } while (status == KVSTORE_OK && count == 64);
        } else {
            return 1;
        }
        free(tokens);
        printf("%" PRIu64 "\n", answer);
        fflush(stdout);
    }
    close_store(store);
    return 0;
}

static peer_t peer_start(const char *fifo_name) {
    peer_t peer;
    int out;
    char *fifo = path_in_dir(fifo_name);
    CHECK(mkfifo(fifo, 0600) == 0);
    peer.pid = spawn_role("peer", fifo, NULL, &out);
    peer.orders = fopen(fifo, "w");
    peer.answers = fdopen(out, "r");
    CHECK(peer.orders != NULL && peer.answers != NULL);
    return peer;
}

static void peer_order(peer_t *peer, const char *verb, uint64_t number) {
    fprintf(peer->orders, "%s %" PRIu64 "\n", verb, number);
    fflush(peer->orders);
}

static uint64_t peer_answer(peer_t *peer) {
    char line[64] = "";
    CHECK(fgets(line, sizeof line, peer->answers) != NULL);
    return (uint64_t)strtoull(line, NULL, 10);
}

static uint64_t peer_ask(peer_t *peer, const char *verb, uint64_t number) {
    peer_order(peer, verb, number);
    return peer_answer(peer);
}

static void peer_end(peer_t *peer) {
    fclose(peer->orders);
    CHECK_EQ(wait_for(peer->pid), 0);
    fclose(peer->answers);
}

/* ---------------------------------------------------------------- here */

static uint64_t peek(kvstore_namespace_t *ns, uint64_t seed) {
    uint32_t *tokens = make_tokens(seed, TOKENS);
    uint64_t blocks = peek_blocks(ns, tokens, TOKENS);
    free(tokens);
    return blocks;
}

static kvstore_status_t offload(kvstore_namespace_t *ns, uint64_t seed) {
    shape_t shape = shape_large();
    uint32_t *tokens = make_tokens(seed, TOKENS);
    kvstore_transfer_result_t result = result_zero();
    kvstore_status_t status = offload_blocks(ns, &shape, tokens, TOKENS, 0, BLOCKS, seed, &result);
    free(tokens);
    return status;
}

static void restore_all(kvstore_namespace_t *ns, uint64_t seed, uint64_t blocks) {
    shape_t shape = shape_large();
    uint32_t *tokens = make_tokens(seed, TOKENS);
    check_restore(ns, &shape, tokens, blocks, seed);
    free(tokens);
}

static uint64_t forget(kvstore_namespace_t *ns, uint64_t seed) {
    uint32_t *tokens = make_tokens(seed, TOKENS);
    kvstore_prompt_t prompt = prompt_of(tokens, 16);
    uint64_t blocks = 0;
    CHECK_STATUS(kvstore_forget(ns, &prompt, &blocks), KVSTORE_OK);
    free(tokens);
    return blocks;
}

/* Waits until `condition` holds: 50 ms are promised, the load of a test machine gets its share. */
#define EVENTUALLY(condition)                                                                            \
    do {                                                                                                 \
        uint64_t end_ = now_nanoseconds() + UINT64_C(5000000000);                                        \
        while (!(condition) && now_nanoseconds() < end_) sleep_milliseconds(5);                          \
        CHECK(condition);                                                                                \
    } while (0)

static void removals_are_seen_by_others(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_for_peers();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    peer_t peer = peer_start("orders");
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
    peer_t peer = peer_start("orders");
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
    peer = peer_start("orders");
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
    kvstore_t *store = NULL, *again = NULL;
    kvstore_namespace_t *ns, *unknown = NULL;
    kvstore_namespace_config_t unknown_config;
    kvstore_status_t status = KVSTORE_OK;
    peer_t peer;
    uint32_t *one = make_tokens(1, TOKENS);
    kvstore_prompt_t prompt = prompt_of(one, TOKENS);
    uint64_t p, taken = 0;
    pid_t third;
    config_for_peers(&config);
    config.offload_timeout_nanoseconds = UINT64_C(300000000);
    config.wait_timeout_nanoseconds = UINT64_C(1000000000);
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    ns = open_namespace(store, &shape);
    CHECK_STATUS(offload(ns, 1), KVSTORE_OK);
    flush_store(store);
    peer = peer_start("orders");
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
    CHECK_STATUS(kvstore_open(&config, &again), KVSTORE_OK);
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
    peer_t peer = peer_start("orders");
    uint64_t oldest = 0, newest = 0, round, refused = 0;
    uint64_t leased = 0;
    while (peer_ask(&peer, "evicted", 0) == 0) {
        CHECK_EQ(peer_ask(&peer, "offload", newest++), BLOCKS);
        CHECK_EQ(peer_ask(&peer, "flush", 0), 0);
    }
    for (round = 0; round < 12; round++) {
        uint32_t *tokens;
        kvstore_prompt_t prompt;
        kvstore_match_t match = match_zero();
        while (peek(ns, oldest) == 0) oldest++;
        /* In every other round it is in the index here already. */
        tokens = make_tokens(oldest, TOKENS);
        prompt = prompt_of(tokens, TOKENS);
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
    peer_t peer = peer_start("orders");
    uint64_t newest = 0, oldest = 0;
    while (peer_ask(&peer, "evicted", 0) == 0) {
        CHECK_EQ(peer_ask(&peer, "offload", newest++), BLOCKS);
        CHECK_EQ(peer_ask(&peer, "flush", 0), 0);
    }
    while (peek(ns, oldest) == 0) oldest++;
    pause_order(test_dir, PAUSE_COMMIT);
    peer_order(&peer, "offload", newest++);
    pause_wait(test_dir, PAUSE_COMMIT);
    CHECK(kill((pid_t)peer.pid, SIGKILL) == 0);
    CHECK_EQ(wait_for(peer.pid), 128 + SIGKILL);
    pause_end(test_dir, PAUSE_COMMIT);
    /* Its transaction died with it. */
    restore_all(ns, oldest, peek(ns, oldest));
    CHECK(peek(ns, oldest) > 0);
    CHECK_STATUS(offload(ns, newest), KVSTORE_OK);
    flush_store(store);
    restore_all(ns, newest, BLOCKS);
    close_store(store);
}

/* ---------------------------------------------------------------- ranks */

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

/* ---------------------------------------------------------------- events */

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

const child_role_t sharing_roles[] = {
    {"peer", role_peer},
    {NULL, NULL},
};

const test_case_t sharing_cases[] = {
    {"removals_are_seen_by_others", removals_are_seen_by_others},
    {"a_lapped_peer_starts_over", a_lapped_peer_starts_over},
    {"stale_is_not_corrupt", stale_is_not_corrupt},
    {"a_stopped_writer_stops_nobody_else", a_stopped_writer_stops_nobody_else},
    {"leases_hold_against_evictors_elsewhere", leases_hold_against_evictors_elsewhere},
    {"a_dead_evictor_hides_nothing", a_dead_evictor_hides_nothing},
    {"only_existing_namespaces", only_existing_namespaces},
    {"ranks_match_together", ranks_match_together},
    {"events_tell_what_happened", events_tell_what_happened},
    {NULL, NULL},
};
