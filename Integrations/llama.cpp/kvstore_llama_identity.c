/* kvstore_llama_identity.c — what a context is: whether it can be cut into blocks, and everything
 * that changes the bytes of its KV. */
#include "kvstore_llama_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void append(kvstore_llama_text_t *text, const char *format, ...) {
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

/* The model's KV shape, and from it a bound for the blob of a block. Where llama.h tells only one
 * layer's shape, or metadata is an array, the larger possibility counts: a bound that is too small
 * would make every block unstorable, one that is too large costs disk slots. */
static void describe_shape(kvstore_llama_identity_t *identity, const struct llama_model *model,
                           const struct llama_context_params *params, uint32_t tokens_per_block) {
    identity->layer_count =
        (uint32_t)(llama_model_n_layer(model) + llama_model_n_layer_nextn(model));

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

    identity->kv_head_count = (uint32_t)heads;
    identity->head_size = (uint32_t)key_size;
    const uint64_t token_bytes =
        identity->layer_count * (row_bytes(params->type_k, heads * key_size) +
                             row_bytes(params->type_v, heads * value_size));
    /* Besides the rows a blob has up to 24 bytes for each cell of each of two caches, and up to 20
     * for each layer's K and V. Doubled, since the layout is llama.cpp's own affair and may gain a
     * field. */
    const uint64_t overhead_bytes =
        1024 + UINT64_C(96) * tokens_per_block + UINT64_C(80) * identity->layer_count;
    const uint64_t bytes = token_bytes * tokens_per_block + overhead_bytes;
    identity->blob_bytes_max = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

bool kvstore_llama_is_recurrent(const struct llama_model *model) {
    return llama_model_is_recurrent(model) || llama_model_is_hybrid(model);
}

const char *kvstore_llama_obstacle(const kvstore_llama_config_t *config, llama_seq_id scratch) {
    struct llama_context *llama = config->llama;
    const struct llama_model *model = llama_get_model(llama);
    if (llama_get_memory(llama) == NULL) return "the context has no KV cache";
    if (kvstore_llama_is_recurrent(model) && llama_model_n_swa(model) > 0)
        return "recurrent layers beside sliding windows are not supported";
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

static void describe_engine(kvstore_llama_text_t *text) {
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

static void append_bound(kvstore_llama_text_t *text, const struct llama_context *llama,
                         uint64_t bound) {
    append(text, " %llu:%d", (unsigned long long)bound, llama_n_ctx_seq(llama) > bound);
}

/* LongRoPE models have two sets of factors and pick one by the size of the context: they compare it
 * with a number of the metadata or of an override, else with the training context. Which one was
 * taken is the model's affair, so that the answers to all of them are told. */
static void describe_long_rope(kvstore_llama_text_t *text, const struct llama_context *llama,
                               const kvstore_llama_config_t *config) {
    const struct llama_model *model = llama_get_model(llama);
    append(text, " long");
    append_bound(text, llama, (uint64_t)llama_model_n_ctx_train(model));
    uint64_t bound;
    if (metadata_count(model, "context_length", &bound)) append_bound(text, llama, bound);
    if (metadata_count(model, "rope.scaling.original_context_length", &bound)) {
        append_bound(text, llama, bound);
    }
    const struct llama_model_kv_override *entry = config->model_params.kv_overrides;
    for (; entry != NULL && entry->key[0] != '\0'; entry++) {
        if (entry->tag == LLAMA_KV_OVERRIDE_TYPE_INT && entry->val_i64 >= 0) {
            append_bound(text, llama, (uint64_t)entry->val_i64);
        }
    }
}

static void describe_rope(kvstore_llama_text_t *text, const struct llama_context *llama,
                          const kvstore_llama_config_t *config) {
    const struct llama_context_params *params = &config->context_params;
    append(text, "type=%d scaling=%d base=%.9g scale=%.9g yarn=%.9g,%.9g,%.9g,%.9g,%u",
           (int)llama_model_rope_type(llama_get_model(llama)), (int)params->rope_scaling_type,
           (double)params->rope_freq_base, (double)params->rope_freq_scale,
           (double)params->yarn_ext_factor, (double)params->yarn_attn_factor,
           (double)params->yarn_beta_fast, (double)params->yarn_beta_slow, params->yarn_orig_ctx);
    describe_long_rope(text, llama, config);
}

static void describe_layout(kvstore_llama_text_t *text, const struct llama_model *model,
                            const struct llama_context_params *params) {
    append(text, "llama_state_seq blob of one block; unified; flash_attn=%s; attention=%d",
           llama_flash_attn_type_name(params->flash_attn_type), (int)params->attention_type);
    if (kvstore_llama_is_recurrent(model)) append(text, "; its recurrent part apart");
}

static void describe_model(kvstore_llama_identity_t *identity, const struct llama_model *model,
                           const struct llama_context_params *params) {
    char description[128] = "", general_name[160] = "";
    llama_model_desc(model, description, sizeof description);
    llama_model_meta_val_str(model, "general.name", general_name, sizeof general_name);
    snprintf(identity->model_name, sizeof identity->model_name, "%s (%s)", general_name,
             description);
    snprintf(identity->kv_dtype, sizeof identity->kv_dtype, "K %s, V %s",
             ggml_type_name(params->type_k), ggml_type_name(params->type_v));
}

void kvstore_llama_describe(const kvstore_llama_config_t *config,
                            kvstore_llama_identity_t *identity) {
    const struct llama_model *model = llama_get_model(config->llama);
    const struct llama_context_params *params = &config->context_params;
    describe_shape(identity, model, params, config->tokens_per_block);
    describe_model(identity, model, params);
    describe_engine(&identity->engine);
    describe_rope(&identity->rope, config->llama, config);
    describe_layout(&identity->layout, model, params);
}
