/* kvstore_llama.c — opens and closes the adapter: see kvstore_llama.h. */
#include "kvstore_llama_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* No number of layers: what config_init leaves in model_params. */
#define KVSTORE_LLAMA_UNSET INT32_MIN

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

void kvstore_llama_config_init(kvstore_llama_config_t *config) {
    memset(config, 0, sizeof *config);
    config->context_params = llama_context_default_params();
    config->model_params = llama_model_default_params();
    config->model_params.n_gpu_layers = KVSTORE_LLAMA_UNSET;
    config->checkpoint_tokens = KVSTORE_LLAMA_CHECKPOINT_TOKENS;
    config->scratch_seq = -1;
    config->remote_wait_nanoseconds = UINT64_C(2000000000);
}

static kvstore_status_t open_namespace(const kvstore_llama_config_t *config,
                                       const kvstore_llama_identity_t *identity,
                                       const uint64_t *blob_bytes_max,
                                       kvstore_namespace_t **namespace_out) {
    kvstore_namespace_config_t record;
    const kvstore_status_t status = kvstore_namespace_config_init(&record, sizeof record);
    if (status != KVSTORE_OK) return status;
    record.flags = KVSTORE_NAMESPACE_REGIONS_VARIABLE;
    record.identity_mode = KVSTORE_IDENTITY_TOKENS;
    record.tokens_per_block = config->tokens_per_block;
    record.region_count = 1;
    record.region_bytes = blob_bytes_max;
    record.model_name = identity->model_name;
    record.weights_digest = config->weights_digest;
    record.adapter_digest = config->adapter_digest;
    record.kv_dtype = identity->kv_dtype;
    record.layout = identity->layout.text;
    record.rope = identity->rope.text;
    record.engine_format = identity->engine.text;
    record.engine_bytes.data = identity->settings;
    record.engine_bytes.length = sizeof identity->settings;
    record.layer_count = identity->layer_count;
    record.kv_head_count = identity->kv_head_count;
    record.head_size = identity->head_size;
    record.salt = config->salt;
    return kvstore_namespace_open(config->store, &record, namespace_out);
}

kvstore_status_t kvstore_llama_open(const kvstore_llama_config_t *given,
                                    kvstore_llama_t **adapter_out) {
    error_message[0] = '\0';
    if (adapter_out == NULL) return fail(KVSTORE_E_INVALID_ARGUMENT, "adapter_out is NULL");
    *adapter_out = NULL;
    if (given == NULL || given->store == NULL || given->llama == NULL) {
        return fail(KVSTORE_E_INVALID_ARGUMENT, "store and llama must be set");
    }
    kvstore_llama_config_t chosen = *given, *const config = &chosen;
    const bool recurrent = kvstore_llama_is_recurrent(llama_get_model(given->llama));
    if (chosen.tokens_per_block == 0) {
        chosen.tokens_per_block = recurrent ? KVSTORE_LLAMA_TOKENS_PER_BLOCK_RECURRENT
                                            : KVSTORE_LLAMA_TOKENS_PER_BLOCK;
    }
    if (chosen.tokens_per_block > 65536) {
        return fail(KVSTORE_E_INVALID_ARGUMENT, "tokens_per_block must be at most 65536");
    }
    if (recurrent && (chosen.checkpoint_tokens == 0 || chosen.checkpoint_tokens > INT32_MAX ||
                      chosen.checkpoint_tokens % chosen.tokens_per_block != 0)) {
        return fail(KVSTORE_E_INVALID_ARGUMENT,
                    "checkpoint_tokens must be a multiple of tokens_per_block");
    }
    if (config->weights_digest.data == NULL || config->weights_digest.length < 32) {
        /* Without it, a fine-tune with the same shape would be served the base model's KV. */
        return fail(KVSTORE_E_INVALID_ARGUMENT, "weights_digest must have 32 bytes or more");
    }
    if (config->identity_extra.data == NULL && config->identity_extra.length > 0) {
        return fail(KVSTORE_E_INVALID_ARGUMENT, "identity_extra has a length and no data");
    }
    if (config->model_params.n_gpu_layers == KVSTORE_LLAMA_UNSET) {
        return fail(KVSTORE_E_INVALID_ARGUMENT,
                    "model_params must be those that the model was loaded with");
    }
    const llama_seq_id scratch = config->scratch_seq < 0
                                     ? (llama_seq_id)llama_n_seq_max(config->llama) - 1
                                     : config->scratch_seq;
    const char *reason = kvstore_llama_obstacle(config, scratch);
    if (reason != NULL) return fail(KVSTORE_E_INVALID_ARGUMENT, "%s", reason);

    kvstore_llama_identity_t *identity = calloc(1, sizeof *identity);
    kvstore_llama_t *adapter = calloc(1, sizeof *adapter);
    kvstore_status_t status = KVSTORE_OK;
    if (identity == NULL || adapter == NULL) {
        status = fail(KVSTORE_E_OUT_OF_MEMORY, "out of memory");
        goto done;
    }
    kvstore_llama_describe(config, identity);
    if (!kvstore_llama_hash_settings(config, identity->settings)) {
        status = fail(KVSTORE_E_OUT_OF_MEMORY, "out of memory");
        goto done;
    }
    adapter->store = config->store;
    adapter->llama = config->llama;
    adapter->scratch = scratch;
    adapter->tokens_per_block = (int32_t)config->tokens_per_block;
    adapter->window_tokens = llama_model_n_swa(llama_get_model(config->llama));
    adapter->recurrent = recurrent;
    adapter->checkpoint_tokens = (int32_t)config->checkpoint_tokens;
    adapter->remote_wait_nanoseconds = config->remote_wait_nanoseconds;
    if (recurrent) {
        reason = kvstore_llama_measure(adapter);
        if (reason != NULL) {
            status = fail(KVSTORE_E_INVALID_ARGUMENT, "%s", reason);
            goto done;
        }
        identity->blob_bytes_max = adapter->attention_bytes;
    }
    const uint64_t blob_bytes_max =
        config->block_bytes_max != 0 ? config->block_bytes_max : identity->blob_bytes_max;
    if (blob_bytes_max > UINT32_MAX / 2) {
        status = fail(KVSTORE_E_INVALID_ARGUMENT, "a block would have %.1f GB: use shorter blocks",
                      1e-9 * (double)blob_bytes_max);
        goto done;
    }
    if (identity->engine.overflow || identity->rope.overflow || identity->layout.overflow) {
        status = fail(KVSTORE_E_INVALID_ARGUMENT, "the engine's description is longer than 8 KiB");
        goto done;
    }

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

    status = open_namespace(config, identity, &blob_bytes_max, &adapter->ns);
    if (status == KVSTORE_OK && recurrent) {
        status = kvstore_section_open(adapter->ns, "recurrent", adapter->state_bytes_max,
                                      KVSTORE_KEEP, &adapter->states);
    }
    if (status != KVSTORE_OK) {
        fail(status, "%s: %s", kvstore_status_string(status), kvstore_last_error_message());
        if (adapter->ns != NULL) kvstore_namespace_close(adapter->ns);
        munmap(adapter->pieces, adapter->piece_bytes * BATCH_BLOCKS * BATCHES);
        goto done;
    }
    *adapter_out = adapter;
    adapter = NULL;
done:
    free(identity);
    if (adapter != NULL) kvstore_llama_forget_measures(adapter);
    free(adapter);
    return status;
}

uint64_t kvstore_llama_end(kvstore_llama_t *adapter, const llama_token *tokens, int32_t n) {
    if (adapter == NULL || n < 0 || (tokens == NULL && n > 0)) return 0;
    memset(&adapter->report, 0, sizeof adapter->report);
    const kvstore_prompt_t prompt = prompt_of(tokens, leading_tokens(tokens, n));
    /* An empty prompt is the whole namespace to the store. */
    if (prompt.token_count < (size_t)adapter->tokens_per_block) return 0;
    adapter->report.status =
        kvstore_purge(adapter->ns, &prompt, KVSTORE_PURGE_TAIL, &adapter->report.blocks);
    return adapter->report.blocks;
}

kvstore_namespace_t *kvstore_llama_namespace(const kvstore_llama_t *adapter) {
    return adapter->ns;
}

void kvstore_llama_close(kvstore_llama_t *adapter) {
    if (adapter == NULL) return;
    if (adapter->states != NULL) kvstore_namespace_close(adapter->states);
    kvstore_namespace_close(adapter->ns);
    munmap(adapter->pieces, adapter->piece_bytes * BATCH_BLOCKS * BATCHES);
    kvstore_llama_forget_measures(adapter);
    free(adapter);
}
