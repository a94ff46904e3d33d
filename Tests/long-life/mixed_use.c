/* Every way to use a store, drawn at random. Whatever comes back is compared with what the prompt says it must be. */
#include "long_life.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { blocks = 8, trunk_blocks = 3, tokens_per_block = 8, regions = 2, kinds = 4, tenants = 6 };
enum { tokens = blocks * tokens_per_block, region_bytes_max = 24576 };

/* In slots; in the catalog; by digests; in slots under a quota. */
static const uint64_t region_bytes[kinds][regions] = {{24576, 8192}, {1024, 500}, {3000, 1000}, {16384, 4096}};

counts_t counts;
unsigned pause_microseconds;

typedef struct {
    kvstore_t *store;
    kvstore_namespace_t *namespaces[kinds];
    uint64_t random;
    uint64_t newest;
    uint64_t cursor;
    uint32_t words[tokens];
    unsigned char digests[blocks * 32];
    unsigned char *memory;
    kvstore_span_t spans[blocks * regions];
    kvstore_status_t statuses[blocks];
} user_t;

static uint64_t mix(uint64_t x) { /* splitmix64's finaliser (Steele, Lea, Flood 2014) */
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static uint64_t below(user_t *user, uint64_t bound) {
    user->random = mix(user->random);
    return user->random % bound;
}

void wrong(const char *what, int64_t number) {
    if (atomic_exchange(&counts.failed, 1) == 0)
        fprintf(stderr, "WRONG: %s (%lld): %s\n", what, (long long)number, kvstore_last_error_message());
}

kvstore_t *open_store(const char *path) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    kvstore_status_t status;
    kvstore_config_init(&config, sizeof config);
    config.path = path;
    config.capacity_bytes = STORE_BYTES;
    config.catalog_bytes = CATALOG_BYTES;
    config.host_bytes = HOST_BYTES;
    config.inline_payload_bytes_max = 4096;
    config.offload_timeout_nanoseconds = UINT64_C(200000000);
    status = kvstore_open(&config, &store);
    if (status != KVSTORE_OK) wrong("open", status);
    return store;
}

static kvstore_namespace_t *open_kind(user_t *user, unsigned kind, unsigned tenant) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    kvstore_status_t status;
    unsigned char salt = (unsigned char)tenant;
    kvstore_namespace_config_init(&config, sizeof config);
    config.model_name = "long life";
    config.tokens_per_block = tokens_per_block;
    config.region_count = regions;
    config.region_bytes = region_bytes[kind];
    config.identity_mode = kind == 2 ? KVSTORE_IDENTITY_DIGEST : KVSTORE_IDENTITY_TOKENS;
    config.digest_bytes = kind == 2 ? 32 : 0;
    config.quota_bytes = kind == 3 ? UINT64_C(2) << 20 : KVSTORE_KEEP;
    if (tenant > 0) {
        config.salt.data = &salt;
        config.salt.length = 1;
    }
    status = kvstore_namespace_open(user->store, &config, &ns);
    if (status != KVSTORE_OK && status != KVSTORE_BUSY) wrong("namespace_open", status);
    return ns;
}

/* ---------------------------------------------------------------- prompts and payloads */

static uint64_t chain_of(uint64_t prompt, unsigned block) {
    return block < trunk_blocks ? prompt / 8 * 8 : prompt + (UINT64_C(1) << 40);
}

static kvstore_prompt_t make_prompt(user_t *user, unsigned kind, uint64_t number, unsigned count) {
    kvstore_prompt_t prompt;
    unsigned i;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = (uint32_t)sizeof prompt;
    for (i = 0; i < tokens; i++)
        user->words[i] = (uint32_t)mix(chain_of(number, i / tokens_per_block) * 256 + i);
    if (kind == 2) {
        for (i = 0; i < blocks; i++)
            memcpy(user->digests + 32 * i, user->words + i * tokens_per_block, 32);
        prompt.digests = user->digests;
        prompt.digest_count = count;
    } else {
        prompt.tokens = user->words;
        prompt.token_count = (size_t)count * tokens_per_block;
    }
    return prompt;
}

static uint64_t word_of(unsigned kind, uint64_t number, unsigned block, unsigned region, size_t i) {
    return mix(chain_of(number, block) * 64 + block * 8 + region * 4 + kind) + i;
}

static void fill(unsigned kind, uint64_t number, unsigned block, unsigned region, void *data) {
    uint64_t first = word_of(kind, number, block, region, 0), word;
    size_t i, count = region_bytes[kind][region];
    for (i = 0; i < count; i += 8) {
        word = first + i / 8;
        memcpy((char *)data + i, &word, count - i < 8 ? count - i : 8);
    }
}

static void compare(unsigned kind, uint64_t number, unsigned block, unsigned region, const void *data) {
    uint64_t first = word_of(kind, number, block, region, 0), word;
    size_t i, count = region_bytes[kind][region];
    for (i = 0; i < count; i += 8) {
        word = first + i / 8;
        if (memcmp((const char *)data + i, &word, count - i < 8 ? count - i : 8) != 0)
            return wrong("wrong bytes", (int64_t)number);
    }
}

static kvstore_transfer_t make_transfer(user_t *user, unsigned kind, unsigned count, int first_region, int region_count) {
    kvstore_transfer_t transfer;
    unsigned s;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.block_count = count;
    transfer.first_region = (uint32_t)first_region;
    transfer.region_count = (uint32_t)region_count;
    transfer.spans = user->spans;
    transfer.span_count = count * (size_t)region_count;
    transfer.block_status = user->statuses;
    transfer.timeout_nanoseconds = UINT64_C(2000000000);
    for (s = 0; s < transfer.span_count; s++) {
        uint64_t length = region_bytes[kind][(unsigned)first_region + s % (unsigned)region_count];
        user->spans[s].data = user->memory + (size_t)s * region_bytes_max;
        user->spans[s].capacity = length;
        user->spans[s].length = length;
    }
    return transfer;
}

static kvstore_transfer_result_t no_result(void) {
    kvstore_transfer_result_t result;
    memset(&result, 0, sizeof result);
    result.struct_size = (uint32_t)sizeof result;
    return result;
}

static void note(kvstore_status_t status, const char *what) {
    atomic_fetch_add(&counts.calls, 1);
    if (status == KVSTORE_MISS) atomic_fetch_add(&counts.misses, 1);
    if (status == KVSTORE_BUSY || status == KVSTORE_FULL || status == KVSTORE_PARENT_MISSING)
        atomic_fetch_add(&counts.refusals, 1);
    if (status < 0) wrong(what, status);
}

/* ---------------------------------------------------------------- the ways */

static void offload(user_t *user, unsigned kind) {
    kvstore_namespace_t *ns = user->namespaces[kind];
    uint64_t number = below(user, 4) == 0 ? below(user, user->newest + 1) : ++user->newest;
    unsigned b, r, count = 1 + (unsigned)below(user, blocks);
    kvstore_prompt_t prompt = make_prompt(user, kind, number, count);
    kvstore_transfer_t transfer = make_transfer(user, kind, count, 0, regions);
    kvstore_transfer_result_t result = no_result();
    kvstore_operation_t *operation = NULL;
    kvstore_reservation_t *reservation = NULL;
    kvstore_status_t status;
    uint64_t way = below(user, 4);
    if (way == 3) {
        note(kvstore_offload_reserve(ns, &prompt, &transfer, 0, &reservation, &result), "offload_reserve");
        for (b = 0; b < result.blocks_done && b < count; b++)
            for (r = 0; r < regions; r++)
                if (user->spans[b * regions + r].data != NULL) fill(kind, number, b, r, user->spans[b * regions + r].data);
        if (reservation == NULL) return;
        result = no_result();
        if (below(user, 4) == 0)
            note(kvstore_offload_abort(reservation), "offload_abort");
        else
            note(kvstore_offload_commit(reservation, NULL, 0, &result), "offload_commit");
    } else {
        for (b = 0; b < count; b++)
            for (r = 0; r < regions; r++) fill(kind, number, b, r, user->spans[b * regions + r].data);
        if (way == 2) {
            status = kvstore_offload_start(ns, &prompt, &transfer, &operation);
            note(status, "offload_start");
            if (operation == NULL) return;
            if (below(user, 8) == 0) note(kvstore_cancel(operation), "cancel");
            note(kvstore_wait(operation, 0, &result), "wait");
        } else {
            note(kvstore_offload(ns, &prompt, &transfer, &result), "offload");
        }
    }
    atomic_fetch_add(&counts.blocks_offloaded, result.blocks_done);
}

static void restore(user_t *user, unsigned kind) {
    kvstore_namespace_t *ns = user->namespaces[kind];
    uint64_t recent = user->newest < 200 ? user->newest + 1 : 200, number = user->newest - below(user, recent);
    kvstore_prompt_t prompt = make_prompt(user, kind, number, blocks);
    kvstore_transfer_t transfer;
    kvstore_transfer_result_t result = no_result();
    kvstore_match_t match;
    kvstore_view_t *view = NULL;
    kvstore_operation_t *operation = NULL;
    unsigned b, r, count, way = (unsigned)below(user, 5), first = 0, ranged = regions;
    memset(&match, 0, sizeof match);
    match.struct_size = (uint32_t)sizeof match;
    note(kvstore_match(ns, &prompt, 0, below(user, 2) ? UINT64_C(50000000) : 0, &match), "match");
    count = (unsigned)match.blocks_matched;
    if (count == 0) return;
    if (way == 4) {
        first = (unsigned)below(user, regions);
        ranged = 1;
    }
    transfer = make_transfer(user, kind, count, (int)first, (int)ranged);
    if (way == 1) note(kvstore_prefetch(ns, &prompt, NULL), "prefetch");
    if (way == 2) {
        note(kvstore_restore_view(ns, &prompt, &transfer, &view, &result), "restore_view");
    } else if (way == 3) {
        note(kvstore_restore_start(ns, &prompt, &transfer, &operation), "restore_start");
        if (operation != NULL) {
            if (below(user, 8) == 0) note(kvstore_cancel(operation), "cancel");
            note(kvstore_wait(operation, 0, &result), "wait");
        }
    } else {
        note(kvstore_restore(ns, &prompt, &transfer, &result), "restore");
    }
    for (b = 0; b < result.blocks_done; b++)
        for (r = 0; r < ranged; r++) compare(kind, number, b, first + r, user->spans[b * ranged + r].data);
    atomic_fetch_add(&counts.blocks_restored, result.blocks_done);
    if (view != NULL) note(kvstore_view_release(view), "view_release");
    /* Some leases are left to run out. */
    if (below(user, 8) == 0) note(kvstore_lease_extend(user->store, match.lease, UINT64_C(50000000)), "lease_extend");
    else note(kvstore_lease_release(user->store, match.lease), "lease_release");
}

static void keep(user_t *user, unsigned kind) {
    kvstore_namespace_t *ns = user->namespaces[kind], *other;
    uint64_t number = user->newest - below(user, user->newest < 500 ? user->newest + 1 : 500);
    kvstore_prompt_t prompt = make_prompt(user, kind, number, 1 + (unsigned)below(user, blocks));
    kvstore_event_t events[64];
    kvstore_block_key_t keys[blocks];
    kvstore_stats_t stats;
    size_t count = 0;
    switch (below(user, 16)) {
    case 0: note(kvstore_forget(ns, &prompt, NULL), "forget"); break;
    case 1: note(kvstore_flush(user->store, 0, NULL), "flush"); break;
    case 2:
        if (below(user, 64) == 0) note(kvstore_namespace_purge(user->namespaces[3], NULL), "purge");
        break;
    case 3:
    case 4:
        other = open_kind(user, kind, (unsigned)below(user, tenants));
        if (other != NULL) note(kvstore_namespace_close(other), "namespace_close");
        break;
    case 5:
    case 6:
    case 7:
        memset(&stats, 0, sizeof stats);
        stats.struct_size = (uint32_t)sizeof stats;
        note(kvstore_stats(user->store, &stats), "stats");
        if (stats.poisoned) wrong("the store is poisoned", 0);
        break;
    case 8:
    case 9:
        note(kvstore_events_read(user->store, &user->cursor, events, sizeof events[0], 64, &count), "events_read");
        break;
    case 10: note(kvstore_block_keys(ns, &prompt, keys, blocks, &count), "block_keys"); break;
    default: note(kvstore_touch(ns, &prompt, NULL), "touch"); break;
    }
}

void use_store(kvstore_t *store, uint64_t seed, uint64_t *newest, const _Atomic int *stop) {
    user_t *user = (user_t *)calloc(1, sizeof *user);
    unsigned kind;
    if (user == NULL || (user->memory = (unsigned char *)malloc((size_t)blocks * regions * region_bytes_max)) == NULL)
        return wrong("no memory", 0);
    user->store = store;
    user->random = mix(seed);
    user->newest = *newest;
    for (kind = 0; kind < kinds; kind++) user->namespaces[kind] = open_kind(user, kind, 0);
    while (!atomic_load(stop) && !atomic_load(&counts.failed)) {
        kind = (unsigned)below(user, kinds);
        if (user->namespaces[kind] == NULL) break;
        switch (below(user, 4)) {
        case 0: offload(user, kind); break;
        case 1: keep(user, kind); break;
        default: restore(user, kind);
        }
        if (pause_microseconds > 0) usleep(pause_microseconds);
    }
    for (kind = 0; kind < kinds; kind++)
        if (user->namespaces[kind] != NULL) note(kvstore_namespace_close(user->namespaces[kind]), "namespace_close");
    *newest = user->newest;
    free(user->memory);
    free(user);
}
