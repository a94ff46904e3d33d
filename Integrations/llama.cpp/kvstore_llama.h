/* kvstore_llama.h — keeps the KV cache of a llama.cpp context in a kvstore.
 *
 * Two calls around llama_decode are all that an engine needs:
 *
 *   int32_t done = kvstore_llama_restore(k, seq, tokens, n);  // before the prefill
 *   ... llama_decode tokens[done ... n), kvstore_llama_next(k, seq, done, n) of them a call, and
 *   after each of them:
 *   kvstore_llama_offload(k, seq, tokens, n_decoded_so_far);
 *
 * How it works. A block is the state of `tokens_per_block` consecutive tokens, as
 * llama_state_seq_get_data writes it: an opaque blob that nobody but llama.cpp reads. To cut one
 * block out of a sequence, the block's cells are tagged as a *scratch sequence*
 * (llama_memory_seq_cp, which copies nothing in a unified cache), the scratch sequence is saved,
 * and the tag is taken off again. To put a block back, the blob is loaded into the scratch
 * sequence, which is then copied onto the real one. Since every block is a sequence of its own to
 * llama.cpp, this works alike for full and sliding-window attention, with and without flash
 * attention, for every KV type.
 *
 * Models with recurrent layers (Mamba, gated delta nets, short convolutions), alone or beside
 * attention, have one state for a sequence, which cannot be cut into blocks: it is stored as a
 * checkpoint at ends of blocks, where a sequence stands exactly there, and a prefix can be restored
 * up to a checkpoint. kvstore_llama_next makes it stand there.
 *
 * What it needs: kv_unified = true, n_seq_max >= 2 with one sequence id to spare, a causal decoder
 * model. kvstore_llama_open checks this and refuses; it never lets llama.cpp abort the process.
 *
 * Threads: like the llama_context that it wraps, a kvstore_llama_t belongs to one thread at a time.
 * Compiles as C99 (with GNU/Linux's threads and clocks) and its header as C++. Licence: Apache-2.0.
 */
#ifndef KVSTORE_LLAMA_H
#define KVSTORE_LLAMA_H

#include <stddef.h>
#include <stdint.h>

#include "kvstore.h"
#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KVSTORE_LLAMA_TOKENS_PER_BLOCK 64u
/* Of models with recurrent layers: cutting a block out copies their whole state. */
#define KVSTORE_LLAMA_TOKENS_PER_BLOCK_RECURRENT 256u
#define KVSTORE_LLAMA_CHECKPOINT_TOKENS 4096u

typedef struct kvstore_llama kvstore_llama_t;

typedef struct {
    kvstore_t *store;            /* open; must outlive the adapter */
    struct llama_context *llama; /* must outlive the adapter */
    /* The very parameters that `llama` was made with: llama.h has no way to ask a context for its
     * KV types, RoPE settings or flash attention, and all of them change the bytes. */
    struct llama_context_params context_params;
    /* The very parameters that its model was loaded with, for the same reason: overrides of the
     * metadata, devices. They have to be set; kvstore_llama_open refuses what config_init left. */
    struct llama_model_params model_params;

    /* 32 bytes or more that name the weights as loaded, for instance the SHA-256 of the GGUF file,
     * which kvstore_llama_digest_file computes. Know it once and pass it: hashing 40 GB at each
     * start is no way to save time. */
    kvstore_bytes_t weights_digest;
    /* Empty, or a digest of the content of every LoRA and control vector in use, and their
     * scales. */
    kvstore_bytes_t adapter_digest;
    /* Empty, or anything else that changes the KV values and that llama.h does not tell. */
    kvstore_bytes_t identity_extra;
    /* Empty, or a tenant's secret: prompts are shared only among those who have it. */
    kvstore_bytes_t salt;

    uint32_t tokens_per_block; /* 0: 64, or 256 with recurrent layers; at most half of a window */
    /* A sequence id that the engine leaves alone. Default: the last one, n_seq_max - 1. */
    llama_seq_id scratch_seq;
    /* The most bytes that one block's blob may have; 0: computed from the model's shape. The store
     * sets slots of this size aside, and it is part of the namespace's identity. */
    uint64_t block_bytes_max;
    /* Of models with recurrent layers: a checkpoint at each multiple of so many tokens, besides the
     * last block end of each prompt; a multiple of tokens_per_block. Default 4096. Each takes the
     * whole recurrent state. */
    uint32_t checkpoint_tokens;
    /* How long a restore waits for what the store's remote tier has of a prompt (docs/remote.md),
     * where the store was opened with one. 0: it is not asked. Default 2 s. */
    uint64_t remote_wait_nanoseconds;
} kvstore_llama_config_t;

/* What the last call did. */
typedef struct {
    /* KVSTORE_OK: all of it. KVSTORE_MISS: nothing was stored, or, with a note, something was left
     * out: the store lost a block, or llama.cpp did not have or take one. Any other status: what
     * the store answered. */
    kvstore_status_t status;
    /* Why the call stopped early, a static string; NULL if it did not. */
    const char *note;
    uint64_t blocks;      /* restored into, or newly taken from, the sequence; or removed */
    uint64_t blocks_host; /* restore: of those, from the store's RAM */
    uint64_t blocks_disk; /* restore: of those, from disk */
    uint64_t bytes;       /* of blobs moved */
    /* restore: how long it has waited for the remote tier, and 1 if something was still on its way
     * when the time was up. */
    uint64_t remote_nanoseconds;
    uint64_t remote_unfinished;
} kvstore_llama_report_t;

/* Fills *config with the defaults. */
void kvstore_llama_config_init(kvstore_llama_config_t *config);

/* Checks that the context can be served and opens the namespace of its identity: everything that
 * changes KV bytes, that is, all of both parameter structs but a few fields that cannot matter
 * (kvstore_llama_settings.c), and the switches of the environment that begin with LLAMA_ or GGML_
 * as they are now: open the adapter right after the context. Open it anew after a call that changes
 * what is computed (llama_set_adapters_lora, llama_set_adapter_cvec, llama_set_causal_attn). With
 * recurrent layers it computes two tokens in the scratch sequence, which shows how large a state
 * is. Blocks for one durable commit when the namespace is new. Returns KVSTORE_OK,
 * KVSTORE_E_INVALID_ARGUMENT (the context cannot be served, or the configuration makes no sense),
 * KVSTORE_E_OUT_OF_MEMORY, or what kvstore_namespace_open answers. kvstore_llama_error_message()
 * tells more. */
kvstore_status_t kvstore_llama_open(const kvstore_llama_config_t *config,
                                    kvstore_llama_t **adapter_out);

/* Frees the adapter; blocks stay. The store and the context stay open. NULL is a no-op. */
void kvstore_llama_close(kvstore_llama_t *adapter);

/* Why the last kvstore_llama_open of this thread failed. Never NULL. */
const char *kvstore_llama_error_message(void);

/* Puts the longest stored prefix of tokens[0 ... n) into `seq`, which must be empty, and returns
 * how many tokens that is: a multiple of tokens_per_block, 0 if nothing was found, and always less
 * than n, since llama.cpp needs a token to compute logits from. Decode goes on at that position. On
 * any failure the sequence holds exactly the prefix that the returned count says. Blocks on disk.
 */
int32_t kvstore_llama_restore(kvstore_llama_t *adapter, llama_seq_id seq, const llama_token *tokens,
                              int32_t n);

/* How many tokens to decode in the next call, when `at` of tokens[0 ... n) are in `seq`: at most
 * n_ubatch, and for models with recurrent layers not past the next place of a checkpoint, which the
 * kvstore_llama_offload after it then stores. 0 if nothing is left. */
int32_t kvstore_llama_next(kvstore_llama_t *adapter, llama_seq_id seq, int32_t at, int32_t n);

/* Offloads every full block of tokens[0 ... n) that the store does not have yet, and returns how
 * many leading tokens it has now. `seq` must hold these tokens at positions 0 ... n-1, decoded, and
 * not shifted or edited since. Cheap when there is nothing to do, so call it after each
 * llama_decode of at most n_ubatch tokens: a small sliding-window cache keeps a block only that
 * long, and a block that has left it cannot be offloaded any more, nor can those behind it. Returns
 * when the bytes are copied; they are durable after kvstore_flush. */
int32_t kvstore_llama_offload(kvstore_llama_t *adapter, llama_seq_id seq, const llama_token *tokens,
                              int32_t n);

/* The conversation of tokens[0 ... n) is over, or goes on from a summary of it: removes of its
 * blocks, and of their recurrent states, what no other prompt shares, durably when it returns, and
 * returns how many blocks that are. Blocks for one durable commit. 0 also if nothing is stored, or
 * the store fails: kvstore_llama_report tells. */
uint64_t kvstore_llama_end(kvstore_llama_t *adapter, const llama_token *tokens, int32_t n);

/* The namespace of the adapter's blocks, for what kvstore.h does with one: sessions
 * (kvstore_session_begin), pins, keep-alives, explanations. The adapter's: do not close it. */
kvstore_namespace_t *kvstore_llama_namespace(const kvstore_llama_t *adapter);

/* What the last kvstore_llama_restore, _offload or _end did. Valid until the next one. */
const kvstore_llama_report_t *kvstore_llama_report(const kvstore_llama_t *adapter);

/* The SHA-256 of a file; of a model in parts, given the first one ("NAME-00001-of-00003.gguf"), that
 * of all parts one after the other. Returns 0, or an errno. */
int kvstore_llama_digest_file(const char *path, uint8_t digest_out[32]);

#ifdef __cplusplus
}
#endif
#endif /* KVSTORE_LLAMA_H */
