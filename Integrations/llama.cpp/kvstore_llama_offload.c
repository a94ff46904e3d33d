/* kvstore_llama_offload.c — cuts blocks out of a sequence and gives them to the store. */
#include "kvstore_llama_internal.h"

/* Saves block `index` of `seq` into `blob`. Returns its bytes, or 0 with a reason in *note. */
static size_t save_block(kvstore_llama_t *adapter, llama_seq_id seq, int32_t index, uint8_t *blob,
                         const char **note) {
    llama_memory_t memory = llama_get_memory(adapter->llama);
    const llama_pos first = index * adapter->tokens_per_block;
    const llama_pos past = first + adapter->tokens_per_block;
    size_t bytes = 0;
    llama_memory_seq_cp(memory, seq, adapter->scratch, first, past);
    if (adapter->recurrent) {
        bytes = kvstore_llama_cut(adapter, blob, note);
        llama_memory_seq_rm(memory, adapter->scratch, -1, -1);
        return bytes;
    }
    /* The two ends tell that the block is whole, since the positions between them always are there.
     * A sliding window that has moved on shows here, and nowhere else: the save itself would
     * succeed without those cells. */
    if (llama_memory_seq_pos_min(memory, adapter->scratch) != first ||
        llama_memory_seq_pos_max(memory, adapter->scratch) != past - 1) {
        *note = "the block is not whole in the engine's cache (any more)";
    } else {
        bytes = llama_state_seq_get_data(adapter->llama, blob, adapter->blob_bytes_max,
                                         adapter->scratch);
        if (bytes == 0) *note = "llama.cpp could not save the block (larger than block_bytes_max?)";
    }
    llama_memory_seq_rm(memory, adapter->scratch, -1, -1);
    return bytes;
}

static int32_t offload_blocks(kvstore_llama_t *adapter, llama_seq_id seq,
                              const llama_token *tokens, int32_t n) {
    memset(&adapter->report, 0, sizeof adapter->report);
    if (!usable(adapter, seq, tokens, n)) {
        return end(adapter, 0, KVSTORE_E_INVALID_ARGUMENT,
                   "no such sequence, or it is the scratch sequence");
    }
    const int32_t per_block = adapter->tokens_per_block;
    const int32_t block_count = leading_tokens(tokens, n) / per_block;
    if (block_count == 0) return end(adapter, 0, KVSTORE_OK, NULL);

    const kvstore_prompt_t prompt = prompt_of(tokens, block_count * per_block);
    kvstore_match_t match;
    memset(&match, 0, sizeof match);
    match.struct_size = sizeof match;
    kvstore_status_t status = kvstore_match(adapter->ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match);
    if (status != KVSTORE_OK && status != KVSTORE_MISS) {
        return end(adapter, 0, status, "the store could not be asked");
    }
    int32_t stored = (int32_t)match.blocks_matched;
    if (stored >= block_count) return end(adapter, stored * per_block, KVSTORE_OK, NULL);

    llama_memory_t memory = llama_get_memory(adapter->llama);
    if (llama_memory_seq_pos_max(memory, adapter->scratch) >= 0) {
        return end(adapter, stored * per_block, KVSTORE_E_INVALID_ARGUMENT,
                   "the scratch sequence is not empty: someone else uses it");
    }
    llama_synchronize(adapter->llama);

    while (stored < block_count) {
        kvstore_span_t spans[BATCH_BLOCKS];
        int32_t count = 0;
        const char *note = NULL;
        while (count < BATCH_BLOCKS && stored + count < block_count) {
            uint8_t *blob = piece(adapter, 0, (uint64_t)count);
            const size_t bytes = save_block(adapter, seq, stored + count, blob, &note);
            if (bytes == 0) break;
            spans[count].data = blob;
            spans[count].capacity = adapter->piece_bytes;
            spans[count].length = bytes;
            count++;
        }
        if (count > 0) {
            const kvstore_prompt_t whole = prompt_of(tokens, (stored + count) * per_block);
            kvstore_transfer_t transfer;
            kvstore_transfer_result_t result;
            memset(&transfer, 0, sizeof transfer);
            memset(&result, 0, sizeof result);
            transfer.struct_size = sizeof transfer;
            result.struct_size = sizeof result;
            transfer.first_block = (uint64_t)stored;
            transfer.block_count = (uint64_t)count;
            transfer.region_count = 1;
            transfer.spans = spans;
            transfer.span_count = (size_t)count;
            status = kvstore_offload(adapter->ns, &whole, &transfer, &result);
            adapter->report.blocks += result.blocks_host;
            adapter->report.bytes += result.bytes;
            stored += (int32_t)result.blocks_done;
            if (status != KVSTORE_OK) {
                return end(adapter, stored * per_block, status,
                           "the store did not take every block");
            }
        }
        if (note != NULL) return end(adapter, stored * per_block, KVSTORE_MISS, note);
    }
    return end(adapter, stored * per_block, KVSTORE_OK, NULL);
}

int32_t kvstore_llama_offload(kvstore_llama_t *adapter, llama_seq_id seq, const llama_token *tokens,
                              int32_t n) {
    if (adapter == NULL) return 0;
    const int32_t stored = offload_blocks(adapter, seq, tokens, n);
    if (adapter->recurrent && adapter->report.status == KVSTORE_OK && stored == n) {
        const kvstore_status_t status = kvstore_llama_save_state(adapter, seq, tokens, n);
        if (status != KVSTORE_OK)
            return end(adapter, stored, status, "the recurrent state was not stored");
    }
    return stored;
}
