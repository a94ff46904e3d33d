/* A small workload that is the same everywhere, and what it costs in things that can be counted.
 *
 *   counts measure FOLDER    prints lines "name value", for `run` to compare with expected.txt
 *   counts match FOLDER      warm matches only, for callgrind: it collects inside kvstore_match
 *   counts moves FOLDER      a few restores, offloads and prefetches, for callgrind likewise */
#define _GNU_SOURCE
#include "counted.h"

#include <fcntl.h>
#include <kvstore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    tokens_per_block = 16,
    match_blocks = 8192,      /* a prompt of 131,072 tokens */
    traced_blocks = 2048,     /* callgrind is slow, and filling the store is most of it */
    small_bytes = 64,         /* payload in the catalog */
    region_count = 36,        /* 18 layers, K and V */
    region_bytes = 8 << 10,   /* a block of 288 KiB */
    blocks = 128,
    repeats = 16,
    rounds = 5, /* of what depends on when the writer's thread wakes up: the median counts */
};

static uint32_t tokens[tokens_per_block * match_blocks];

static void must(kvstore_status_t status, const char *what) {
    if (status == KVSTORE_OK) return;
    fprintf(stderr, "counts: %s: %s: %s\n", what, kvstore_status_string(status), kvstore_last_error_message());
    exit(1);
}

static kvstore_t *open_store(const char *path, uint32_t eviction_policy) {
    kvstore_config_t config;
    kvstore_t *store;
    must(kvstore_config_init(&config, sizeof config), "config_init");
    config.path = path;
    config.capacity_bytes = UINT64_C(1) << 30;
    config.catalog_bytes = UINT64_C(128) << 20;
    config.host_bytes = UINT64_C(64) << 20;
    config.eviction_policy = eviction_policy;
    must(kvstore_open(&config, &store), "open");
    return store;
}

static kvstore_namespace_t *open_namespace(kvstore_t *store, uint32_t regions, uint64_t bytes) {
    uint64_t region_sizes[region_count];
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns;
    uint32_t r;
    for (r = 0; r < regions; r++) region_sizes[r] = bytes;
    must(kvstore_namespace_config_init(&config, sizeof config), "namespace_config_init");
    config.tokens_per_block = tokens_per_block;
    config.region_count = regions;
    config.region_bytes = region_sizes;
    must(kvstore_namespace_open(store, &config, &ns), "namespace_open");
    return ns;
}

static kvstore_prompt_t prompt_at(size_t first_block, size_t block_count) {
    return (kvstore_prompt_t){.struct_size = sizeof(kvstore_prompt_t),
                              .tokens = tokens + first_block * tokens_per_block,
                              .token_count = block_count * tokens_per_block};
}

static kvstore_prompt_t prompt_of(size_t block_count) { return prompt_at(0, block_count); }

static kvstore_stats_t stats_of(kvstore_t *store) {
    kvstore_stats_t stats = {.struct_size = sizeof stats};
    must(kvstore_stats(store, &stats), "stats");
    return stats;
}

static void print(const char *name, double value) { printf("%s %.10g\n", name, value); }

static void fill_small(kvstore_namespace_t *ns, kvstore_t *store, size_t count) {
    static char payload[small_bytes];
    kvstore_span_t *spans = calloc(count, sizeof *spans);
    kvstore_prompt_t prompt = prompt_of(count);
    kvstore_transfer_t transfer = {.struct_size = sizeof transfer, .spans = spans, .span_count = count};
    size_t b;
    for (b = 0; b < count; b++) spans[b] = (kvstore_span_t){payload, 0, small_bytes};
    must(kvstore_offload(ns, &prompt, &transfer, NULL), "offload");
    must(kvstore_flush(store, 0, NULL), "flush");
    free(spans);
}

static void match_once(kvstore_namespace_t *ns, kvstore_t *store, size_t block_count) {
    kvstore_prompt_t prompt = prompt_of(block_count);
    kvstore_match_t match = {.struct_size = sizeof match};
    must(kvstore_match(ns, &prompt, 0, 0, &match), "match");
    if (match.blocks_matched != block_count) {
        fprintf(stderr, "counts: matched %llu of %zu blocks\n", (unsigned long long)match.blocks_matched, block_count);
        exit(1);
    }
    must(kvstore_lease_release(store, match.lease), "lease_release");
}

/* Warm matches of a whole prompt. */
static void matches(const char *path, size_t count, uint32_t eviction_policy, int prints) {
    kvstore_t *store = open_store(path, eviction_policy);
    kvstore_namespace_t *ns = open_namespace(store, 1, small_bytes);
    uint64_t hashes, allocations, locks;
    counted_io_t io;
    int i;
    fill_small(ns, store, count);
    match_once(ns, store, count);
    hashes = stats_of(store).hashes_computed;
    allocations = counted_allocations();
    locks = counted_locks();
    io = counted_io();
    for (i = 0; i < repeats; i++) match_once(ns, store, count);
    locks = counted_locks() - locks;
    if (prints && eviction_policy == KVSTORE_EVICTION_DENSITY) {
        print("density-warm-match-allocations", (double)(counted_allocations() - allocations) / repeats);
        print("density-warm-match-file-reads", (double)(counted_io().reads - io.reads) / repeats);
        print("density-warm-match-hashes", (double)(stats_of(store).hashes_computed - hashes) / repeats);
    } else if (prints) {
        print("warm-match-allocations", (double)(counted_allocations() - allocations) / repeats);
        print("warm-match-and-release-locks", (double)locks / repeats);
        print("warm-match-file-reads", (double)(counted_io().reads - io.reads) / repeats);
        print("warm-match-hashes", (double)(stats_of(store).hashes_computed - hashes) / repeats);
        print("index-bytes-per-block-beyond-tokens",
              (double)stats_of(store).index_bytes / (double)count - 4 * tokens_per_block);
    }
    must(kvstore_close(store), "close");
}

/* Blocks of a real model's size in memory, and the spans that a transfer of them wants. */
typedef struct {
    char *bytes;
    kvstore_span_t *spans;
} memory_t;

static const size_t block_bytes = (size_t)region_count * region_bytes;

static memory_t make_memory(size_t block_count) {
    memory_t memory = {malloc(block_count * block_bytes), calloc(block_count * region_count, sizeof(kvstore_span_t))};
    size_t i;
    for (i = 0; i < block_count * block_bytes; i++) memory.bytes[i] = (char)(i * 2654435761u >> 13);
    for (i = 0; i < block_count * region_count; i++)
        memory.spans[i] = (kvstore_span_t){memory.bytes + i * region_bytes, region_bytes, region_bytes};
    return memory;
}

static kvstore_transfer_t transfer_of(memory_t memory, size_t block_count) {
    return (kvstore_transfer_t){
        .struct_size = sizeof(kvstore_transfer_t), .spans = memory.spans, .span_count = block_count * region_count};
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values) {
    qsort(values, rounds, sizeof *values, ascending);
    return values[rounds / 2];
}

/* Blocks into slots, in one call, until they are durable. */
static void offloads(kvstore_t *store, kvstore_namespace_t *ns, memory_t memory) {
    const double payload = (double)blocks * (double)block_bytes;
    double allocations[rounds], locks[rounds], writes[rounds], bytes[rounds], syncs[rounds];
    kvstore_stats_t before = stats_of(store);
    kvstore_transfer_t transfer = transfer_of(memory, blocks);
    int round;
    for (round = 0; round < rounds; round++) {
        kvstore_prompt_t prompt = prompt_at((size_t)round * blocks, blocks);
        counted_io_t io = counted_io();
        uint64_t allocated = counted_allocations(), locked = counted_locks();
        /* At most two batches: what the writer's thread found when it woke up, and the rest. */
        counted_hold_writes(1);
        must(kvstore_offload(ns, &prompt, &transfer, NULL), "offload");
        counted_hold_writes(0);
        allocations[round] = (double)(counted_allocations() - allocated) / blocks;
        locks[round] = (double)(counted_locks() - locked) / blocks;
        must(kvstore_flush(store, 0, NULL), "flush");
        writes[round] = (double)(counted_io().writes - io.writes) / blocks;
        bytes[round] = (double)(counted_io().written_bytes - io.written_bytes) / payload;
        syncs[round] = (double)(counted_io().syncs - io.syncs) / payload * (double)(1 << 30);
    }
    print("offload-allocations-per-block", median(allocations));
    print("offload-locks-per-block", median(locks));
    print("offload-writes-per-block", median(writes));
    print("offload-bytes-written-per-payload-byte", median(bytes));
    print("offload-syncs-per-gib", median(syncs));
    print("catalog-bytes-per-block-beyond-tokens",
          (double)(stats_of(store).catalog_bytes_used - before.catalog_bytes_used) / (blocks * rounds) -
              4 * tokens_per_block);

    /* A flush of a single block. */
    transfer = transfer_of(memory, 1);
    for (round = 0; round < rounds; round++) {
        kvstore_prompt_t prompt = prompt_at((size_t)(rounds * blocks + round), 1);
        counted_io_t io = counted_io();
        must(kvstore_offload(ns, &prompt, &transfer, NULL), "offload");
        must(kvstore_flush(store, 0, NULL), "flush");
        syncs[round] = (double)(counted_io().syncs - io.syncs);
    }
    print("flush-of-one-block-syncs", median(syncs));
}

/* A call for each region of the same blocks, as an engine saves layer by layer. */
static void layerwise_offload(kvstore_t *store, kvstore_namespace_t *ns, memory_t memory) {
    enum { layered = 8 };
    kvstore_prompt_t prompt = prompt_at((size_t)rounds * blocks + rounds, layered);
    kvstore_span_t spans[layered];
    uint64_t allocations = counted_allocations(), locks = counted_locks();
    uint32_t r;
    size_t b;
    for (r = 0; r < region_count; r++) {
        kvstore_transfer_t transfer = {.struct_size = sizeof transfer, .first_region = r, .region_count = 1};
        for (b = 0; b < layered; b++) spans[b] = memory.spans[b * region_count + r];
        transfer.spans = spans;
        transfer.span_count = layered;
        must(kvstore_offload(ns, &prompt, &transfer, NULL), "offload");
    }
    print("layerwise-offload-allocations-per-region", (double)(counted_allocations() - allocations) / (layered * region_count));
    print("layerwise-offload-locks-per-region", (double)(counted_locks() - locks) / (layered * region_count));
    must(kvstore_flush(store, 0, NULL), "flush");
}

/* From RAM: the copies that the offload left. */
static void host_restores(kvstore_namespace_t *ns, memory_t target) {
    kvstore_prompt_t prompt = prompt_at((rounds - 1) * blocks, 1);
    kvstore_transfer_t transfer = transfer_of(target, 1);
    counted_io_t io;
    uint64_t allocations, locks;
    int i;
    must(kvstore_restore(ns, &prompt, &transfer, NULL), "restore");
    io = counted_io();
    allocations = counted_allocations();
    locks = counted_locks();
    for (i = 0; i < repeats; i++) must(kvstore_restore(ns, &prompt, &transfer, NULL), "restore");
    print("host-restore-locks-per-call", (double)(counted_locks() - locks) / repeats);
    print("host-restore-allocations-per-call", (double)(counted_allocations() - allocations) / repeats);
    print("host-restore-file-reads", (double)(counted_io().reads - io.reads) / repeats);
}

/* From disk: a store that was just opened has no copies. */
static void disk_restores(const char *path, memory_t memory, memory_t target) {
    kvstore_t *store = open_store(path, KVSTORE_EVICTION_LRU);
    kvstore_namespace_t *ns = open_namespace(store, region_count, region_bytes);
    kvstore_prompt_t prompt = prompt_of(blocks);
    kvstore_transfer_t transfer = transfer_of(target, blocks);
    counted_io_t io;
    uint64_t allocations, locks;
    memset(target.bytes, 0, blocks * block_bytes);
    match_once(ns, store, blocks);
    io = counted_io();
    allocations = counted_allocations();
    locks = counted_locks();
    must(kvstore_restore(ns, &prompt, &transfer, NULL), "restore");
    print("disk-restore-locks-per-block", (double)(counted_locks() - locks) / blocks);
    print("disk-restore-allocations-per-block", (double)(counted_allocations() - allocations) / blocks);
    print("disk-restore-reads-per-block", (double)(counted_io().reads - io.reads) / blocks);
    print("disk-restore-bytes-read-per-payload-byte",
          (double)(counted_io().read_bytes - io.read_bytes) / ((double)blocks * (double)block_bytes));
    if (memcmp(memory.bytes, target.bytes, blocks * block_bytes) != 0) {
        fprintf(stderr, "counts: WRONG BYTES\n");
        exit(1);
    }
    must(kvstore_close(store), "close");
}

/* An open, and the first block that comes back. */
static void first_hit(const char *path, memory_t target) {
    kvstore_prompt_t prompt = prompt_of(1);
    kvstore_transfer_t transfer = transfer_of(target, 1);
    counted_io_t io = counted_io();
    kvstore_t *store = open_store(path, KVSTORE_EVICTION_LRU);
    kvstore_namespace_t *ns = open_namespace(store, region_count, region_bytes);
    match_once(ns, store, 1);
    must(kvstore_restore(ns, &prompt, &transfer, NULL), "restore");
    print("first-hit-reads", (double)(counted_io().reads - io.reads));
    print("first-hit-bytes-read", (double)(counted_io().read_bytes - io.read_bytes));
    print("first-hit-files-opened", (double)(counted_io().opens - io.opens));
    must(kvstore_close(store), "close");
}

static void large_blocks(const char *path) {
    memory_t memory = make_memory(blocks), target = make_memory(blocks);
    kvstore_t *store = open_store(path, KVSTORE_EVICTION_LRU);
    kvstore_namespace_t *ns = open_namespace(store, region_count, region_bytes);
    offloads(store, ns, memory);
    layerwise_offload(store, ns, memory);
    host_restores(ns, target);
    must(kvstore_close(store), "close");
    disk_restores(path, memory, target);
    first_hit(path, target);
}

/* What callgrind counts of calls that move: blocks of one region of 20,000 bytes, in slots. */
static void moves(const char *path) {
    enum { moved = 16, slot_payload = 20000 };
    static char bytes[moved * slot_payload];
    kvstore_span_t spans[moved];
    kvstore_transfer_t transfer = {.struct_size = sizeof transfer, .spans = spans, .span_count = moved};
    kvstore_prompt_t prompt = prompt_of(moved);
    kvstore_t *store = open_store(path, KVSTORE_EVICTION_LRU);
    kvstore_namespace_t *ns = open_namespace(store, 1, slot_payload);
    size_t i;
    for (i = 0; i < moved; i++) spans[i] = (kvstore_span_t){bytes + i * slot_payload, slot_payload, slot_payload};
    must(kvstore_offload(ns, &prompt, &transfer, NULL), "offload");
    must(kvstore_flush(store, 0, NULL), "flush");
    for (i = 0; i < repeats; i++) must(kvstore_restore(ns, &prompt, &transfer, NULL), "restore");
    must(kvstore_close(store), "close");
    store = open_store(path, KVSTORE_EVICTION_LRU);
    ns = open_namespace(store, 1, slot_payload);
    match_once(ns, store, moved); /* so that the prefetch finds the blocks in the index */
    must(kvstore_prefetch(ns, &prompt, NULL), "prefetch");
    must(kvstore_close(store), "close");
}

int main(int argc, char **argv) {
    char path[4096];
    size_t i;
    if (argc != 3) {
        fprintf(stderr, "usage: counts measure|match|moves FOLDER\n");
        return 2;
    }
    for (i = 0; i < sizeof tokens / sizeof *tokens; i++) tokens[i] = (uint32_t)(i * 2654435761u >> 15);
    snprintf(path, sizeof path, "%s/small", argv[2]);
    if (strcmp(argv[1], "match") == 0) {
        matches(path, traced_blocks, KVSTORE_EVICTION_LRU, 0);
    } else if (strcmp(argv[1], "moves") == 0) {
        moves(path);
    } else {
        matches(path, match_blocks, KVSTORE_EVICTION_LRU, 1);
        snprintf(path, sizeof path, "%s/density", argv[2]);
        matches(path, match_blocks, KVSTORE_EVICTION_DENSITY, 1);
        snprintf(path, sizeof path, "%s/large", argv[2]);
        large_blocks(path);
    }
    return 0;
}
