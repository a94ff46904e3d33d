/* Makes a store to look at: fill STORE BLOCKS [SEED [SECONDS]], and keeps it open for some seconds then. Conversations that share a front and fork, and two sessions, of which one breaks its
 * prefix with every step. */
#include <kvstore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOKENS_PER_BLOCK 16
#define REGION_BYTES 64
#define CHAIN_BLOCKS_MAX 4096

static void check(const char *what, kvstore_status_t status) {
    if (status >= 0) return;
    fprintf(stderr, "fill: %s: %s: %s\n", what, kvstore_status_string(status), kvstore_last_error_message());
    exit(1);
}

static uint32_t tokens[CHAIN_BLOCKS_MAX * TOKENS_PER_BLOCK];
static kvstore_span_t spans[CHAIN_BLOCKS_MAX];
static unsigned char payload[REGION_BYTES];
static uint64_t state = 88172645463325252u;

static uint32_t random_below(uint32_t bound) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 20) % bound);
}

static kvstore_prompt_t prompt_of(size_t blocks) {
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = (uint32_t)sizeof prompt;
    prompt.tokens = tokens;
    prompt.token_count = blocks * TOKENS_PER_BLOCK;
    return prompt;
}

static void offload(kvstore_namespace_t *ns, size_t first, size_t blocks) {
    kvstore_prompt_t prompt = prompt_of(first + blocks);
    kvstore_transfer_t transfer;
    size_t b;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.first_block = first;
    for (b = 0; b < blocks; b++) {
        spans[b].data = payload;
        spans[b].capacity = spans[b].length = REGION_BYTES;
    }
    transfer.spans = spans;
    transfer.span_count = blocks;
    check("kvstore_offload", kvstore_offload(ns, &prompt, &transfer, NULL));
}

static void session(kvstore_namespace_t *ns, const char *name, int breaks) {
    kvstore_session_t *handle;
    int step;
    size_t t;
    for (t = 0; t < 64 * TOKENS_PER_BLOCK; t++) tokens[t] = 500000u + (uint32_t)t;
    check("kvstore_session_begin", kvstore_session_begin(ns, name, &handle, NULL));
    for (step = 1; step <= 8; step++) {
        kvstore_prompt_t prompt = prompt_of((size_t)step * 8);
        kvstore_match_t match;
        memset(&match, 0, sizeof match);
        match.struct_size = (uint32_t)sizeof match;
        if (breaks) tokens[3] = 900000u + (uint32_t)(state % 10000) * 10 + (uint32_t)step; /* a time at the front */
        check("kvstore_session_match", kvstore_session_match(handle, &prompt, 0, 0, &match));
        offload(ns, 0, (size_t)step * 8);
        check("kvstore_session_step", kvstore_session_step(handle, UINT64_MAX, NULL));
    }
    check("kvstore_session_end", kvstore_session_end(handle));
}

int main(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_namespace_config_t identity;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    uint64_t region_bytes = REGION_BYTES;
    long wanted, stored = 0;
    size_t length = 0, t;
    if (argc < 3) {
        fprintf(stderr, "usage: fill STORE BLOCKS [SEED]\n");
        return 2;
    }
    wanted = atol(argv[2]);
    if (argc > 3) state += (uint64_t)atol(argv[3]);
    check("kvstore_config_init", kvstore_config_init(&config, sizeof config));
    config.path = argv[1];
    config.catalog_bytes = (uint64_t)256 << 20;
    config.capacity_bytes = (uint64_t)1 << 30;
    check("kvstore_open", kvstore_open(&config, &store));
    check("kvstore_namespace_config_init", kvstore_namespace_config_init(&identity, sizeof identity));
    identity.tokens_per_block = TOKENS_PER_BLOCK;
    identity.region_count = 1;
    identity.region_bytes = &region_bytes;
    /* Also what would turn a terminal's colours around. */
    identity.model_name = "a model <b>with</b> \"marks\" \x1b[7mand \xc2\x9b" "7m more";
    identity.kv_dtype = "fp16";
    check("kvstore_namespace_open", kvstore_namespace_open(store, &identity, &ns));
    session(ns, "steady", 0);
    session(ns, "clock at the front", 1);
    /* The first conversation is new; each next one goes on from a random place of the one before it, or is new as well. */
    while (stored < wanted) {
        size_t first = length == 0 || random_below(8) == 0 ? 0 : random_below((uint32_t)length);
        size_t blocks = 20 + random_below(180);
        if (first + blocks > CHAIN_BLOCKS_MAX) first = 0;
        if ((long)blocks > wanted - stored) blocks = (size_t)(wanted - stored);
        for (t = first * TOKENS_PER_BLOCK; t < (first + blocks) * TOKENS_PER_BLOCK; t++)
            tokens[t] = 1000 + random_below(100000);
        offload(ns, first, blocks);
        length = first + blocks;
        stored += (long)blocks;
    }
    check("kvstore_flush", kvstore_flush(store, 0, NULL));
    if (argc > 4) sleep((unsigned)atol(argv[4]));
    check("kvstore_close", kvstore_close(store));
    return 0;
}
