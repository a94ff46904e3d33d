/* demo.c — shows, and proves, what the store gives a real engine: one arm of the comparison for
 * each process.
 *
 *   reference   computes the prompt with llama.cpp and never opens the store
 *   cold        computes it too, and offloads its blocks meanwhile
 *   restored    another process: restores the prompt's KV from disk, and computes only what is left
 *
 * Every arm decodes the same last batch and then the same number of greedy steps, and writes all
 * their logits to a file. If they are equal bit for bit, the restored KV is the computed KV. The
 * prefill is cut into batches of 512, and blocks are 64 tokens: where a batch is cut at a multiple
 * of 64, llama.cpp's CPU kernels give the same bits. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kvstore_llama.h"

enum { SEQ = 0, PREFILL_BATCH = 512 };

static struct {
    const char *mode, *model, *text, *store, *logits, *weights_digest, *remote;
    int32_t prompt_tokens, last_batch_tokens, steps, threads, context_tokens, tokens_per_block,
        remote_wait_ms;
    bool json, window_cells_full, buffered_io;
} options = {.prompt_tokens = 2048,
             .last_batch_tokens = 16,
             .steps = 8,
             .threads = 2,
             .context_tokens = 4096,
             .tokens_per_block = KVSTORE_LLAMA_TOKENS_PER_BLOCK,
             .remote_wait_ms = -1};

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("demo: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL) die("out of memory");
    return memory;
}

/* llama.cpp tells of its every step; only what went wrong is worth showing. */
static void log_errors(enum ggml_log_level level, const char *text, void *unused) {
    (void)unused;
    static bool shown;
    if (level != GGML_LOG_LEVEL_CONT) shown = level == GGML_LOG_LEVEL_ERROR;
    if (shown) fputs(text, stderr);
}

/* ---------------------------------------------------------------- engine */

static llama_token *tokenize(const struct llama_model *model, const char *path, int32_t needed) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) die("%s: %s", path, strerror(errno));
    enum { TEXT_BYTES_MAX = 1 << 18 };
    char *text = allocate(TEXT_BYTES_MAX, 1);
    const size_t length = fread(text, 1, TEXT_BYTES_MAX, file);
    fclose(file);
    llama_token *tokens = allocate(TEXT_BYTES_MAX + 8, sizeof *tokens);
    const int32_t count = llama_tokenize(llama_model_get_vocab(model), text, (int32_t)length,
                                         tokens, TEXT_BYTES_MAX + 8, true, false);
    if (count < needed) die("%s has %d tokens, but %d are needed", path, count, needed);
    free(text);
    return tokens;
}

/* Decodes tokens[first ... past) as one batch; logits of the last one if asked for. */
static void decode(struct llama_context *llama, struct llama_batch *batch,
                   const llama_token *tokens, int32_t first, int32_t past, bool logits) {
    batch->n_tokens = past - first;
    for (int32_t i = 0; i < batch->n_tokens; i++) {
        batch->token[i] = tokens[first + i];
        batch->pos[i] = first + i;
        batch->n_seq_id[i] = 1;
        batch->seq_id[i][0] = SEQ;
        batch->logits[i] = logits && first + i == past - 1;
    }
    const int32_t rc = llama_decode(llama, *batch);
    if (rc != 0) die("llama_decode of tokens %d ... %d answered %d", first, past - 1, rc);
}

static llama_token best(const float *logits, int32_t count) {
    llama_token best = 0;
    for (int32_t i = 1; i < count; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

/* ---------------------------------------------------------------- store */

typedef struct {
    kvstore_t *store;
    kvstore_llama_t *adapter;
} opened_t;

static opened_t open_store(struct llama_context *llama, struct llama_context_params params,
                           struct llama_model_params model_params, const uint8_t digest[32]) {
    opened_t opened;
    kvstore_config_t config;
    kvstore_config_init(&config, sizeof config);
    config.path = options.store;
    config.capacity_bytes = UINT64_C(1) << 30;
    if (options.buffered_io) config.flags |= KVSTORE_OPEN_BUFFERED_IO;
    if (options.remote != NULL) {
        config.remote_url = options.remote;
        config.remote_writes = KVSTORE_REMOTE_WRITES_ALL;
    }
    if (kvstore_open(&config, &opened.store) != KVSTORE_OK) {
        die("%s: %s", options.store, kvstore_last_error_message());
    }
    kvstore_llama_config_t binding;
    kvstore_llama_config_init(&binding);
    binding.store = opened.store;
    binding.llama = llama;
    binding.context_params = params;
    binding.model_params = model_params;
    binding.weights_digest.data = digest;
    binding.weights_digest.length = 32;
    binding.tokens_per_block = (uint32_t)options.tokens_per_block;
    if (options.remote_wait_ms >= 0) {
        binding.remote_wait_nanoseconds = (uint64_t)options.remote_wait_ms * UINT64_C(1000000);
    }
    if (kvstore_llama_open(&binding, &opened.adapter) != KVSTORE_OK) {
        die("%s", kvstore_llama_error_message());
    }
    return opened;
}

/* Waits until the remote tier has all that it is to be sent, or has lost some of it. */
static double send_milliseconds(kvstore_t *store) {
    const double start = milliseconds();
    kvstore_stats_t stats;
    uint64_t last = UINT64_MAX;
    int still = 0;
    do {
        memset(&stats, 0, sizeof stats);
        stats.struct_size = sizeof stats;
        kvstore_stats(store, &stats);
        const uint64_t done =
            stats.remote_chunks_sent + stats.remote_chunks_existed + stats.remote_drops;
        still = done == last ? still + 1 : 0;
        last = done;
        nanosleep(&(struct timespec){0, 10000000}, NULL);
        /* Nothing tells how much is to come; two seconds without anything are the end of it. */
    } while (still < 200 && stats.remote_drops == 0);
    return milliseconds() - start;
}

static void weights_digest(uint8_t digest[32]) {
    if (options.weights_digest == NULL) {
        const int error = kvstore_llama_digest_file(options.model, digest);
        if (error != 0) die("%s: %s", options.model, strerror(error));
        return;
    }
    for (int i = 0; i < 32; i++) {
        unsigned byte;
        if (sscanf(options.weights_digest + 2 * i, "%2x", &byte) != 1)
            die("--weights-sha256 needs 64 digits");
        digest[i] = (uint8_t)byte;
    }
}

/* ---------------------------------------------------------------- one arm */

static void run_arm(void) {
    const bool restores = strcmp(options.mode, "restored") == 0;
    const bool offloads = strcmp(options.mode, "cold") == 0;
    const int32_t prompt_end = options.prompt_tokens, end = prompt_end + options.last_batch_tokens;

    /* Everything up to the warm-up is what a server does once, when it starts: not part of a
     * request. */
    const double load_start = milliseconds();
    llama_log_set(log_errors, NULL);
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    struct llama_model *model = llama_model_load_from_file(options.model, model_params);
    if (model == NULL) die("%s: not a model that llama.cpp can load", options.model);
    uint8_t digest[32] = {0};
    if (restores || offloads) weights_digest(digest);

    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)options.context_tokens;
    params.n_batch = params.n_ubatch = PREFILL_BATCH;
    params.n_seq_max = 2;
    params.kv_unified = true;
    params.swa_full = options.window_cells_full;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.n_threads = params.n_threads_batch = options.threads;
    params.no_perf = false;
    struct llama_context *llama = llama_init_from_model(model, params);
    if (llama == NULL) die("llama.cpp could not make a context");
    const int32_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_token *tokens = tokenize(model, options.text, end);
    struct llama_batch batch = llama_batch_init(PREFILL_BATCH, 0, 1);

    /* The first decode of a process reads the weights in and sets up threads, as every server does
     * before it takes requests; without this the first arm that runs pays for all of them. */
    decode(llama, &batch, tokens, 0, options.last_batch_tokens, true);
    llama_synchronize(llama);
    llama_memory_clear(llama_get_memory(llama), true);
    llama_perf_context_reset(llama);
    const double load_milliseconds = milliseconds() - load_start;

    /* The request. */
    opened_t opened = {NULL, NULL};
    kvstore_llama_report_t report, offloaded;
    memset(&report, 0, sizeof report);
    memset(&offloaded, 0, sizeof offloaded);
    int32_t restored = 0, stored = 0;
    double open_milliseconds = 0, restore_milliseconds = 0, offload_milliseconds = 0;
    const double request_start = milliseconds();
    if (restores || offloads) {
        opened = open_store(llama, params, model_params, digest);
        open_milliseconds = milliseconds() - request_start;
        const double start = milliseconds();
        restored = kvstore_llama_restore(opened.adapter, SEQ, tokens, end);
        report = *kvstore_llama_report(opened.adapter);
        restore_milliseconds = milliseconds() - start;
    }
    for (int32_t at = restored; at < prompt_end;) {
        const int32_t past = at + PREFILL_BATCH < prompt_end ? at + PREFILL_BATCH : prompt_end;
        decode(llama, &batch, tokens, at, past, false);
        at = past;
        if (offloads) {
            const double start = milliseconds();
            stored = kvstore_llama_offload(opened.adapter, SEQ, tokens, at);
            const kvstore_llama_report_t *last = kvstore_llama_report(opened.adapter);
            offload_milliseconds += milliseconds() - start;
            offloaded.blocks += last->blocks;
            offloaded.bytes += last->bytes;
            if (last->status != KVSTORE_OK) {
                die("offload: %s (%s)", kvstore_status_string(last->status),
                    last->note != NULL ? last->note : "");
            }
        }
    }
    decode(llama, &batch, tokens, prompt_end, end, true);
    const float *logits = llama_get_logits_ith(llama, -1);
    llama_token token = best(logits, vocabulary);
    const double ttft_milliseconds = milliseconds() - request_start;
    const int32_t tokens_decoded = llama_perf_context(llama).n_p_eval;

    FILE *file = options.logits != NULL ? fopen(options.logits, "wb") : NULL;
    if (options.logits != NULL && file == NULL) die("%s: %s", options.logits, strerror(errno));
    llama_token *generated = allocate((size_t)options.steps + 1, sizeof *generated);
    for (int32_t step = 0;; step++) {
        if (file != NULL) fwrite(logits, sizeof *logits, (size_t)vocabulary, file);
        generated[step] = token;
        if (step == options.steps) break;
        /* `tokens` goes on with the rest of the text; from here on the model's own words count. */
        tokens[end + step] = token;
        decode(llama, &batch, tokens, end + step, end + step + 1, true);
        logits = llama_get_logits_ith(llama, -1);
        token = best(logits, vocabulary);
    }
    if (file != NULL && (ferror(file) || fclose(file) != 0))
        die("%s: could not write", options.logits);
    const int32_t steps_decoded = options.steps > 0 ? llama_perf_context(llama).n_eval : 0;

    kvstore_flush_result_t flushed;
    kvstore_stats_t stats;
    memset(&flushed, 0, sizeof flushed);
    memset(&stats, 0, sizeof stats);
    flushed.struct_size = sizeof flushed;
    stats.struct_size = sizeof stats;
    double flush_milliseconds = 0, sent_milliseconds = 0;
    if (opened.store != NULL) {
        if (offloads) {
            const double start = milliseconds();
            const kvstore_status_t status = kvstore_flush(opened.store, 0, &flushed);
            flush_milliseconds = milliseconds() - start;
            if (status != KVSTORE_OK) die("flush: %s", kvstore_last_error_message());
            if (options.remote != NULL) sent_milliseconds = send_milliseconds(opened.store);
        }
        kvstore_stats(opened.store, &stats);
        kvstore_llama_close(opened.adapter);
        const kvstore_status_t status = kvstore_close(opened.store);
        if (status != KVSTORE_OK) die("close: %s", kvstore_last_error_message());
    }

    const uint64_t bytes = report.bytes + offloaded.bytes;
    const char *io = stats.io_path == KVSTORE_IO_DIRECT     ? "direct"
                     : stats.io_path == KVSTORE_IO_BUFFERED ? "buffered"
                                                            : "none";
    if (options.json) {
        printf(
            "{\"mode\": \"%s\", \"ttft_ms\": %.3f, \"load_ms\": %.1f, \"open_ms\": %.3f, "
            "\"restore_ms\": %.3f, "
            "\"offload_ms\": %.3f, \"flush_ms\": %.3f, \"prompt_tokens\": %d, \"tokens_decoded\": "
            "%d, "
            "\"steps_decoded\": %d, \"tokens_restored\": %d, \"tokens_stored\": %d, "
            "\"blocks_host\": %llu, "
            "\"blocks_disk\": %llu, \"blocks_offloaded\": %llu, \"blocks_durable\": %llu, "
            "\"bytes\": %llu, "
            "\"io\": \"%s\", \"status\": \"%s\", \"leases_active\": %llu, "
            "\"remote_wait_ms\": %.3f, \"remote_unfinished\": %llu, \"send_ms\": %.1f, "
            "\"chunks_sent\": %llu, \"chunks_fetched\": %llu, \"remote_bytes\": %llu, "
            "\"remote_misses\": %llu, \"generated\": [",
            options.mode, ttft_milliseconds, load_milliseconds, open_milliseconds,
            restore_milliseconds, offload_milliseconds, flush_milliseconds, end, tokens_decoded,
            steps_decoded, restored, stored, (unsigned long long)report.blocks_host,
            (unsigned long long)report.blocks_disk, (unsigned long long)offloaded.blocks,
            (unsigned long long)flushed.blocks_durable, (unsigned long long)bytes, io,
            restores ? kvstore_status_string(report.status) : "",
            (unsigned long long)stats.leases_active, 1e-6 * (double)report.remote_nanoseconds,
            (unsigned long long)report.remote_unfinished, sent_milliseconds,
            (unsigned long long)stats.remote_chunks_sent,
            (unsigned long long)stats.remote_chunks_fetched,
            (unsigned long long)(stats.remote_bytes_fetched + stats.remote_bytes_sent),
            (unsigned long long)stats.remote_misses);
        for (int32_t i = 0; i <= options.steps; i++)
            printf("%s%d", i > 0 ? ", " : "", generated[i]);
        printf("]}\n");
    } else {
        printf("%s\n", options.mode);
        printf("  time to first token  %10.1f ms  (store open %.1f, restore %.1f, offload %.1f)\n",
               ttft_milliseconds, open_milliseconds, restore_milliseconds, offload_milliseconds);
        printf(
            "  tokens decoded       %10d     as llama.cpp counts them, for a prompt of %d; then %d "
            "steps\n",
            tokens_decoded, end, steps_decoded);
        printf("  tokens restored      %10d     blocks from RAM %llu, from disk %llu\n", restored,
               (unsigned long long)report.blocks_host, (unsigned long long)report.blocks_disk);
        printf(
            "  tokens stored        %10d     blocks offloaded %llu, durable %llu (flush %.1f ms)\n",
            stored, (unsigned long long)offloaded.blocks,
            (unsigned long long)flushed.blocks_durable, flush_milliseconds);
        printf("  bytes moved          %10.1f MB  I/O %s\n", 1e-6 * (double)bytes, io);
        if (report.note != NULL) {
            printf("  restore stopped: %s (%s)\n", report.note,
                   kvstore_status_string(report.status));
        }
    }
    free(generated);
    free(tokens);
    llama_batch_free(batch);
    llama_free(llama);
    llama_model_free(model);
}

/* ---------------------------------------------------------------- page cache */

static uint64_t file_bytes, cached_bytes;

/* Clean pages leave the page cache on request; how many stayed is then asked of the kernel, not
 * assumed. */
static int drop_file(const char *path, const struct stat *status, int type, struct FTW *unused) {
    (void)unused;
    if (type != FTW_F || status->st_size == 0) return 0;
    const int fd = open(path, O_RDONLY);
    if (fd < 0) die("%s: %s", path, strerror(errno));
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    const size_t bytes = (size_t)status->st_size, page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t pages = (bytes + page - 1) / page;
    void *mapping = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char *resident = allocate(pages, 1);
    if (mapping == MAP_FAILED || mincore(mapping, bytes, resident) != 0) {
        die("%s: %s", path, strerror(errno));
    }
    for (size_t i = 0; i < pages; i++) cached_bytes += (resident[i] & 1u) * page;
    file_bytes += bytes;
    free(resident);
    munmap(mapping, bytes);
    close(fd);
    return 0;
}

static void drop_cache(void) {
    if (nftw(options.store, drop_file, 16, FTW_PHYS) != 0)
        die("%s: %s", options.store, strerror(errno));
    printf("{\"file_bytes\": %llu, \"cached_bytes\": %llu}\n", (unsigned long long)file_bytes,
           (unsigned long long)cached_bytes);
}

/* ---------------------------------------------------------------- command line */

static void usage(FILE *file) {
    fputs(
        "usage: demo reference|cold|restored --model FILE --text FILE [--store DIR] [option ...]\n"
        "       demo drop-cache --store DIR\n\n"
        "  reference  compute a prompt with llama.cpp, without the store\n"
        "  cold       compute it and offload its KV blocks into the store\n"
        "  restored   restore the prompt's KV from the store, compute the rest\n"
        "  drop-cache drop the store's files from the page cache; tells how much stayed\n\n"
        "  --model FILE           GGUF model\n"
        "  --text FILE            text whose first tokens are the prompt\n"
        "  --store DIR            the store's folder\n"
        "  --logits FILE          write the logits of the last batch's last token and of each "
        "step\n"
        "  --json                 print one line of JSON\n"
        "  --prompt-tokens N      tokens before the last batch (2048)\n"
        "  --steps N              greedy steps after the first token (8)\n"
        "  --threads N            threads of llama.cpp (2)\n"
        "  --context-tokens N     n_ctx (4096)\n"
        "  --tokens-per-block N   tokens in a block (64)\n"
        "  --weights-sha256 HEX   the model file's digest, computed if not given\n"
        "  --swa-full             full-size cache for sliding-window layers\n"
        "  --buffered-io          let the store use the page cache\n"
        "  --remote URL           a remote tier of the store; cold waits until it has all\n"
        "  --remote-wait-ms N     how long a restore waits for it (2000)\n",
        file);
}

static int32_t number(const char *text) {
    char *end;
    const long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value < 0 || value > 100000)
        die("%s: not a number in range", text);
    return (int32_t)value;
}

int main(int argc, char **argv) {
    static const struct option names[] = {{"model", 1, 0, 'm'},
                                          {"text", 1, 0, 't'},
                                          {"store", 1, 0, 's'},
                                          {"logits", 1, 0, 'l'},
                                          {"json", 0, 0, 'j'},
                                          {"prompt-tokens", 1, 0, 'p'},
                                          {"steps", 1, 0, 'n'},
                                          {"threads", 1, 0, 'T'},
                                          {"context-tokens", 1, 0, 'c'},
                                          {"tokens-per-block", 1, 0, 'b'},
                                          {"weights-sha256", 1, 0, 'w'},
                                          {"swa-full", 0, 0, 'f'},
                                          {"buffered-io", 0, 0, 'B'},
                                          {"remote", 1, 0, 'r'},
                                          {"remote-wait-ms", 1, 0, 'W'},
                                          {"help", 0, 0, 'h'},
                                          {0, 0, 0, 0}};
    for (int name; (name = getopt_long(argc, argv, "h", names, NULL)) != -1;) {
        switch (name) {
            case 'm': options.model = optarg; break;
            case 't': options.text = optarg; break;
            case 's': options.store = optarg; break;
            case 'l': options.logits = optarg; break;
            case 'j': options.json = true; break;
            case 'p': options.prompt_tokens = number(optarg); break;
            case 'n': options.steps = number(optarg); break;
            case 'T': options.threads = number(optarg); break;
            case 'c': options.context_tokens = number(optarg); break;
            case 'b': options.tokens_per_block = number(optarg); break;
            case 'w': options.weights_digest = optarg; break;
            case 'f': options.window_cells_full = true; break;
            case 'B': options.buffered_io = true; break;
            case 'r': options.remote = optarg; break;
            case 'W': options.remote_wait_ms = number(optarg); break;
            case 'h': usage(stdout); return 0;
            default: usage(stderr); return 2;
        }
    }
    options.mode = optind < argc ? argv[optind] : "";
    const bool drops = strcmp(options.mode, "drop-cache") == 0;
    const bool references = strcmp(options.mode, "reference") == 0;
    const bool stores = strcmp(options.mode, "cold") == 0 || strcmp(options.mode, "restored") == 0;
    const bool complete = drops ? options.store != NULL
                                : options.model != NULL && options.text != NULL &&
                                      (references || (stores && options.store != NULL));
    if (!complete || optind + 1 < argc) {
        usage(stderr);
        return 2;
    }
    if (drops) {
        drop_cache();
    } else {
        run_arm();
    }
    return 0;
}
