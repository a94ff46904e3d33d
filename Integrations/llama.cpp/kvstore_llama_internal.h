/* kvstore_llama_internal.h — what the adapter's own files share; programs include kvstore_llama.h.
 */
#ifndef KVSTORE_LLAMA_INTERNAL_H
#define KVSTORE_LLAMA_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "kvstore_llama.h"

#include <stdbool.h>
#include <string.h>

/* Blocks that one store call moves. Two batches are in flight during a restore, one being read
 * while the other is handed to llama.cpp; small batches keep both in the CPU's cache and the first
 * wait short. */
#define BATCH_BLOCKS 4
#define BATCHES 2

/* Direct I/O into our memory is possible only at this alignment. */
#define PAGE_BYTES 4096u

struct kvstore_llama {
    kvstore_t *store;
    kvstore_namespace_t *ns;
    struct llama_context *llama;
    llama_seq_id scratch;
    int32_t tokens_per_block;
    int32_t window_tokens; /* the sliding window, 0 if there is none */
    size_t blob_bytes_max; /* the namespace's region size */
    size_t piece_bytes;    /* the same, rounded up to whole pages */
    uint8_t *pieces;       /* BATCHES × BATCH_BLOCKS pieces, reused by every call */
    kvstore_llama_report_t report;
    uint64_t remote_wait_nanoseconds;

    /* Of models with recurrent layers: see kvstore_llama_recurrent.c. */
    bool recurrent;
    int32_t checkpoint_tokens;
    kvstore_namespace_t *states; /* the side sections of checkpoints */
    size_t attention_bytes;      /* of each block */
    size_t state_bytes_max;      /* of a checkpoint */
    uint8_t *empty;              /* the recurrent part of an empty sequence */
    size_t empty_bytes;
    uint8_t *whole; /* a block with a recurrent part behind it, or a checkpoint */
    size_t whole_bytes;
    int32_t *boundaries; /* by sequence: where its prompt's last block ends */
};

/* ---------------------------------------------------------------- identity */

/* Text that may grow without bound, such as system information; cut at the end of the buffer it
 * would be a weaker identity, so overflow is remembered and refused. */
typedef struct {
    char text[8192];
    size_t length;
    bool overflow;
} kvstore_llama_text_t;

/* SHA-256. */
typedef struct {
    uint32_t state[8];
    uint64_t byte_count;
    uint8_t pending[64];
} kvstore_llama_hash_t;

/* What llama.h tells of everything that changes KV bytes. */
typedef struct {
    char model_name[320], kv_dtype[96];
    kvstore_llama_text_t engine, rope, layout;
    uint8_t settings[32]; /* a digest of all parameters and switches */
    uint32_t layer_count, kv_head_count, head_size;
    uint64_t blob_bytes_max; /* a bound for the blob of a block, in whole pages */
} kvstore_llama_identity_t;

/* Hidden: a library that has the adapter in it exports kvstore_llama.h alone. */
#pragma GCC visibility push(hidden)

/* The first thing that keeps this context from being cut into blocks; NULL if nothing does. */
const char *kvstore_llama_obstacle(const kvstore_llama_config_t *config, llama_seq_id scratch);

/* Whether some of its layers have a state instead of KV. */
bool kvstore_llama_is_recurrent(const struct llama_model *model);

/* Fills *identity, which is all zeros. */
void kvstore_llama_describe(const kvstore_llama_config_t *config,
                            kvstore_llama_identity_t *identity);

void kvstore_llama_hash_init(kvstore_llama_hash_t *hash);
void kvstore_llama_hash_add(kvstore_llama_hash_t *hash, const void *data, size_t count);
void kvstore_llama_hash_finish(kvstore_llama_hash_t *hash, uint8_t digest_out[32]);

/* The digest of everything that the model and the context were made with, but for what cannot
 * change KV bytes. false: there is no memory. */
bool kvstore_llama_hash_settings(const kvstore_llama_config_t *config, uint8_t digest_out[32]);

/* Finds the sizes of blocks and checkpoints, by two tokens in the scratch sequence. Returns what is
 * in the way, NULL if nothing is. */
const char *kvstore_llama_measure(kvstore_llama_t *adapter);
void kvstore_llama_forget_measures(kvstore_llama_t *adapter);

/* What attention has of the scratch sequence, into `blob`; returns its bytes, 0 with a reason. */
size_t kvstore_llama_cut(kvstore_llama_t *adapter, uint8_t *blob, const char **note);

/* A block as llama.cpp takes it, into adapter->whole; returns its bytes, 0 if it is none. */
size_t kvstore_llama_join(kvstore_llama_t *adapter, const uint8_t *blob, size_t bytes);

/* Stores the state of `seq` if one is due at its n-th token and the sequence stands exactly there. */
kvstore_status_t kvstore_llama_save_state(kvstore_llama_t *adapter, llama_seq_id seq,
                                          const llama_token *tokens, int32_t n);
bool kvstore_llama_load_state(kvstore_llama_t *adapter, llama_seq_id seq,
                              const kvstore_prompt_t *prompt, uint64_t block_count);

#pragma GCC visibility pop

/* ---------------------------------------------------------------- moving blocks, both ways */

/* Sets the report's outcome and returns `tokens`, so that every way out of a call is one line. */
static inline int32_t end(kvstore_llama_t *adapter, int32_t tokens, kvstore_status_t status,
                          const char *note) {
    adapter->report.status = status;
    adapter->report.note = note;
    return tokens;
}

static inline uint8_t *piece(const kvstore_llama_t *adapter, uint64_t batch, uint64_t index) {
    return adapter->pieces + (batch % BATCHES * BATCH_BLOCKS + index) * adapter->piece_bytes;
}

/* llama.cpp aborts on a sequence id that it does not have, so it never gets to see one. */
static inline bool usable(const kvstore_llama_t *adapter, llama_seq_id seq,
                          const llama_token *tokens, int32_t n) {
    return seq >= 0 && (uint32_t)seq < llama_n_seq_max(adapter->llama) && seq != adapter->scratch &&
           n >= 0 && (tokens != NULL || n == 0);
}

/* Engines mark positions that hold an embedding (an image) by a negative token: what follows is not
 * identified by tokens alone, so the prompt ends there for us. */
static inline int32_t leading_tokens(const llama_token *tokens, int32_t n) {
    int32_t count = 0;
    while (count < n && tokens[count] >= 0) count++;
    return count;
}

static inline kvstore_prompt_t prompt_of(const llama_token *tokens, int32_t n) {
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = sizeof prompt;
    prompt.tokens =
        (const uint32_t *)tokens; /* the signed and unsigned form of one type: may alias */
    prompt.token_count = (size_t)n;
    return prompt;
}

#endif /* KVSTORE_LLAMA_INTERNAL_H */
