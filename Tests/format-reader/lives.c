/* Makes a store whose blocks have lives, priorities and pins of all kinds, in trees with forks, for the reader.
 *
 * usage: lives STORE */
#include <kvstore.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 16
#define HOUR UINT64_C(3600000000000)

static void check(kvstore_status_t status, const char *what) {
    if (status == KVSTORE_OK) return;
    fprintf(stderr, "lives: %s: %s: %s\n", what, kvstore_status_string(status), kvstore_last_error_message());
    exit(1);
}

static kvstore_prompt_t prompt_of(const uint32_t *tokens, size_t blocks) {
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = sizeof prompt;
    prompt.tokens = tokens;
    prompt.token_count = blocks * TOKENS;
    return prompt;
}

static kvstore_namespace_t *open_namespace(kvstore_t *store, const char *model, uint64_t region_bytes, uint64_t ttl,
                                           uint32_t kind) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    check(kvstore_namespace_config_init(&config, sizeof config), "namespace_config_init");
    config.tokens_per_block = TOKENS;
    config.region_count = 1;
    config.region_bytes = &region_bytes;
    config.model_name = model;
    config.ttl_nanoseconds = ttl;
    config.ttl_kind = kind;
    check(kvstore_namespace_open(store, &config, &ns), "namespace_open");
    return ns;
}

/* Stores blocks first ... blocks - 1 of the tokens; `priority` 0 = none. */
static void offload(kvstore_namespace_t *ns, const uint32_t *tokens, size_t first, size_t blocks, size_t bytes,
                    uint64_t ttl, uint32_t kind, uint32_t priority) {
    kvstore_prompt_t prompt = prompt_of(tokens, blocks);
    kvstore_span_t *spans = calloc(blocks, sizeof *spans);
    char *payload = malloc(bytes);
    kvstore_transfer_t transfer;
    size_t i;
    memset(payload, (int)tokens[0], bytes);
    for (i = 0; i < blocks - first; i++) {
        spans[i].data = payload;
        spans[i].capacity = spans[i].length = bytes;
    }
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = sizeof transfer;
    transfer.first_block = first;
    transfer.spans = spans;
    transfer.span_count = blocks - first;
    transfer.ttl_nanoseconds = ttl;
    transfer.ttl_kind = kind;
    transfer.priority = priority;
    transfer.flags = priority ? KVSTORE_TRANSFER_PRIORITY : 0;
    check(kvstore_offload(ns, &prompt, &transfer, NULL), "offload");
    free(spans);
    free(payload);
}

static void pin(kvstore_namespace_t *ns, const uint32_t *tokens, size_t blocks, uint64_t nanoseconds) {
    kvstore_prompt_t prompt = prompt_of(tokens, blocks);
    uint64_t id, found;
    check(kvstore_pin(ns, &prompt, nanoseconds, &id, &found), "pin");
    if (found != blocks) check(KVSTORE_E_INTERNAL, "pin of fewer blocks");
}

/* A trunk of 6 blocks and six branches that leave it, or one another, at several places. */
static void make_tree(kvstore_t *store, kvstore_namespace_t *ns, size_t bytes) {
    static const struct {
        size_t shared, blocks;
        uint64_t ttl;
        uint32_t kind, priority;
    } branches[] = {
        {6, 6, 0, 0, 0},
        {4, 7, 3 * HOUR, KVSTORE_TTL_IDLE, 0},
        {4, 9, HOUR / 2, KVSTORE_TTL_IDLE, 0},
        {2, 8, 2 * HOUR, KVSTORE_TTL_ABSOLUTE, 70},
        {6, 8, KVSTORE_TTL_UNLIMITED, KVSTORE_TTL_IDLE, 0},
        {1, 5, 5 * HOUR, KVSTORE_TTL_ABSOLUTE, 10},
        {0, 3, HOUR / 4, KVSTORE_TTL_IDLE, 99},
    };
    uint32_t trunk[16 * TOKENS], tokens[16 * TOKENS];
    kvstore_prompt_t prompt;
    size_t b, i;
    for (i = 0; i < 16 * TOKENS; i++) trunk[i] = (uint32_t)i + 1;
    for (b = 0; b < sizeof branches / sizeof *branches; b++) {
        for (i = 0; i < 16 * TOKENS; i++)
            tokens[i] = i < branches[b].shared * TOKENS ? trunk[i] : (uint32_t)(1000 * b + i + 7);
        offload(ns, tokens, b ? branches[b].shared : 0, branches[b].blocks, bytes, branches[b].ttl, branches[b].kind,
                branches[b].priority);
        if (b % 3 == 1) pin(ns, tokens, branches[b].blocks, b * HOUR);
    }
    pin(ns, trunk, 3, HOUR);
    check(kvstore_flush(store, 0, NULL), "flush");
    /* A use in the middle: its deadline lies between those of the path's end. */
    prompt = prompt_of(trunk, 5);
    check(kvstore_touch(ns, &prompt, NULL), "touch");
}

int main(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    if (argc != 2) return 2;
    check(kvstore_config_init(&config, sizeof config), "config_init");
    config.path = argv[1];
    config.capacity_bytes = 64 << 20;
    check(kvstore_open(&config, &store), "open");
    make_tree(store, open_namespace(store, "idle, in the catalog", 100, HOUR, KVSTORE_TTL_IDLE), 100);
    make_tree(store, open_namespace(store, "absolute, in slots", 32768, 4 * HOUR, KVSTORE_TTL_ABSOLUTE), 32768);
    make_tree(store, open_namespace(store, "no life of its own", 100, 0, 0), 100);
    check(kvstore_close(store), "close");
    return 0;
}
