/* kvstore_llama_recurrent.c — models with recurrent layers, alone or beside attention.
 *
 * Such a layer has one state for a whole sequence. So what is stored is in two kinds:
 *
 *   a block       what attention has of its tokens: the blob of the scratch sequence without the
 *                 recurrent part, which llama.cpp writes last
 *   a checkpoint  the recurrent part of the sequence as it stands at the end of a block, in a side
 *                 section of the store; a prefix can be restored where there is one
 *
 * To put a block back, the recurrent part of an empty sequence is set behind it, and the checkpoint
 * is loaded once the last block is there. */
#include "kvstore_llama_internal.h"

#include <stdlib.h>

#define HEADER_BYTES 8u /* magic and sequence id: the same before both parts */
#define MARGIN_BYTES 4096u

static size_t part_bytes(const kvstore_llama_t *adapter, llama_seq_id seq) {
    return llama_state_seq_get_size_ext(adapter->llama, seq, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
}

/* Bytes that attention has in the scratch sequence; 0 if llama.cpp does not write it as is known
 * here. */
static size_t attention_bytes(const kvstore_llama_t *adapter) {
    const size_t whole = llama_state_seq_get_size(adapter->llama, adapter->scratch);
    const size_t part = part_bytes(adapter, adapter->scratch);
    return part >= HEADER_BYTES && whole >= part ? whole - part + HEADER_BYTES : 0;
}

static bool decode_in_scratch(const kvstore_llama_t *adapter, llama_pos at) {
    struct llama_batch batch = llama_batch_init(1, 0, 1);
    if (batch.token == NULL) return false;
    batch.n_tokens = 1;
    batch.token[0] = 0;
    batch.pos[0] = at;
    batch.n_seq_id[0] = 1;
    batch.seq_id[0][0] = adapter->scratch;
    batch.logits[0] = 0;
    const bool done = llama_decode(adapter->llama, batch) == 0;
    llama_batch_free(batch);
    return done;
}

const char *kvstore_llama_measure(kvstore_llama_t *adapter) {
    llama_memory_t memory = llama_get_memory(adapter->llama);
    if (llama_memory_seq_pos_max(memory, adapter->scratch) >= 0)
        return "the scratch sequence is not empty";
    adapter->empty_bytes = part_bytes(adapter, adapter->scratch);
    adapter->empty = malloc(adapter->empty_bytes + 1);
    if (adapter->empty == NULL) return "out of memory";
    if (adapter->empty_bytes < HEADER_BYTES ||
        llama_state_seq_get_data_ext(adapter->llama, adapter->empty, adapter->empty_bytes,
                                     adapter->scratch, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) !=
            adapter->empty_bytes) {
        return "llama.cpp does not write the state of an empty sequence";
    }
    /* llama.h tells neither size, so one token, and another one, show them. */
    size_t one = 0, two = 0;
    if (decode_in_scratch(adapter, 0)) {
        llama_synchronize(adapter->llama);
        one = attention_bytes(adapter);
        adapter->state_bytes_max = part_bytes(adapter, adapter->scratch) + MARGIN_BYTES;
        if (decode_in_scratch(adapter, 1)) {
            llama_synchronize(adapter->llama);
            two = attention_bytes(adapter);
        }
    }
    llama_memory_seq_rm(memory, adapter->scratch, -1, -1);
    if (one == 0 || two < one) {
        return "two tokens could not be computed in the scratch sequence, which tells how large "
               "the state is";
    }
    adapter->attention_bytes = one + (two - one) * ((size_t)adapter->tokens_per_block - 1);
    adapter->whole_bytes = adapter->attention_bytes + adapter->state_bytes_max;
    adapter->whole = malloc(adapter->whole_bytes);
    adapter->boundaries =
        calloc(llama_n_seq_max(adapter->llama), sizeof *adapter->boundaries);
    return adapter->whole == NULL || adapter->boundaries == NULL ? "out of memory" : NULL;
}

void kvstore_llama_forget_measures(kvstore_llama_t *adapter) {
    free(adapter->empty);
    free(adapter->whole);
    free(adapter->boundaries);
}

size_t kvstore_llama_cut(kvstore_llama_t *adapter, uint8_t *blob, const char **note) {
    const size_t bytes = attention_bytes(adapter);
    if (bytes != adapter->attention_bytes) {
        *note = "the block is not whole in the engine's cache (any more)";
        return 0;
    }
    const size_t whole = llama_state_seq_get_data(adapter->llama, adapter->whole,
                                                  adapter->whole_bytes, adapter->scratch);
    if (whole < bytes) {
        *note = "llama.cpp could not save the block";
        return 0;
    }
    memcpy(blob, adapter->whole, bytes);
    return bytes;
}

size_t kvstore_llama_join(kvstore_llama_t *adapter, const uint8_t *blob, size_t bytes) {
    const size_t tail = adapter->empty_bytes - HEADER_BYTES;
    if (bytes != adapter->attention_bytes || bytes + tail > adapter->whole_bytes) return 0;
    memcpy(adapter->whole, blob, bytes);
    memcpy(adapter->whole + bytes, adapter->empty + HEADER_BYTES, tail);
    return bytes + tail;
}

/* ---------------------------------------------------------------- checkpoints */

/* The place of the checkpoint at the end of the prompt, which is whole blocks. */
typedef struct {
    unsigned char digest[64];
    kvstore_prompt_t prompt;
    kvstore_span_t span;
    kvstore_transfer_t transfer;
} place_t;

static bool find_place(kvstore_llama_t *adapter, const kvstore_prompt_t *prompt,
                       uint64_t block_count, place_t *place) {
    size_t digest_bytes = 0;
    memset(place, 0, sizeof *place);
    if (kvstore_section_digest(adapter->states, prompt, block_count, place->digest,
                               sizeof place->digest, &digest_bytes) != KVSTORE_OK) {
        return false;
    }
    place->prompt.struct_size = sizeof place->prompt;
    place->prompt.digests = place->digest;
    place->prompt.digest_count = 1;
    place->span.data = adapter->whole;
    place->span.capacity = adapter->state_bytes_max;
    place->transfer.struct_size = sizeof place->transfer;
    place->transfer.spans = &place->span;
    place->transfer.span_count = 1;
    place->transfer.block_count = 1;
    return true;
}

kvstore_status_t kvstore_llama_save_state(kvstore_llama_t *adapter, llama_seq_id seq,
                                          const llama_token *tokens, int32_t n) {
    llama_memory_t memory = llama_get_memory(adapter->llama);
    if (n <= 0 || n % adapter->tokens_per_block != 0) return KVSTORE_OK;
    if (n % adapter->checkpoint_tokens != 0 && n != adapter->boundaries[seq]) return KVSTORE_OK;
    /* The state is that of the last token decoded, and no other. */
    if (llama_memory_seq_pos_max(memory, seq) != n - 1) return KVSTORE_OK;
    place_t place;
    const kvstore_prompt_t prompt = prompt_of(tokens, n);
    if (!find_place(adapter, &prompt, (uint64_t)(n / adapter->tokens_per_block), &place)) {
        return KVSTORE_E_INTERNAL;
    }
    kvstore_match_t match;
    memset(&match, 0, sizeof match);
    match.struct_size = sizeof match;
    if (kvstore_match(adapter->states, &place.prompt, KVSTORE_MATCH_PEEK, 0, &match) ==
            KVSTORE_OK &&
        match.blocks_matched == 1) {
        return KVSTORE_OK;
    }
    llama_synchronize(adapter->llama);
    place.span.length =
        llama_state_seq_get_data_ext(adapter->llama, adapter->whole, adapter->state_bytes_max, seq,
                                     LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
    if (place.span.length == 0) return KVSTORE_MISS;
    adapter->report.bytes += place.span.length;
    return kvstore_offload(adapter->states, &place.prompt, &place.transfer, NULL);
}

bool kvstore_llama_load_state(kvstore_llama_t *adapter, llama_seq_id seq,
                              const kvstore_prompt_t *prompt, uint64_t block_count) {
    place_t place;
    if (!find_place(adapter, prompt, block_count, &place)) return false;
    kvstore_transfer_result_t result;
    memset(&result, 0, sizeof result);
    result.struct_size = sizeof result;
    if (kvstore_restore(adapter->states, &place.prompt, &place.transfer, &result) != KVSTORE_OK ||
        result.blocks_done != 1) {
        return false;
    }
    adapter->report.bytes += result.bytes;
    return llama_state_seq_set_data_ext(adapter->llama, adapter->whole, place.span.length, seq,
                                        LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) == place.span.length;
}

int32_t kvstore_llama_next(kvstore_llama_t *adapter, llama_seq_id seq, int32_t at, int32_t n) {
    if (adapter == NULL || at < 0 || n <= at) return 0;
    const int32_t most = (int32_t)llama_n_ubatch(adapter->llama);
    int32_t stop = n;
    if (adapter->recurrent && seq >= 0 && (uint32_t)seq < llama_n_seq_max(adapter->llama)) {
        /* Where the next turn can go on: at least one token is left to compute there. */
        const int32_t last = (n - 1) / adapter->tokens_per_block * adapter->tokens_per_block;
        const int32_t step = adapter->checkpoint_tokens;
        const int64_t next = ((int64_t)at / step + 1) * step;
        adapter->boundaries[seq] = last;
        if (last > at) stop = last;
        if (next < stop) stop = (int32_t)next;
    }
    return stop - at < most ? stop - at : most;
}
