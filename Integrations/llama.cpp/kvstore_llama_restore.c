/* kvstore_llama_restore.c — reads blocks from the store and joins them to a sequence. */
#include "kvstore_llama_internal.h"

#include <pthread.h>
#include <time.h>

/* A look at a fetch costs a walk of the prompt; a chunk takes a millisecond and more. */
#define REMOTE_LOOK_NANOSECONDS 2000000L

/* A restore reads ahead: while llama.cpp takes one batch, the next one comes from the store. The
 * reader is a thread of its own and the only one that talks to the store; llama.cpp is touched by
 * the caller's thread alone. */
typedef struct {
    kvstore_llama_t *adapter;
    const kvstore_prompt_t *prompt;
    uint64_t block_count;
    uint64_t batch_count;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Guarded by `lock`: */
    uint64_t batches_read;  /* by the reader */
    uint64_t batches_taken; /* by llama.cpp */
    bool stop;              /* the caller wants no more */

    struct {
        kvstore_span_t spans[BATCH_BLOCKS];
        uint64_t asked;
        kvstore_transfer_result_t result;
        kvstore_status_t status;
    } batches[BATCHES]; /* owned by the reader until counted in batches_read, then by the caller
                           until taken */
} reader_t;

static void read_batch(reader_t *reader, uint64_t batch) {
    kvstore_llama_t *adapter = reader->adapter;
    const uint64_t first = batch * BATCH_BLOCKS;
    const uint64_t rest = reader->block_count - first;
    const uint64_t count = rest < BATCH_BLOCKS ? rest : BATCH_BLOCKS;
    kvstore_transfer_t transfer;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = sizeof transfer;
    transfer.first_block = first;
    transfer.block_count = count;
    transfer.region_count = 1;
    transfer.spans = reader->batches[batch % BATCHES].spans;
    transfer.span_count = (size_t)count;
    for (uint64_t i = 0; i < count; i++) {
        transfer.spans[i].data = piece(adapter, batch, i);
        transfer.spans[i].capacity = adapter->piece_bytes;
        transfer.spans[i].length = 0;
    }
    kvstore_transfer_result_t result;
    memset(&result, 0, sizeof result);
    result.struct_size = sizeof result;
    const kvstore_status_t status =
        kvstore_restore(adapter->ns, reader->prompt, &transfer, &result);
    reader->batches[batch % BATCHES].asked = count;
    reader->batches[batch % BATCHES].result = result;
    reader->batches[batch % BATCHES].status = status;
}

static void *read_ahead(void *argument) {
    reader_t *reader = argument;
    for (uint64_t batch = 0; batch < reader->batch_count; batch++) {
        pthread_mutex_lock(&reader->lock);
        while (!reader->stop && batch - reader->batches_taken >= BATCHES) {
            pthread_cond_wait(&reader->changed, &reader->lock);
        }
        const bool stop = reader->stop;
        pthread_mutex_unlock(&reader->lock);
        if (stop) break;
        read_batch(reader, batch);
        pthread_mutex_lock(&reader->lock);
        reader->batches_read = batch + 1;
        pthread_cond_signal(&reader->changed);
        pthread_mutex_unlock(&reader->lock);
        if (reader->batches[batch % BATCHES].status != KVSTORE_OK) break;
    }
    return NULL;
}

/* Hands one blob to llama.cpp and joins it onto `seq`. */
static bool load_block(kvstore_llama_t *adapter, llama_seq_id seq, const uint8_t *blob,
                       size_t bytes, uint64_t index) {
    llama_memory_t memory = llama_get_memory(adapter->llama);
    if (adapter->recurrent) {
        const size_t whole = kvstore_llama_join(adapter, blob, bytes);
        const bool taken = whole > 0 && llama_state_seq_set_data(adapter->llama, adapter->whole,
                                                                 whole, adapter->scratch) == whole;
        if (taken) llama_memory_seq_cp(memory, adapter->scratch, seq, -1, -1);
        llama_memory_seq_rm(memory, adapter->scratch, -1, -1);
        return taken;
    }
    const llama_pos first = (llama_pos)index * adapter->tokens_per_block;
    bool loaded = bytes > 0 &&
                  llama_state_seq_set_data(adapter->llama, blob, bytes, adapter->scratch) == bytes;
    /* Where the block lies is part of its blob; a blob of other positions must not get into the
     * sequence. */
    loaded =
        loaded && llama_memory_seq_pos_min(memory, adapter->scratch) == first &&
        llama_memory_seq_pos_max(memory, adapter->scratch) == first + adapter->tokens_per_block - 1;
    if (loaded) llama_memory_seq_cp(memory, adapter->scratch, seq, -1, -1);
    llama_memory_seq_rm(memory, adapter->scratch, -1, -1);
    return loaded;
}

/* Takes every batch that the reader delivers; returns the number of blocks that are in the sequence
 * then. */
static uint64_t take_batches(reader_t *reader, bool threaded, llama_seq_id seq) {
    kvstore_llama_t *adapter = reader->adapter;
    kvstore_llama_report_t *report = &adapter->report;
    uint64_t loaded = 0;
    for (uint64_t batch = 0; batch < reader->batch_count; batch++) {
        if (threaded) {
            pthread_mutex_lock(&reader->lock);
            while (reader->batches_read <= batch)
                pthread_cond_wait(&reader->changed, &reader->lock);
            pthread_mutex_unlock(&reader->lock);
        } else {
            read_batch(reader, batch);
        }
        const uint64_t asked = reader->batches[batch % BATCHES].asked;
        const kvstore_status_t status = reader->batches[batch % BATCHES].status;
        const kvstore_transfer_result_t *result = &reader->batches[batch % BATCHES].result;
        report->blocks_host += result->blocks_host;
        report->blocks_disk += result->blocks_disk;
        report->bytes += result->bytes;
        for (uint64_t i = 0; i < result->blocks_done; i++) {
            const kvstore_span_t *span = &reader->batches[batch % BATCHES].spans[i];
            if (!load_block(adapter, seq, span->data, span->length, loaded)) {
                report->status = KVSTORE_MISS;
                report->note =
                    "llama.cpp did not take the block: no free cells, or another configuration";
                return loaded;
            }
            loaded++;
        }
        if (status != KVSTORE_OK || result->blocks_done < asked) {
            report->status = status != KVSTORE_OK ? status : KVSTORE_MISS;
            report->note = "the store could not deliver every block that it had matched";
            return loaded;
        }
        if (threaded) {
            pthread_mutex_lock(&reader->lock);
            reader->batches_taken = batch + 1;
            pthread_cond_signal(&reader->changed);
            pthread_mutex_unlock(&reader->lock);
        }
    }
    return loaded;
}

static uint64_t restore_blocks(kvstore_llama_t *adapter, llama_seq_id seq,
                               const kvstore_prompt_t *prompt, uint64_t block_count) {
    reader_t reader;
    memset(&reader, 0, sizeof reader);
    reader.adapter = adapter;
    reader.prompt = prompt;
    reader.block_count = block_count;
    reader.batch_count = (block_count + BATCH_BLOCKS - 1) / BATCH_BLOCKS;
    pthread_mutex_init(&reader.lock, NULL);
    pthread_cond_init(&reader.changed, NULL);
    pthread_t thread;
    /* Where no thread is to be had, the same work goes on without overlap. */
    const bool threaded =
        reader.batch_count > 1 && pthread_create(&thread, NULL, read_ahead, &reader) == 0;
    const uint64_t loaded = take_batches(&reader, threaded, seq);
    if (threaded) {
        pthread_mutex_lock(&reader.lock);
        reader.stop = true;
        pthread_cond_signal(&reader.changed);
        pthread_mutex_unlock(&reader.lock);
        pthread_join(thread, NULL);
    }
    pthread_cond_destroy(&reader.changed);
    pthread_mutex_destroy(&reader.lock);
    return loaded;
}

static uint64_t monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Lets the store's remote tier bring what it has of the prompt, and waits until nothing more is on
 * its way or the time is up. Without such a tier it is one look. */
static void wait_for_remote(kvstore_llama_t *adapter, const kvstore_prompt_t *prompt) {
    if (adapter->remote_wait_nanoseconds == 0) return;
    const uint32_t flags =
        KVSTORE_MATCH_PEEK | KVSTORE_MATCH_LEAVE_ONE_TOKEN | KVSTORE_MATCH_REMOTE;
    const uint64_t start = monotonic_nanoseconds();
    for (;;) {
        kvstore_match_t match[2];
        memset(match, 0, sizeof match);
        match[0].struct_size = match[1].struct_size = sizeof match[0];
        const kvstore_status_t status =
            adapter->recurrent
                ? kvstore_match_sections(adapter->ns, &adapter->states, 1, prompt, flags, 0, match)
                : kvstore_match(adapter->ns, prompt, flags, 0, match);
        adapter->report.remote_nanoseconds = monotonic_nanoseconds() - start;
        if (status != KVSTORE_OK && status != KVSTORE_MISS) return;
        if (match[0].being_fetched == 0) return;
        if (adapter->report.remote_nanoseconds >= adapter->remote_wait_nanoseconds) {
            adapter->report.remote_unfinished = 1;
            return;
        }
        nanosleep(&(struct timespec){0, REMOTE_LOOK_NANOSECONDS}, NULL);
    }
}

int32_t kvstore_llama_restore(kvstore_llama_t *adapter, llama_seq_id seq, const llama_token *tokens,
                              int32_t n) {
    if (adapter == NULL) return 0;
    memset(&adapter->report, 0, sizeof adapter->report);
    if (!usable(adapter, seq, tokens, n)) {
        return end(adapter, 0, KVSTORE_E_INVALID_ARGUMENT,
                   "no such sequence, or it is the scratch sequence");
    }
    llama_memory_t memory = llama_get_memory(adapter->llama);
    if (llama_memory_seq_pos_max(memory, seq) >= 0 ||
        llama_memory_seq_pos_max(memory, adapter->scratch) >= 0) {
        return end(adapter, 0, KVSTORE_E_INVALID_ARGUMENT,
                   "the sequence or the scratch sequence is not empty");
    }
    const int32_t token_count = leading_tokens(tokens, n);
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    kvstore_match_t match[2]; /* of the blocks and, of recurrent models, of the checkpoint */
    memset(match, 0, sizeof match);
    match[0].struct_size = match[1].struct_size = sizeof match[0];
    if (token_count <= adapter->tokens_per_block) return end(adapter, 0, KVSTORE_MISS, NULL);
    wait_for_remote(adapter, &prompt);
    /* An image right behind the last token leaves something to compute; asking to leave a token is
     * simpler and costs at most one block. */
    const kvstore_status_t status =
        adapter->recurrent
            ? kvstore_match_sections(adapter->ns, &adapter->states, 1, &prompt,
                                     KVSTORE_MATCH_LEAVE_ONE_TOKEN,
                                     KVSTORE_LEASE_NANOSECONDS_DEFAULT, match)
            : kvstore_match(adapter->ns, &prompt, KVSTORE_MATCH_LEAVE_ONE_TOKEN,
                            KVSTORE_LEASE_NANOSECONDS_DEFAULT, match);
    /* FULL: no lease is free. The blocks may be evicted while we read; then the rest of them is a
     * miss. */
    if (status != KVSTORE_OK && status != KVSTORE_FULL) {
        return end(adapter, 0, status,
                   status == KVSTORE_MISS ? NULL : "the store could not be asked");
    }
    if (match[0].blocks_matched == 0) return end(adapter, 0, KVSTORE_MISS, NULL);

    llama_synchronize(adapter->llama);
    adapter->report.status = KVSTORE_OK;
    const uint64_t loaded = restore_blocks(adapter, seq, &prompt, match[0].blocks_matched);
    /* A prefix of recurrent layers is whole or none. */
    const bool usable_state =
        !adapter->recurrent || (loaded == match[0].blocks_matched &&
                                kvstore_llama_load_state(adapter, seq, &prompt, loaded));
    for (int i = 0; i < 2; i++) {
        if (match[i].lease != 0) kvstore_lease_release(adapter->store, match[i].lease);
    }
    adapter->report.blocks = loaded;
    if (!usable_state) {
        llama_memory_seq_rm(memory, seq, -1, -1);
        adapter->report.blocks = 0;
        return end(adapter, 0, KVSTORE_MISS,
                   "the prefix or its recurrent state did not come whole; sequence cleared");
    }

    const int32_t restored = (int32_t)loaded * adapter->tokens_per_block;
    if (restored == 0) return 0;
    /* The next token must see its whole window. Nothing in llama.cpp reports a hole here: it would
     * compute on, wrongly. */
    const llama_pos needed = adapter->window_tokens > 0 && restored > adapter->window_tokens
                                 ? restored - adapter->window_tokens
                                 : 0;
    const llama_pos oldest = adapter->recurrent ? 0 : llama_memory_seq_pos_min(memory, seq);
    if (oldest < 0 || oldest > needed || llama_memory_seq_pos_max(memory, seq) != restored - 1) {
        llama_memory_seq_rm(memory, seq, -1, -1);
        adapter->report.blocks = 0;
        return end(adapter, 0, KVSTORE_MISS,
                   "llama.cpp did not keep the whole window; sequence cleared");
    }
    return restored;
}
