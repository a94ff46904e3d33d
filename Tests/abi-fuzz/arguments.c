/* Random arguments: right ones mostly, so that calls get somewhere, and every kind of wrong ones. */
#include "fuzz.h"

#include <string.h>

static void *garbage(fuzzer_t *fuzzer) {
    /* Handles are numbers in pointer's clothes: nothing is ever looked up behind them. */
    return (void *)(uintptr_t)wild_number(fuzzer);
}

void *pick_any(fuzzer_t *fuzzer) {
    if (one_in(fuzzer, 8)) return NULL;
    if (one_in(fuzzer, 4)) return garbage(fuzzer);
    return atomic_load(&any_handles[below(fuzzer, 64)]);
}

void remember(fuzzer_t *fuzzer, void *handle) { atomic_store(&any_handles[below(fuzzer, 64)], handle); }

kvstore_t *pick_store(fuzzer_t *fuzzer) {
    if (one_in(fuzzer, 40)) return (kvstore_t *)pick_any(fuzzer);
    return atomic_load(&stores[below(fuzzer, store_count)]);
}

kvstore_namespace_t *pick_namespace(fuzzer_t *fuzzer, unsigned *space) {
    *space = (unsigned)below(fuzzer, namespace_count);
    if (one_in(fuzzer, 60)) return (kvstore_namespace_t *)pick_any(fuzzer);
    return atomic_load(&namespaces[*space]);
}

uint64_t pick_number(fuzzer_t *fuzzer) { return one_in(fuzzer, 4) ? below(fuzzer, 600) : below(fuzzer, 40); }

static size_t wild_count(fuzzer_t *fuzzer, size_t right) {
    /* Absurd ones are beyond any bound that the header allows: what they claim is not there to be read. */
    return one_in(fuzzer, 3) ? (size_t)(UINT64_MAX - below(fuzzer, UINT64_C(1) << 62)) : (size_t)below(fuzzer, right + 1);
}

static uint32_t word_at(uint64_t number, size_t index, size_t words_per_block) {
    return (uint32_t)mix((index < words_per_block ? number / 4 : number + 1000) * 4096 + index);
}

uint32_t token_at(uint64_t number, size_t index) { return word_at(number, index, tokens_per_block); }

const kvstore_prompt_t *pick_prompt(fuzzer_t *fuzzer, unsigned space, uint64_t number, unsigned count, bool whole) {
    /* What is given as digests is as long as digests are, whatever the namespace is. */
    bool digests = shapes[space % shape_count].digests != one_in(fuzzer, 500);
    size_t word_count = digests ? 8u * count : (size_t)tokens_per_block * count;
    size_t rest = !digests && (!whole || one_in(fuzzer, 100)) ? below(fuzzer, tokens_per_block) : 0, i;
    uint32_t *words = (uint32_t *)guarded(fuzzer, 4 * (word_count + rest), 0);
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    for (i = 0; i < word_count + rest; i++) words[i] = word_at(number, i, digests ? 8 : tokens_per_block);
    if (digests) {
        prompt.digests = words;
        prompt.digest_count = one_in(fuzzer, 100) ? wild_count(fuzzer, count) : count;
    } else {
        prompt.tokens = words;
        prompt.token_count = one_in(fuzzer, 100) ? wild_count(fuzzer, word_count + rest) : word_count + rest;
    }
    if (one_in(fuzzer, 20)) {
        unsigned extra_count = 1 + (unsigned)below(fuzzer, blocks_max);
        kvstore_bytes_t *extra = (kvstore_bytes_t *)guarded(fuzzer, extra_count * sizeof *extra, 0);
        unsigned char *bytes = (unsigned char *)guarded(fuzzer, 300, 7);
        for (i = 0; i < extra_count; i++) {
            extra[i].length = one_in(fuzzer, 4) ? below(fuzzer, 301) : 3;
            extra[i].data = one_in(fuzzer, 50) ? NULL : bytes + 300 - extra[i].length;
            if (one_in(fuzzer, 100)) extra[i].length = (size_t)(UINT64_MAX >> below(fuzzer, 30));
        }
        prompt.extra = one_in(fuzzer, 50) ? NULL : extra;
        prompt.extra_count = one_in(fuzzer, 50) ? wild_count(fuzzer, extra_count) : extra_count;
    }
    if (one_in(fuzzer, 200)) prompt.flags = (uint32_t)wild_number(fuzzer);
    if (one_in(fuzzer, 200)) prompt.tokens = NULL;
    return (const kvstore_prompt_t *)as_struct(fuzzer, &prompt, sizeof prompt);
}

static void wild_span(fuzzer_t *fuzzer, kvstore_span_t *span, bool is_offload, uint64_t byte_count) {
    switch (below(fuzzer, 4)) {
    case 0: /* short, to the byte */
        span->capacity = below(fuzzer, byte_count);
        if (is_offload) span->length = span->capacity;
        else span->data = guarded(fuzzer, span->capacity, 0xA5);
        break;
    case 1: span->data = NULL; break;
    case 2:
        span->length = is_offload ? (size_t)(UINT64_MAX >> below(fuzzer, 8)) : 0;
        if (!is_offload) span->data = guarded(fuzzer, byte_count, 0xA5);
        break;
    default: span->length = below(fuzzer, byte_count + 1);
    }
}

move_t pick_move(fuzzer_t *fuzzer, unsigned space, bool is_offload, unsigned char *memory, kvstore_span_t *spans,
                 kvstore_status_t *statuses) {
    const shape_t *shape = &shapes[space % shape_count];
    move_t move;
    unsigned s, count;
    memset(&move, 0, sizeof move);
    move.first_block = one_in(fuzzer, 4) ? (unsigned)below(fuzzer, blocks_max) : 0;
    move.block_count = 1 + (unsigned)below(fuzzer, blocks_max - move.first_block);
    move.region_count = shape->region_count;
    if (one_in(fuzzer, 8)) {
        move.first_region = (unsigned)below(fuzzer, shape->region_count);
        move.region_count = 1 + (unsigned)below(fuzzer, shape->region_count - move.first_region);
    }
    count = move.block_count * move.region_count;
    for (s = 0; s < count; s++) {
        unsigned region = move.first_region + s % move.region_count;
        uint64_t byte_count = shape->region_bytes[region];
        spans[s].data = memory + (size_t)s * region_bytes_max;
        spans[s].capacity = byte_count;
        spans[s].length = shape->variable && is_offload ? 1 + below(fuzzer, byte_count) : byte_count;
    }
    if (one_in(fuzzer, 20)) {
        s = (unsigned)below(fuzzer, count);
        wild_span(fuzzer, &spans[s], is_offload, shape->region_bytes[move.first_region + s % move.region_count]);
    }
    move.transfer.first_block = move.first_block;
    move.transfer.block_count = move.block_count;
    move.transfer.first_region = move.first_region;
    move.transfer.region_count = move.region_count;
    move.transfer.spans = spans;
    move.transfer.span_count = count;
    move.transfer.block_status = one_in(fuzzer, 4) ? NULL : statuses;
    if (one_in(fuzzer, 4)) move.transfer.timeout_nanoseconds = 1 + wild_number(fuzzer) % 3000000;
    if (one_in(fuzzer, 30)) move.transfer.prefix_block_count = wild_number(fuzzer) % 20;
    if (one_in(fuzzer, 100)) move.transfer.prefix_block_count = wild_number(fuzzer);
    if (one_in(fuzzer, 30))
        switch (below(fuzzer, 7)) {
        /* Beyond the prompt, so that no call that is taken moves other bytes than these. */
        case 0: move.transfer.first_block = wild_number(fuzzer) | 64; break;
        case 1: move.transfer.block_count = wild_number(fuzzer); break;
        case 2: move.transfer.first_region = (uint32_t)wild_number(fuzzer) | 64; break;
        case 3: move.transfer.region_count = (uint32_t)wild_number(fuzzer); break;
        case 4: move.transfer.span_count = wild_count(fuzzer, count); break;
        case 5: move.transfer.spans = NULL; break;
        default: move.transfer.flags = (uint32_t)wild_number(fuzzer);
        }
    return move;
}

void note(fuzzer_t *fuzzer, const char *call, kvstore_status_t status) {
    const char *message;
    atomic_fetch_add(&call_count, 1);
    atomic_fetch_add(&fuzzer->call_number, 1);
    if (status < -14 || status > KVSTORE_DECLINED) return fail(fuzzer, call, status);
    atomic_fetch_add(&statuses_seen[status + 16], 1);
    message = kvstore_last_error_message();
    if (message == NULL || (status < 0 && message[0] == '\0')) fail(fuzzer, "an error without a message", status);
    if (status == KVSTORE_E_INTERNAL || status == KVSTORE_E_CORRUPT || status == KVSTORE_E_IO || status == KVSTORE_E_FORKED)
        fail(fuzzer, call, status);
}
