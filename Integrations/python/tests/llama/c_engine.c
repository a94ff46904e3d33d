/* c_engine.c — an engine of llama.cpp with the adapter, configured by its arguments:
 *
 *   c_engine MODEL STORE [model FIELD VALUE | context FIELD VALUE | override KEY TYPE VALUE | block TOKENS | checkpoint TOKENS |
 *                         count TOKENS | fork AT | session NAME | end YES | remote URL | sent CHUNKS | wait MILLISECONDS]...
 *
 * Any field of both parameter structs can be set: fields.h is made from llama.h's text. Prints one line of JSON: a block key
 * of the namespace, how many tokens were restored, how many the store has afterwards, how many blocks went with the end of the
 * conversation, and the logits of the last token. count: tokens of the prompt; fork: from there on it is another one; sent: it
 * ends when the remote tier has so many chunks of it. */
#include "kvstore_llama_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TOKENS = 401, TOKENS_MAX = 2048 };

typedef struct {
    const char *name;
    size_t offset, size;
    char kind; /* i, f, p: a number, a ratio, something to point to */
} field_t;

static const field_t model_fields[] = {
#define FIELD(name, kind) \
    {#name, offsetof(struct llama_model_params, name), sizeof(((struct llama_model_params *)0)->name), kind},
#include "model_fields.h"
#undef FIELD
};
static const field_t context_fields[] = {
#define FIELD(name, kind) \
    {#name, offsetof(struct llama_context_params, name), sizeof(((struct llama_context_params *)0)->name), kind},
#include "context_fields.h"
#undef FIELD
};

static bool says_yes(void) { return true; }
static bool says_no(void) { return false; }

static void set(void *structure, const field_t *fields, size_t count, const char *name, const char *value) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(fields[i].name, name) != 0) continue;
        unsigned char *place = (unsigned char *)structure + fields[i].offset;
        if (fields[i].kind == 'f') {
            const float number = strtof(value, NULL);
            memcpy(place, &number, sizeof number);
        } else if (fields[i].kind == 'p') {
            void *pointer = calloc(1, 1 << 16);
            if (strcmp(value, "yes") == 0) pointer = (void *)(uintptr_t)says_yes;
            if (strcmp(value, "no") == 0) pointer = (void *)(uintptr_t)says_no;
            memcpy(place, &pointer, sizeof pointer);
        } else {
            const int64_t number = strtoll(value, NULL, 0);
            memcpy(place, &number, fields[i].size); /* little-endian */
        }
        return;
    }
    fprintf(stderr, "no field %s\n", name);
    exit(2);
}

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)level, (void)text, (void)data;
}

int main(int argc, char **argv) {
    static struct llama_model_kv_override overrides[8];
    struct llama_model_params model_params = llama_model_default_params();
    struct llama_context_params params = llama_context_default_params();
    int override_count = 0;
    uint32_t tokens_per_block = 0, checkpoint_tokens = 0;
    int32_t token_count = TOKENS, fork_at = TOKENS_MAX;
    const char *session_name = NULL, *remote = NULL;
    uint64_t sent = 0, wait_milliseconds = 60000;
    bool ends = false;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    model_params.n_gpu_layers = 0;
    params.n_ctx = 1024;
    params.n_threads = params.n_threads_batch = 1;
    params.n_seq_max = 2;
    params.kv_unified = true;
    for (int i = 3; i < argc;) {
        if (strcmp(argv[i], "model") == 0) {
            set(&model_params, model_fields, sizeof model_fields / sizeof *model_fields, argv[i + 1], argv[i + 2]);
            i += 3;
        } else if (strcmp(argv[i], "context") == 0) {
            set(&params, context_fields, sizeof context_fields / sizeof *context_fields, argv[i + 1], argv[i + 2]);
            i += 3;
        } else if (strcmp(argv[i], "block") == 0) {
            tokens_per_block = (uint32_t)atoi(argv[i + 1]);
            i += 2;
        } else if (strcmp(argv[i], "checkpoint") == 0) {
            checkpoint_tokens = (uint32_t)atoi(argv[i + 1]);
            i += 2;
        } else if (strcmp(argv[i], "count") == 0) {
            token_count = atoi(argv[i + 1]);
            i += 2;
        } else if (strcmp(argv[i], "fork") == 0) {
            fork_at = atoi(argv[i + 1]);
            i += 2;
        } else if (strcmp(argv[i], "session") == 0) {
            session_name = argv[i + 1];
            i += 2;
        } else if (strcmp(argv[i], "remote") == 0) {
            remote = argv[i + 1];
            i += 2;
        } else if (strcmp(argv[i], "sent") == 0) {
            sent = (uint64_t)atoi(argv[i + 1]);
            i += 2;
        } else if (strcmp(argv[i], "wait") == 0) {
            wait_milliseconds = (uint64_t)atoi(argv[i + 1]);
            i += 2;
        } else if (strcmp(argv[i], "end") == 0) {
            ends = true;
            i += 2;
        } else {
            struct llama_model_kv_override *entry = &overrides[override_count++];
            snprintf(entry->key, sizeof entry->key, "%s", argv[i + 1]);
            if (argv[i + 2][0] == 'i') entry->tag = LLAMA_KV_OVERRIDE_TYPE_INT, entry->val_i64 = atoll(argv[i + 3]);
            if (argv[i + 2][0] == 'f') entry->tag = LLAMA_KV_OVERRIDE_TYPE_FLOAT, entry->val_f64 = atof(argv[i + 3]);
            if (argv[i + 2][0] == 'b') entry->tag = LLAMA_KV_OVERRIDE_TYPE_BOOL, entry->val_bool = atoi(argv[i + 3]) != 0;
            if (argv[i + 2][0] == 's') {
                entry->tag = LLAMA_KV_OVERRIDE_TYPE_STR;
                snprintf(entry->val_str, sizeof entry->val_str, "%s", argv[i + 3]);
            }
            model_params.kv_overrides = overrides;
            i += 4;
        }
    }
    struct llama_model *model = llama_model_load_from_file(argv[1], model_params);
    struct llama_context *llama = model == NULL ? NULL : llama_init_from_model(model, params);
    if (llama == NULL) return 1;

    kvstore_config_t config;
    kvstore_t *store;
    kvstore_config_init(&config, sizeof config);
    config.path = argv[2];
    config.capacity_bytes = UINT64_C(128) << 20;
    config.host_bytes = UINT64_C(16) << 20;
    config.remote_url = remote;
    config.remote_writes = KVSTORE_REMOTE_WRITES_ALL;
    config.remote_look_up_timeout_nanoseconds = UINT64_C(1000000) * (wait_milliseconds < 30000 ? wait_milliseconds : 30000);
    if (kvstore_open(&config, &store) != KVSTORE_OK) return 1;
    uint8_t digest[32];
    if (kvstore_llama_digest_file(argv[1], digest) != 0) return 1;
    kvstore_llama_config_t binding;
    kvstore_llama_config_init(&binding);
    binding.store = store;
    binding.llama = llama;
    binding.context_params = params;
    binding.weights_digest = (kvstore_bytes_t){digest, sizeof digest};
    binding.tokens_per_block = tokens_per_block;
    binding.remote_wait_nanoseconds = UINT64_C(1000000) * wait_milliseconds;
    if (checkpoint_tokens != 0) binding.checkpoint_tokens = checkpoint_tokens;
    kvstore_llama_t *adapter = NULL;
    /* Parameters that nobody set are none that the model was loaded with. */
    if (kvstore_llama_open(&binding, &adapter) != KVSTORE_E_INVALID_ARGUMENT) return 3;
    if (strstr(kvstore_llama_error_message(), "model_params") == NULL) return 3;
    binding.model_params = model_params;
    if (kvstore_llama_open(&binding, &adapter) != KVSTORE_OK) {
        fprintf(stderr, "%s\n", kvstore_llama_error_message());
        return 1;
    }

    static llama_token tokens[TOKENS_MAX];
    if (token_count > TOKENS_MAX) return 1;
    for (int i = 0; i < token_count; i++) {
        tokens[i] = 3 + (i * 7919 + i * i + (i >= fork_at ? 100 + token_count : 0)) % 500;
    }
    kvstore_block_key_t key;
    size_t key_count = 0;
    kvstore_prompt_t prompt = prompt_of(tokens, adapter->tokens_per_block);
    if (kvstore_block_keys(kvstore_llama_namespace(adapter), &prompt, &key, 1, &key_count) != KVSTORE_OK) return 1;
    kvstore_session_t *session = NULL;
    if (session_name != NULL) {
        uint64_t number = 0;
        kvstore_match_t match;
        memset(&match, 0, sizeof match);
        match.struct_size = sizeof match;
        prompt = prompt_of(tokens, token_count);
        if (kvstore_session_begin(kvstore_llama_namespace(adapter), session_name, &session, &number) != KVSTORE_OK) return 1;
        const kvstore_status_t found = kvstore_session_match(session, &prompt, KVSTORE_MATCH_LEAVE_ONE_TOKEN, 0, &match);
        if (found != KVSTORE_OK && found != KVSTORE_MISS) return 1;
        if (match.lease != 0) kvstore_lease_release(store, match.lease);
    }
    const int32_t restored = kvstore_llama_restore(adapter, 0, tokens, token_count);
    const kvstore_llama_report_t report = *kvstore_llama_report(adapter);
    if (session != NULL && kvstore_session_step(session, (uint64_t)(token_count - restored), NULL) != KVSTORE_OK) return 1;
    const int32_t step = (int32_t)llama_n_batch(llama) < 256 ? (int32_t)llama_n_batch(llama) : 256;
    int32_t stored = 0;
    for (int32_t at = restored; at < token_count;) {
        const int32_t next = kvstore_llama_next(adapter, 0, at, token_count);
        const int32_t count = next < step ? next : step;
        if (llama_decode(llama, llama_batch_get_one(tokens + at, count)) != 0) return 1;
        at += count;
        stored = kvstore_llama_offload(adapter, 0, tokens, at);
    }
    const uint64_t ended = ends ? kvstore_llama_end(adapter, tokens, token_count) : 0;
    if (session != NULL && kvstore_session_end(session) != KVSTORE_OK) return 1;
    const float *logits = llama_get_logits_ith(llama, -1);
    if (logits == NULL) return 1;
    printf("{\"identity\": \"");
    for (size_t i = 0; i < sizeof key.bytes; i++) printf("%02x", key.bytes[i]);
    kvstore_stats_t stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    for (int i = 0; i < 6000; i++) {
        if (kvstore_stats(store, &stats) != KVSTORE_OK) return 1;
        if (stats.remote_chunks_sent + stats.remote_chunks_existed >= sent) break;
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    printf("\", \"restored\": %d, \"stored\": %d, \"ended\": %d, \"unfinished\": %d, \"fetched\": %d, \"misses\": %d, "
           "\"sent\": %d, \"logits\": [",
           restored, stored, (int)ended, (int)report.remote_unfinished, (int)stats.remote_chunks_fetched,
           (int)stats.remote_misses, (int)stats.remote_chunks_sent);
    const int32_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (int32_t i = 0; i < vocabulary; i++) printf("%s%.9g", i > 0 ? ", " : "", (double)logits[i]);
    printf("]}\n");
    kvstore_llama_close(adapter);
    kvstore_close(store);
    return 0;
}
