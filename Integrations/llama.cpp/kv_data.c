/* kv_data.c — makes real KV data to measure codecs with: llama.cpp computes a text, and each block's K and V rows
 * go to a file of their own.
 *
 *   kv_data --model GGUF --text FILE --out FOLDER [--tokens N] [--tokens-per-block N] [--threads N]
 *
 * FOLDER/TYPE/NAME-0000.kv, ... for each element type: fp16, bf16 and q8_0 as llama.cpp keeps them; fp8-e4m3, fp8-e5m2
 * and int8 cast from the fp16 rows, as the caches of those types do (the first two rounded to nearest with scale 1, the
 * last scaled by its row's largest magnitude; the scales are left out). A file holds the tensors of one block side by side, each
 * [tokens, row]. The layout of llama.cpp's state is private and changes: here it is found by what each tensor begins with,
 * and the tool gives up unless it finds every tensor and nothing is left over. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ggml.h"
#include "llama.h"

enum { SEQ = 0, SCRATCH = 1, BATCH = 512, TENSORS_MAX = 1024 };

static struct {
    const char *model, *text, *out;
    int32_t tokens, tokens_per_block, threads;
} options = {.tokens = 1024, .tokens_per_block = 64, .threads = 2};

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("kv_data: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void *allocate(size_t size) {
    void *memory = calloc(1, size > 0 ? size : 1);
    if (memory == NULL) die("out of memory");
    return memory;
}

static void log_errors(enum ggml_log_level level, const char *text, void *unused) {
    (void)unused;
    static bool shown;
    if (level != GGML_LOG_LEVEL_CONT) shown = level == GGML_LOG_LEVEL_ERROR;
    if (shown) fputs(text, stderr);
}

/* ---------------------------------------------------------------- files */

static void make_folder(const char *path) {
    if (mkdir(path, 0777) != 0 && errno != EEXIST) die("%s: %s", path, strerror(errno));
}

static void write_block(const char *type, int32_t block, const uint8_t *bytes, size_t count) {
    const char *slash = strrchr(options.text, '/');
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", options.out, type);
    make_folder(path);
    snprintf(path, sizeof path, "%s/%s/%s-%04d.kv", options.out, type,
             slash != NULL ? slash + 1 : options.text, block);
    FILE *file = fopen(path, "wb");
    if (file == NULL) die("%s: %s", path, strerror(errno));
    if (fwrite(bytes, 1, count, file) != count || fclose(file) != 0) die("%s: could not write", path);
}

/* ---------------------------------------------------------------- casts */

static float float_of(uint16_t half) { return ggml_fp16_to_fp32(half); }

/* Rounded to nearest, ties to even, saturating at `max`; `mantissa` bits, exponent bias `bias`. */
static uint8_t fp8_of(float value, int mantissa, int bias, float max) {
    const uint8_t sign = signbit(value) ? 0x80 : 0;
    float magnitude = fabsf(value);
    if (isnan(value)) return (uint8_t)(sign | 0x7F);
    if (magnitude > max) magnitude = max;
    int exponent;
    frexpf(magnitude, &exponent);
    exponent -= 1;
    if (magnitude == 0 || exponent < 1 - bias) exponent = 1 - bias;
    /* In units of the last place: nearbyint rounds ties to even. */
    int units = (int)nearbyintf(ldexpf(magnitude, mantissa - exponent));
    if (units < 1 << mantissa) return (uint8_t)(sign | units);
    if (units == 2 << mantissa) {
        units >>= 1;
        exponent += 1;
    }
    return (uint8_t)(sign | (exponent + bias) << mantissa | (units - (1 << mantissa)));
}

static void cast_rows(int32_t block, const uint16_t *halves, size_t count, size_t row) {
    uint8_t *bytes = allocate(count);
    for (size_t i = 0; i < count; i++) bytes[i] = fp8_of(float_of(halves[i]), 3, 7, 448);
    write_block("fp8-e4m3", block, bytes, count);
    for (size_t i = 0; i < count; i++) bytes[i] = fp8_of(float_of(halves[i]), 2, 15, 57344);
    write_block("fp8-e5m2", block, bytes, count);
    for (size_t start = 0; start < count; start += row) {
        float largest = 0;
        for (size_t i = start; i < start + row; i++) largest = fmaxf(largest, fabsf(float_of(halves[i])));
        const float scale = largest > 0 ? 127 / largest : 0;
        for (size_t i = start; i < start + row; i++) {
            bytes[i] = (uint8_t)(int8_t)nearbyintf(float_of(halves[i]) * scale);
        }
    }
    write_block("int8", block, bytes, count);
    free(bytes);
}

/* ---------------------------------------------------------------- the state of a block */

/* Elements of a K or V row of one layer: those of all its KV heads. */
static size_t row_elements(const struct llama_model *model) {
    char architecture[64], key[128], value[64];
    if (llama_model_meta_val_str(model, "general.architecture", architecture, sizeof architecture) < 0)
        die("the model does not name its architecture");
    snprintf(key, sizeof key, "%s.attention.key_length", architecture);
    const int32_t head_size = llama_model_meta_val_str(model, key, value, sizeof value) >= 0
                                  ? atoi(value)
                                  : llama_model_n_embd(model) / llama_model_n_head(model);
    if (head_size < 1) die("%s is %s", key, value);
    return (size_t)head_size * (size_t)llama_model_n_head_kv(model);
}

/* Copies the rows of all tensors in `state` to `rows`, side by side; answers their number of bytes. A tensor begins with
 * its type (i32) and the bytes of a row (u64); `tokens` rows follow. */
static size_t find_rows(const uint8_t *state, size_t count, enum ggml_type type, size_t row,
                        int32_t tokens, uint8_t *rows, int *tensors) {
    const size_t length = row * (size_t)tokens;
    size_t found = 0, at = 0;
    *tensors = 0;
    while (at + 12 + length <= count) {
        int32_t its_type;
        uint64_t its_row;
        memcpy(&its_type, state + at, 4);
        memcpy(&its_row, state + at + 4, 8);
        if (its_type != (int32_t)type || its_row != row) {
            at += 4;
            continue;
        }
        memcpy(rows + found, state + at + 12, length);
        found += length;
        at += 12 + length;
        *tensors += 1;
    }
    return found;
}

static void save_blocks(struct llama_context *llama, enum ggml_type type, const char *name,
                        int32_t first, int32_t past) {
    const struct llama_model *model = llama_get_model(llama);
    const int layers = llama_model_n_layer(model);
    const size_t row = ggml_row_size(type, (int64_t)row_elements(model));
    llama_memory_t memory = llama_get_memory(llama);
    for (int32_t at = first; at + options.tokens_per_block <= past; at += options.tokens_per_block) {
        llama_memory_seq_cp(memory, SEQ, SCRATCH, at, at + options.tokens_per_block);
        const size_t count = llama_state_seq_get_size(llama, SCRATCH);
        uint8_t *state = allocate(count), *rows = allocate(count);
        if (llama_state_seq_get_data(llama, state, count, SCRATCH) != count) die("no state");
        llama_memory_seq_rm(memory, SCRATCH, -1, -1);
        int tensors;
        const size_t bytes =
            find_rows(state, count, type, row, options.tokens_per_block, rows, &tensors);
        /* Besides the rows there are the cells' positions, and a few numbers for each tensor and section. */
        if (tensors != 2 * layers || count - bytes > 4096 + 64 * (size_t)tensors) {
            die("llama.cpp's state is not laid out as this tool expects: %d tensors for %d layers, "
                "%zu of %zu bytes",
                tensors, layers, bytes, count);
        }
        const int32_t block = at / options.tokens_per_block;
        write_block(name, block, rows, bytes);
        if (type == GGML_TYPE_F16) cast_rows(block, (const uint16_t *)rows, bytes / 2, row / 2);
        free(rows);
        free(state);
    }
}

/* ---------------------------------------------------------------- engine */

static llama_token *tokenize(const struct llama_model *model) {
    enum { TEXT_BYTES_MAX = 1 << 18 };
    FILE *file = fopen(options.text, "rb");
    if (file == NULL) die("%s: %s", options.text, strerror(errno));
    char *text = allocate(TEXT_BYTES_MAX);
    const size_t length = fread(text, 1, TEXT_BYTES_MAX, file);
    fclose(file);
    llama_token *tokens = allocate((TEXT_BYTES_MAX + 8) * sizeof *tokens);
    const int32_t count = llama_tokenize(llama_model_get_vocab(model), text, (int32_t)length, tokens,
                                         TEXT_BYTES_MAX + 8, true, false);
    if (count < options.tokens_per_block) die("%s has %d tokens only", options.text, count);
    if (count < options.tokens) options.tokens = count;
    free(text);
    return tokens;
}

static void compute(struct llama_model *model, llama_token *tokens, enum ggml_type type,
                    const char *name) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)options.tokens + BATCH;
    params.n_batch = params.n_ubatch = BATCH;
    params.n_seq_max = 2;
    params.kv_unified = true;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = params.type_v = type;
    params.n_threads = params.n_threads_batch = options.threads;
    struct llama_context *llama = llama_init_from_model(model, params);
    if (llama == NULL) die("llama.cpp could not make a context with %s", name);
    for (int32_t at = 0; at < options.tokens; at += BATCH) {
        const int32_t count = options.tokens - at < BATCH ? options.tokens - at : BATCH;
        const int32_t rc = llama_decode(llama, llama_batch_get_one(tokens + at, count));
        if (rc != 0) die("llama_decode answered %d", rc);
        /* At once: the sliding window forgets what lies behind it. */
        save_blocks(llama, type, name, at, at + count);
    }
    llama_free(llama);
}

int main(int argc, char **argv) {
    static const struct option names[] = {{"model", required_argument, NULL, 'm'},
                                          {"text", required_argument, NULL, 'x'},
                                          {"out", required_argument, NULL, 'o'},
                                          {"tokens", required_argument, NULL, 'n'},
                                          {"tokens-per-block", required_argument, NULL, 'b'},
                                          {"threads", required_argument, NULL, 't'},
                                          {NULL, 0, NULL, 0}};
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'm': options.model = optarg; break;
        case 'x': options.text = optarg; break;
        case 'o': options.out = optarg; break;
        case 'n': options.tokens = atoi(optarg); break;
        case 'b': options.tokens_per_block = atoi(optarg); break;
        case 't': options.threads = atoi(optarg); break;
        default: return 2;
        }
    }
    if (options.model == NULL || options.text == NULL || options.out == NULL || optind != argc ||
        options.tokens < 1 || options.tokens_per_block < 1 || options.tokens_per_block > BATCH ||
        BATCH % options.tokens_per_block != 0 || options.threads < 1) {
        fputs("usage: kv_data --model GGUF --text FILE --out FOLDER [--tokens N] "
              "[--tokens-per-block N] [--threads N]\n",
              stderr);
        return 2;
    }
    make_folder(options.out);
    llama_log_set(log_errors, NULL);
    llama_backend_init();
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    struct llama_model *model = llama_model_load_from_file(options.model, params);
    if (model == NULL) die("%s: not a model that llama.cpp can load", options.model);
    llama_token *tokens = tokenize(model);
    compute(model, tokens, GGML_TYPE_F16, "fp16");
    compute(model, tokens, GGML_TYPE_BF16, "bf16");
    compute(model, tokens, GGML_TYPE_Q8_0, "q8_0");
    free(tokens);
    llama_model_free(model);
    return 0;
}
