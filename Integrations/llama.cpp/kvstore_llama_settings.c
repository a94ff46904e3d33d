/* kvstore_llama_settings.c — a digest of everything that a model and a context were made with.
 *
 * Both parameter structs are taken whole, byte for byte, but for the fields that are named here and
 * cannot change KV bytes; so a field that a later llama.cpp adds costs misses, never wrong hits. A
 * pointer to something that nobody here knows differs from process to process, and with it the
 * namespace. */
#include "kvstore_llama_internal.h"

#include <stdio.h>
#include <stdlib.h>

extern char **environ;

/* What lies between the fields has no defined value. Without this the namespace may differ from
 * process to process: misses. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
#define CLEAR_PADDING(structure) __builtin_clear_padding(structure)
#endif
#endif
#ifndef CLEAR_PADDING
#define CLEAR_PADDING(structure) ((void)(structure))
#endif

#define LEAVE_OUT(structure, field) memset(&(structure)->field, 0, sizeof(structure)->field)

static void add_text(kvstore_llama_hash_t *hash, const char *text) {
    kvstore_llama_hash_add(hash, text, strlen(text) + 1);
}

static void add_number(kvstore_llama_hash_t *hash, uint64_t number) {
    kvstore_llama_hash_add(hash, &number, sizeof number);
}

static void add_override(kvstore_llama_hash_t *hash, const struct llama_model_kv_override *entry) {
    add_text(hash, entry->key);
    add_number(hash, (uint64_t)entry->tag);
    switch (entry->tag) {
    case LLAMA_KV_OVERRIDE_TYPE_INT:
        kvstore_llama_hash_add(hash, &entry->val_i64, sizeof entry->val_i64);
        break;
    case LLAMA_KV_OVERRIDE_TYPE_FLOAT:
        kvstore_llama_hash_add(hash, &entry->val_f64, sizeof entry->val_f64);
        break;
    case LLAMA_KV_OVERRIDE_TYPE_BOOL: add_number(hash, entry->val_bool); break;
    default: /* a text, which llama.cpp reads up to its end; or what is not known here */
        kvstore_llama_hash_add(hash, entry->val_str, sizeof entry->val_str);
    }
}

static void add_model_params(kvstore_llama_hash_t *hash, struct llama_model_params params) {
    const struct llama_model_kv_override *entry = params.kv_overrides;
    for (; entry != NULL && entry->key[0] != '\0'; entry++) add_override(hash, entry);
    add_text(hash, "");
    if (params.tensor_split != NULL) {
        kvstore_llama_hash_add(hash, params.tensor_split,
                               llama_max_devices() * sizeof *params.tensor_split);
    }
    CLEAR_PADDING(&params);
    LEAVE_OUT(&params, kv_overrides); /* their content is in it */
    LEAVE_OUT(&params, tensor_split);
    LEAVE_OUT(&params, progress_callback); /* shows how far loading is */
    LEAVE_OUT(&params, progress_callback_user_data);
    LEAVE_OUT(&params, check_tensors); /* compares the file with itself */
    kvstore_llama_hash_add(hash, &params, sizeof params);
}

static void add_context_params(kvstore_llama_hash_t *hash, struct llama_context_params params) {
    CLEAR_PADDING(&params);
    LEAVE_OUT(&params, n_ctx);    /* what it decides in LongRoPE models is told by itself */
    LEAVE_OUT(&params, n_batch);  /* the same sums in other batches: rounding, as between requests */
    LEAVE_OUT(&params, n_ubatch); /* the same */
    LEAVE_OUT(&params, n_threads); /* who computes a row, not what */
    LEAVE_OUT(&params, n_threads_batch);
    LEAVE_OUT(&params, n_seq_max); /* how many sequences there may be */
    LEAVE_OUT(&params, abort_callback); /* ends a call */
    LEAVE_OUT(&params, abort_callback_data);
    LEAVE_OUT(&params, embeddings); /* which results are handed out */
    LEAVE_OUT(&params, no_perf);    /* times are not taken */
    LEAVE_OUT(&params, swa_full);   /* how long cells of a window are kept, not what they hold */
    kvstore_llama_hash_add(hash, &params, sizeof params);
}

/* Switches that only print. */
static bool is_harmless(const char *entry) {
    static const char *const names[] = {
        "LLAMA_TRACE=",      "LLAMA_KV_CACHE_DEBUG=",    "LLAMA_BATCH_DEBUG=",
        "GGML_SCHED_DEBUG=", "LLAMA_GRAPH_INPUT_DEBUG=", "LLAMA_GRAPH_RESULT_DEBUG=",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strncmp(entry, names[i], strlen(names[i])) == 0) return true;
    }
    return false;
}

static bool is_switch(const char *entry) {
    return (strncmp(entry, "LLAMA_", 6) == 0 || strncmp(entry, "GGML_", 5) == 0) &&
           !is_harmless(entry);
}

static int compare(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool add_environment(kvstore_llama_hash_t *hash) {
    size_t count = 0, index = 0;
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        count += is_switch(*entry);
    }
    const char **found = malloc((count + 1) * sizeof *found);
    if (found == NULL) return false;
    for (char **entry = environ; entry != NULL && *entry != NULL && index < count; entry++) {
        if (is_switch(*entry)) found[index++] = *entry;
    }
    qsort(found, index, sizeof *found, compare);
    for (size_t i = 0; i < index; i++) add_text(hash, found[i]);
    free(found);
    return true;
}

bool kvstore_llama_hash_settings(const kvstore_llama_config_t *config, uint8_t digest_out[32]) {
    kvstore_llama_hash_t hash;
    kvstore_llama_hash_init(&hash);
    add_text(&hash, "kvstore_llama settings 1");
    add_model_params(&hash, config->model_params);
    add_context_params(&hash, config->context_params);
    if (!add_environment(&hash)) return false;
    add_text(&hash, "");
    add_number(&hash, config->identity_extra.length);
    if (config->identity_extra.length > 0) {
        kvstore_llama_hash_add(&hash, config->identity_extra.data, config->identity_extra.length);
    }
    kvstore_llama_hash_finish(&hash, digest_out);
    return true;
}
