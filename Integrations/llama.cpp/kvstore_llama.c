/* kvstore_llama.c — see kvstore_llama.h. */
#define _GNU_SOURCE
#include "kvstore_llama.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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
};

static __thread char error_message[320];

const char *kvstore_llama_error_message(void) { return error_message; }

static kvstore_status_t fail(kvstore_status_t status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error_message, sizeof error_message, format, arguments);
    va_end(arguments);
    return status;
}

const kvstore_llama_report_t *kvstore_llama_report(const kvstore_llama_t *adapter) {
    return &adapter->report;
}

/* ---------------------------------------------------------------- opening */

/* Text that may grow without bound, such as system information; cut at the end of the buffer it
 * would be a weaker identity, so overflow is remembered and refused. */
typedef struct {
    char text[8192];
    size_t length;
    bool overflow;
} text_t;

static void append(text_t *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const size_t room = sizeof text->text - text->length;
    const int written = vsnprintf(text->text + text->length, room, format, arguments);
    va_end(arguments);
    if (written < 0 || (size_t)written >= room) {
        text->overflow = true;
    } else {
        text->length += (size_t)written;
    }
}

/* A whole number of the model's metadata, "<architecture>.<name>"; false if absent or an array. */
static bool metadata_count(const struct llama_model *model, const char *name, uint64_t *value_out) {
    char architecture[64], key[160], value[64], *end;
    if (llama_model_meta_val_str(model, "general.architecture", architecture, sizeof architecture) <
        0) {
        return false;
    }
    snprintf(key, sizeof key, "%s.%s", architecture, name);
    if (llama_model_meta_val_str(model, key, value, sizeof value) <= 0) return false;
    errno = 0;
    const unsigned long long parsed = strtoull(value, &end, 10);
    if (errno != 0 || *end != '\0' || end == value) return false;
    *value_out = parsed;
    return true;
}

static uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

static uint64_t row_bytes(enum ggml_type type, uint64_t element_count) {
    const uint64_t per_group = (uint64_t)ggml_blck_size(type);
    return (element_count + per_group - 1) / per_group * ggml_type_size(type);
}

typedef struct {
    uint32_t layer_count, kv_head_count, head_size;
    uint64_t blob_bytes_max;
} shape_t;

/* The model's KV shape, and from it a bound for the blob of a block. Where llama.h tells only one
 * layer's shape, or metadata is an array, the larger possibility counts: a bound that is too small
 * would make every block unstorable, one that is too large costs disk slots. */
static shape_t shape_of(const struct llama_model *model, const struct llama_context_params *params,
                        uint32_t tokens_per_block) {
    shape_t shape;
    shape.layer_count = (uint32_t)(llama_model_n_layer(model) + llama_model_n_layer_nextn(model));

    uint64_t heads = (uint64_t)llama_model_n_head_kv(model), value;
    if (metadata_count(model, "attention.head_count_kv", &value)) {
        heads = max_u64(heads, value);
    } else {
        heads = max_u64(heads, (uint64_t)llama_model_n_head(model));
    }

    uint64_t key_size = 0, value_size = 0;
    if (metadata_count(model, "attention.key_length", &value)) key_size = value;
    if (metadata_count(model, "attention.value_length", &value)) value_size = value;
    const int32_t query_heads = llama_model_n_head(model);
    if (key_size == 0 && query_heads > 0)
        key_size = (uint64_t)(llama_model_n_embd(model) / query_heads);
    if (value_size == 0) value_size = key_size;
    if (metadata_count(model, "attention.key_length_swa", &value))
        key_size = max_u64(key_size, value);
    if (metadata_count(model, "attention.value_length_swa", &value)) {
        value_size = max_u64(value_size, value);
    }

    shape.kv_head_count = (uint32_t)heads;
    shape.head_size = (uint32_t)key_size;
    const uint64_t token_bytes =
        shape.layer_count * (row_bytes(params->type_k, heads * key_size) +
                             row_bytes(params->type_v, heads * value_size));
    /* Besides the rows a blob has up to 24 bytes for each cell of each of two caches, and up to 20
     * for each layer's K and V. Doubled, since the layout is llama.cpp's own affair and may gain a
     * field. */
    const uint64_t overhead_bytes =
        1024 + UINT64_C(96) * tokens_per_block + UINT64_C(80) * shape.layer_count;
    const uint64_t bytes = token_bytes * tokens_per_block + overhead_bytes;
    shape.blob_bytes_max = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    return shape;
}

/* The first thing that keeps this context from being cut into blocks; NULL if nothing does. */
static const char *obstacle(const kvstore_llama_config_t *config, llama_seq_id scratch) {
    struct llama_context *llama = config->llama;
    const struct llama_model *model = llama_get_model(llama);
    if (llama_get_memory(llama) == NULL) return "the context has no KV cache";
    if (llama_model_is_recurrent(model) || llama_model_is_hybrid(model)) {
        return "recurrent and hybrid models keep one state per sequence, which cannot be cut into "
               "blocks";
    }
    if (llama_model_has_encoder(model) || !llama_model_has_decoder(model) ||
        llama_model_is_diffusion(model) || !llama_get_causal_attn(llama)) {
        return "the KV of a token depends on later tokens: only causal decoder models can be "
               "served";
    }
    /* The parameters say what the caller meant; the context says what llama.cpp understood. They
     * differ when the program was compiled with the header of another llama.cpp version, whose
     * parameter struct is laid out differently: then kv_unified is lost without a word, and the
     * first partial copy of a sequence aborts the process. */
    if (!config->context_params.kv_unified)
        return "set kv_unified = true in the context's parameters";
    if (llama_n_seq_max(llama) < 2) return "set n_seq_max to 2 or more: one sequence id is scratch";
    if (llama_n_seq_max(llama) != config->context_params.n_seq_max) {
        return "context_params are not those of the context (n_seq_max differs)";
    }
    if (llama_n_ctx_seq(llama) != llama_n_ctx(llama)) {
        return "the context's KV cache is not unified, whatever its parameters say: do llama.h and "
               "libllama "
               "belong together?";
    }
    if (scratch < 0 || (uint32_t)scratch >= llama_n_seq_max(llama)) {
        return "scratch_seq is not a sequence id of the context";
    }
    const int32_t window = llama_model_n_swa(model);
    /* A save leaves out what the window hides from the last token of the block; half a window hides
     * nothing, for windows around a token as well as for those before it. */
    if (window > 0 && config->tokens_per_block > (uint32_t)window / 2) {
        return "tokens_per_block is more than half of the model's sliding window";
    }
    return NULL;
}

static void describe_engine(text_t *text) {
    /* Kernels differ by version and instruction set, and with them the last bits of what they
     * compute. */
    append(text, "llama.cpp %s; ggml %s (%s); %s", llama_version(), ggml_version(), ggml_commit(),
           llama_print_system_info());
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        append(text, "; %s", ggml_backend_dev_name(device));
        /* A CPU's marketing name says nothing that its instruction sets do not; a GPU's does. */
        if (ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_CPU) {
            append(text, " %s", ggml_backend_dev_description(device));
        }
    }
}

static void describe_rope(text_t *text, const struct llama_context *llama,
                          const struct llama_context_params *params) {
    append(text, "type=%d scaling=%d base=%.9g scale=%.9g yarn=%.9g,%.9g,%.9g,%.9g,%u",
           (int)llama_model_rope_type(llama_get_model(llama)), (int)params->rope_scaling_type,
           (double)params->rope_freq_base, (double)params->rope_freq_scale,
           (double)params->yarn_ext_factor, (double)params->yarn_attn_factor,
           (double)params->yarn_beta_fast, (double)params->yarn_beta_slow, params->yarn_orig_ctx);
    /* LongRoPE models have two sets of factors and pick one by the size of the context. */
    uint64_t original_context;
    if (metadata_count(llama_get_model(llama), "rope.scaling.original_context_length",
                       &original_context)) {
        append(text, " long=%d", llama_n_ctx_seq(llama) > original_context);
    }
}

static void describe_layout(text_t *text, const struct llama_context_params *params) {
    const char *rotation = getenv("LLAMA_ATTN_ROT_DISABLE");
    append(
        text,
        "llama_state_seq blob of one block; unified; flash_attn=%s; attention=%d; rotation_off=%s",
        llama_flash_attn_type_name(params->flash_attn_type), (int)params->attention_type,
        rotation != NULL ? rotation : "");
}

void kvstore_llama_config_init(kvstore_llama_config_t *config) {
    memset(config, 0, sizeof *config);
    config->context_params = llama_context_default_params();
    config->tokens_per_block = KVSTORE_LLAMA_TOKENS_PER_BLOCK;
    config->scratch_seq = -1;
}

kvstore_status_t kvstore_llama_open(const kvstore_llama_config_t *config,
                                    kvstore_llama_t **adapter_out) {
    error_message[0] = '\0';
    if (adapter_out == NULL) return fail(KVSTORE_E_INVALID_ARGUMENT, "adapter_out is NULL");
    *adapter_out = NULL;
    if (config == NULL || config->store == NULL || config->llama == NULL) {
        return fail(KVSTORE_E_INVALID_ARGUMENT, "store and llama must be set");
    }
    if (config->tokens_per_block == 0 || config->tokens_per_block > 65536) {
        return fail(KVSTORE_E_INVALID_ARGUMENT, "tokens_per_block must be 1 ... 65536");
    }
    if (config->weights_digest.data == NULL || config->weights_digest.length < 32) {
        /* Without it, a fine-tune with the same shape would be served the base model's KV. */
        return fail(KVSTORE_E_INVALID_ARGUMENT, "weights_digest must have 32 bytes or more");
    }
    const llama_seq_id scratch = config->scratch_seq < 0
                                     ? (llama_seq_id)llama_n_seq_max(config->llama) - 1
                                     : config->scratch_seq;
    const char *reason = obstacle(config, scratch);
    if (reason != NULL) return fail(KVSTORE_E_INVALID_ARGUMENT, "%s", reason);

    const struct llama_model *model = llama_get_model(config->llama);
    const struct llama_context_params *params = &config->context_params;
    const shape_t shape = shape_of(model, params, config->tokens_per_block);
    const uint64_t blob_bytes_max =
        config->block_bytes_max != 0 ? config->block_bytes_max : shape.blob_bytes_max;
    if (blob_bytes_max > UINT32_MAX / 2) {
        return fail(KVSTORE_E_INVALID_ARGUMENT, "a block would have %.1f GB: use shorter blocks",
                    1e-9 * (double)blob_bytes_max);
    }

    char description[128] = "", general_name[160] = "", name[320], kv_dtype[96];
    llama_model_desc(model, description, sizeof description);
    llama_model_meta_val_str(model, "general.name", general_name, sizeof general_name);
    snprintf(name, sizeof name, "%s (%s)", general_name, description);
    snprintf(kv_dtype, sizeof kv_dtype, "K %s, V %s", ggml_type_name(params->type_k),
             ggml_type_name(params->type_v));

    text_t *engine = calloc(1, sizeof *engine), *rope = calloc(1, sizeof *rope),
           *layout = calloc(1, sizeof *layout);
    kvstore_llama_t *adapter = calloc(1, sizeof *adapter);
    kvstore_status_t status = KVSTORE_OK;
    if (engine == NULL || rope == NULL || layout == NULL || adapter == NULL) {
        status = fail(KVSTORE_E_OUT_OF_MEMORY, "out of memory");
        goto done;
    }
    describe_engine(engine);
    describe_rope(rope, config->llama, params);
    describe_layout(layout, params);
    if (engine->overflow || rope->overflow || layout->overflow) {
        status = fail(KVSTORE_E_INVALID_ARGUMENT, "the engine's description is longer than 8 KiB");
        goto done;
    }

    adapter->store = config->store;
    adapter->llama = config->llama;
    adapter->scratch = scratch;
    adapter->tokens_per_block = (int32_t)config->tokens_per_block;
    adapter->window_tokens = llama_model_n_swa(model);
    adapter->blob_bytes_max = (size_t)blob_bytes_max;
    adapter->piece_bytes = (size_t)((blob_bytes_max + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
    /* Mapped, not allocated: page-aligned, and untouched pages cost nothing until a batch is that
     * long. */
    void *pieces = mmap(NULL, adapter->piece_bytes * BATCH_BLOCKS * BATCHES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pieces == MAP_FAILED) {
        status = fail(KVSTORE_E_OUT_OF_MEMORY, "no memory for %d blocks of %zu bytes",
                      BATCH_BLOCKS * BATCHES, adapter->piece_bytes);
        goto done;
    }
    adapter->pieces = pieces;

    kvstore_namespace_config_t identity;
    status = kvstore_namespace_config_init(&identity, sizeof identity);
    if (status == KVSTORE_OK) {
        identity.flags = KVSTORE_NAMESPACE_REGIONS_VARIABLE;
        identity.identity_mode = KVSTORE_IDENTITY_TOKENS;
        identity.tokens_per_block = config->tokens_per_block;
        identity.region_count = 1;
        identity.region_bytes = &blob_bytes_max;
        identity.model_name = name;
        identity.weights_digest = config->weights_digest;
        identity.adapter_digest = config->adapter_digest;
        identity.kv_dtype = kv_dtype;
        identity.layout = layout->text;
        identity.rope = rope->text;
        identity.engine_format = engine->text;
        identity.engine_bytes = config->identity_extra;
        identity.layer_count = shape.layer_count;
        identity.kv_head_count = shape.kv_head_count;
        identity.head_size = shape.head_size;
        identity.salt = config->salt;
        status = kvstore_namespace_open(config->store, &identity, &adapter->ns);
    }
    if (status != KVSTORE_OK) {
        fail(status, "%s: %s", kvstore_status_string(status), kvstore_last_error_message());
        munmap(adapter->pieces, adapter->piece_bytes * BATCH_BLOCKS * BATCHES);
        goto done;
    }
    *adapter_out = adapter;
    adapter = NULL;
done:
    free(engine);
    free(rope);
    free(layout);
    free(adapter);
    return status;
}

void kvstore_llama_close(kvstore_llama_t *adapter) {
    if (adapter == NULL) return;
    kvstore_namespace_close(adapter->ns);
    munmap(adapter->pieces, adapter->piece_bytes * BATCH_BLOCKS * BATCHES);
    free(adapter);
}

/* ---------------------------------------------------------------- both ways */

/* Sets the report's outcome and returns `tokens`, so that every way out of a call is one line. */
static int32_t end(kvstore_llama_t *adapter, int32_t tokens, kvstore_status_t status,
                   const char *note) {
    adapter->report.status = status;
    adapter->report.note = note;
    return tokens;
}

static uint8_t *piece(const kvstore_llama_t *adapter, uint64_t batch, uint64_t index) {
    return adapter->pieces + (batch % BATCHES * BATCH_BLOCKS + index) * adapter->piece_bytes;
}

/* llama.cpp aborts on a sequence id that it does not have, so it never gets to see one. */
static bool usable(const kvstore_llama_t *adapter, llama_seq_id seq, const llama_token *tokens,
                   int32_t n) {
    return seq >= 0 && (uint32_t)seq < llama_n_seq_max(adapter->llama) && seq != adapter->scratch &&
           n >= 0 && (tokens != NULL || n == 0);
}

/* Engines mark positions that hold an embedding (an image) by a negative token: what follows is not
 * identified by tokens alone, so the prompt ends there for us. */
static int32_t leading_tokens(const llama_token *tokens, int32_t n) {
    int32_t count = 0;
    while (count < n && tokens[count] >= 0) count++;
    return count;
}

static kvstore_prompt_t prompt_of(const llama_token *tokens, int32_t n) {
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = sizeof prompt;
    prompt.tokens =
        (const uint32_t *)tokens; /* the signed and unsigned form of one type: may alias */
    prompt.token_count = (size_t)n;
    return prompt;
}

/* ---------------------------------------------------------------- offload */

/* Saves block `index` of `seq` into `blob`. Returns its bytes, or 0 with a reason in *note. */
static size_t save_block(kvstore_llama_t *adapter, llama_seq_id seq, int32_t index, uint8_t *blob,
                         const char **note) {
    llama_memory_t memory = llama_get_memory(adapter->llama);
    const llama_pos first = index * adapter->tokens_per_block;
    const llama_pos past = first + adapter->tokens_per_block;
    size_t bytes = 0;
    llama_memory_seq_cp(memory, seq, adapter->scratch, first, past);
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

int32_t kvstore_llama_offload(kvstore_llama_t *adapter, llama_seq_id seq, const llama_token *tokens,
                              int32_t n) {
    if (adapter == NULL) return 0;
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

/* ---------------------------------------------------------------- restore */

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
    kvstore_match_t match;
    memset(&match, 0, sizeof match);
    match.struct_size = sizeof match;
    if (token_count <= adapter->tokens_per_block) return end(adapter, 0, KVSTORE_MISS, NULL);
    /* An image right behind the last token leaves something to compute; asking to leave a token is
     * simpler and costs at most one block. */
    const kvstore_status_t status =
        kvstore_match(adapter->ns, &prompt, KVSTORE_MATCH_LEAVE_ONE_TOKEN,
                      KVSTORE_LEASE_NANOSECONDS_DEFAULT, &match);
    /* FULL: no lease is free. The blocks may be evicted while we read; then the rest of them is a
     * miss. */
    if (status != KVSTORE_OK && status != KVSTORE_FULL) {
        return end(adapter, 0, status,
                   status == KVSTORE_MISS ? NULL : "the store could not be asked");
    }
    if (match.blocks_matched == 0) return end(adapter, 0, KVSTORE_MISS, NULL);

    llama_synchronize(adapter->llama);
    adapter->report.status = KVSTORE_OK;
    const uint64_t loaded = restore_blocks(adapter, seq, &prompt, match.blocks_matched);
    if (match.lease != 0) kvstore_lease_release(adapter->store, match.lease);
    adapter->report.blocks = loaded;

    const int32_t restored = (int32_t)loaded * adapter->tokens_per_block;
    if (restored == 0) return 0;
    /* The next token must see its whole window. Nothing in llama.cpp reports a hole here: it would
     * compute on, wrongly. */
    const llama_pos needed = adapter->window_tokens > 0 && restored > adapter->window_tokens
                                 ? restored - adapter->window_tokens
                                 : 0;
    const llama_pos oldest = llama_memory_seq_pos_min(memory, seq);
    if (oldest < 0 || oldest > needed || llama_memory_seq_pos_max(memory, seq) != restored - 1) {
        llama_memory_seq_rm(memory, seq, -1, -1);
        adapter->report.blocks = 0;
        return end(adapter, 0, KVSTORE_MISS,
                   "llama.cpp did not keep the whole window; sequence cleared");
    }
    return restored;
}

/* ---------------------------------------------------------------- SHA-256 (FIPS 180-4) */

typedef struct {
    uint32_t state[8];
    uint64_t byte_count;
    uint8_t pending[64];
} sha256_t;

static uint32_t rotate_right(uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }

static void sha256_chunk(sha256_t *hash, const uint8_t *bytes) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)bytes[4 * i] << 24 | (uint32_t)bytes[4 * i + 1] << 16 |
               (uint32_t)bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate_right(a, 7) ^ rotate_right(a, 18) ^ (a >> 3)) + w[i - 7] +
               (rotate_right(b, 17) ^ rotate_right(b, 19) ^ (b >> 10));
    }
    memcpy(s, hash->state, sizeof s);
    for (int i = 0; i < 64; i++) {
        const uint32_t sum1 =
            rotate_right(s[4], 6) ^ rotate_right(s[4], 11) ^ rotate_right(s[4], 25);
        const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        const uint32_t t1 = s[7] + sum1 + choice + k[i] + w[i];
        const uint32_t sum0 =
            rotate_right(s[0], 2) ^ rotate_right(s[0], 13) ^ rotate_right(s[0], 22);
        const uint32_t t2 = sum0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) hash->state[i] += s[i];
}

/* Every call but the last one must bring a multiple of 64 bytes. */
static void sha256_add(sha256_t *hash, const uint8_t *bytes, size_t count) {
    hash->byte_count += count;
    for (; count >= 64; bytes += 64, count -= 64) sha256_chunk(hash, bytes);
    memcpy(hash->pending, bytes, count);
}

static void sha256_finish(sha256_t *hash, uint8_t digest_out[32]) {
    size_t count = (size_t)(hash->byte_count % 64);
    hash->pending[count++] = 0x80;
    if (count > 56) {
        memset(hash->pending + count, 0, 64 - count);
        sha256_chunk(hash, hash->pending);
        count = 0;
    }
    memset(hash->pending + count, 0, 56 - count);
    for (int i = 0; i < 8; i++) {
        hash->pending[56 + i] = (uint8_t)(hash->byte_count * 8 >> (56 - 8 * i));
    }
    sha256_chunk(hash, hash->pending);
    for (int i = 0; i < 32; i++)
        digest_out[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}

int kvstore_llama_digest_file(const char *path, uint8_t digest_out[32]) {
    enum { CHUNK_BYTES = 1 << 20 };
    sha256_t hash = {{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                      0x1f83d9ab, 0x5be0cd19},
                     0,
                     {0}};
    FILE *file = fopen(path, "rb");
    if (file == NULL) return errno;
    uint8_t *chunk = malloc(CHUNK_BYTES);
    int error = chunk == NULL ? ENOMEM : 0;
    while (error == 0) {
        /* fread comes back short only at the end of the file, so that only the last piece can be
         * odd. */
        errno = 0;
        const size_t count = fread(chunk, 1, CHUNK_BYTES, file);
        if (ferror(file)) error = errno != 0 ? errno : EIO;
        sha256_add(&hash, chunk, count);
        if (count < CHUNK_BYTES) break;
    }
    if (error == 0) sha256_finish(&hash, digest_out);
    free(chunk);
    fclose(file);
    return error;
}
