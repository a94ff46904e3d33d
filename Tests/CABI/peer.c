#include "peer.h"
#include "pause.h"

#include <sys/stat.h>

void config_for_peers(kvstore_config_t *config) {
    small_config(config, path_in_dir("store"));
    config->capacity_bytes = 64 * MIB;
    config->host_bytes = 8 * MIB;
}

kvstore_t *open_for_peers(void) {
    kvstore_config_t config;
    config_for_peers(&config);
    return open_store(&config);
}

/* Orders: "VERB NUMBER", a line each; the answer is one number, a line each. Prompts are named by their seed. */
static int role_peer(int argc, char **argv) {
    shape_t shape = shape_large();
    FILE *orders = fopen(argv[0], "r");
    kvstore_t *store = open_for_peers();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    size_t token_count = (size_t)PEER_BLOCKS * shape.tokens_per_block;
    char verb[32];
    uint64_t number, cursor = 0;
    (void)argc;
    if (orders == NULL) return 1;
    pause_in(test_dir);
    while (fscanf(orders, "%31s %" SCNu64, verb, &number) == 2) {
        uint32_t *tokens = make_tokens(number, token_count);
        kvstore_prompt_t prompt = prompt_of(tokens, token_count);
        uint64_t answer = 0;
        if (strcmp(verb, "offload") == 0) {
            kvstore_transfer_result_t result = result_zero();
            (void)offload_blocks(ns, &shape, tokens, token_count, 0, PEER_BLOCKS, number, &result);
            answer = result.blocks_done;
        } else if (strcmp(verb, "flush") == 0) {
            flush_store(store);
        } else if (strcmp(verb, "forget") == 0) {
            CHECK_ONE_OF(kvstore_forget(ns, &prompt, &answer), 2, KVSTORE_OK, KVSTORE_MISS);
        } else if (strcmp(verb, "peek") == 0) {
            answer = peek_blocks(ns, tokens, token_count);
        } else if (strcmp(verb, "restore") == 0) {
            answer = check_stored(ns, &shape, tokens, PEER_BLOCKS, number);
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

peer_t peer_start(void) {
    peer_t peer;
    int out;
    char *fifo = path_in_dir("orders");
    CHECK(mkfifo(fifo, 0600) == 0);
    peer.pid = spawn_role("peer", fifo, NULL, &out);
    peer.orders = fopen(fifo, "w");
    peer.answers = fdopen(out, "r");
    CHECK(peer.orders != NULL && peer.answers != NULL);
    return peer;
}

void peer_order(peer_t *peer, const char *verb, uint64_t number) {
    fprintf(peer->orders, "%s %" PRIu64 "\n", verb, number);
    fflush(peer->orders);
}

uint64_t peer_answer(peer_t *peer) {
    char line[64] = "";
    CHECK(fgets(line, sizeof line, peer->answers) != NULL);
    return (uint64_t)strtoull(line, NULL, 10);
}

uint64_t peer_ask(peer_t *peer, const char *verb, uint64_t number) {
    peer_order(peer, verb, number);
    return peer_answer(peer);
}

void peer_end(peer_t *peer) {
    fclose(peer->orders);
    CHECK_EQ(wait_for(peer->pid), 0);
    fclose(peer->answers);
}

const child_role_t peer_roles[] = {
    {"peer", role_peer},
    {NULL, NULL},
};
