#include "harness.h"

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>

const char *test_program;
const char *test_dir;

/* ---------------------------------------------------------------- checks */

void fail(const char *file, int line, const char *format, ...) {
    char text[2048];
    va_list arguments;
    const char *base = strrchr(file, '/');
    int length = snprintf(text, sizeof text, "  %s:%d: ", base ? base + 1 : file, line);
    va_start(arguments, format);
    if (length > 0 && (size_t)length < sizeof text)
        vsnprintf(text + length, sizeof text - (size_t)length, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s\n", text);
    fflush(NULL);
    _exit(1); /* not exit: another thread may be inside the library, or this may be a forked child */
}

void skip(const char *reason) {
    fprintf(stderr, "  skipped: %s\n", reason);
    fflush(NULL);
    _exit(77);
}

/* After an error the message says something; whatever happens it is never NULL. */
static void check_message(const char *file, int line, const char *call, kvstore_status_t got) {
    const char *message = kvstore_last_error_message();
    if (message == NULL) fail(file, line, "%s: the last error message is NULL", call);
    if (got < 0 && message[0] == '\0')
        fail(file, line, "%s: %s without a message", call, kvstore_status_string(got));
}

kvstore_status_t check_status(const char *file, int line, const char *call, kvstore_status_t got,
                              kvstore_status_t want) {
    if (got != want)
        fail(file, line, "%s is %s (%s), expected %s", call, kvstore_status_string(got),
             got < 0 ? kvstore_last_error_message() : "no error", kvstore_status_string(want));
    check_message(file, line, call, got);
    return got;
}

kvstore_status_t check_one_of(const char *file, int line, const char *call, kvstore_status_t got, int count,
                              ...) {
    va_list wanted;
    int i;
    char names[512] = "";
    va_start(wanted, count);
    for (i = 0; i < count; i++) {
        kvstore_status_t want = (kvstore_status_t)va_arg(wanted, int);
        size_t used = strlen(names);
        if (want == got) {
            va_end(wanted);
            check_message(file, line, call, got);
            return got;
        }
        snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : " or ", kvstore_status_string(want));
    }
    va_end(wanted);
    fail(file, line, "%s is %s (%s), expected %s", call, kvstore_status_string(got),
         got < 0 ? kvstore_last_error_message() : "no error", names);
    return got;
}

/* ---------------------------------------------------------------- small things */

void *must_malloc(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (memory == NULL) fail(__FILE__, __LINE__, "out of memory");
    return memory;
}

char *path_in_dir(const char *name) {
    size_t bytes = strlen(test_dir) + strlen(name) + 2;
    char *path = (char *)must_malloc(bytes);
    snprintf(path, bytes, "%s/%s", test_dir, name);
    return path;
}

uint64_t now_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void sleep_milliseconds(unsigned milliseconds) {
    struct timespec pause;
    pause.tv_sec = (time_t)(milliseconds / 1000);
    pause.tv_nsec = (long)(milliseconds % 1000) * 1000000L;
    while (nanosleep(&pause, &pause) != 0 && errno == EINTR) {
    }
}

uint64_t mix64(uint64_t x) {
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

int spawn_role(const char *role, const char *argument, const char *argument2, int *read_end) {
    int ends[2] = {-1, -1};
    pid_t pid;
    if (read_end != NULL && pipe(ends) != 0) fail(__FILE__, __LINE__, "pipe: %s", strerror(errno));
    fflush(NULL);
    pid = fork();
    if (pid < 0) fail(__FILE__, __LINE__, "fork: %s", strerror(errno));
    if (pid == 0) {
        if (read_end != NULL) {
            dup2(ends[1], 1);
            close(ends[0]);
            close(ends[1]);
        }
        execl(test_program, test_program, "--role", role, test_dir, argument ? argument : "",
              argument2 ? argument2 : "", (char *)NULL);
        _exit(126);
    }
    if (read_end != NULL) {
        close(ends[1]);
        *read_end = ends[0];
    }
    return (int)pid;
}

int wait_for(int pid) {
    int status = 0;
    while (waitpid((pid_t)pid, &status, 0) < 0) {
        if (errno != EINTR) fail(__FILE__, __LINE__, "waitpid: %s", strerror(errno));
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---------------------------------------------------------------- stores and namespaces */

void small_config(kvstore_config_t *config, const char *path) {
    CHECK_STATUS(kvstore_config_init(config, sizeof *config), KVSTORE_OK);
    config->path = path;
    config->capacity_bytes = 256 * MIB;
    config->host_bytes = 16 * MIB;
}

kvstore_t *open_small(const char *path) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    small_config(&config, path);
    CHECK_STATUS(kvstore_open(&config, &store), KVSTORE_OK);
    CHECK(store != NULL);
    return store;
}

void close_store(kvstore_t *store) { CHECK_STATUS(kvstore_close(store), KVSTORE_OK); }

kvstore_flush_result_t flush_zero(void) {
    kvstore_flush_result_t result;
    memset(&result, 0, sizeof result);
    result.struct_size = (uint32_t)sizeof result;
    return result;
}

void flush_store(kvstore_t *store) {
    kvstore_flush_result_t result = flush_zero();
    CHECK_STATUS(kvstore_flush(store, 0, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_dropped_full, 0);
    CHECK_EQ(result.blocks_dropped_parent, 0);
    CHECK_EQ(result.blocks_dropped_error, 0);
}

kvstore_stats_t stats_of(kvstore_t *store) {
    kvstore_stats_t stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    CHECK_STATUS(kvstore_stats(store, &stats), KVSTORE_OK);
    return stats;
}

static shape_t shape_uniform(const char *name, uint32_t region_count, uint64_t region_bytes) {
    shape_t shape;
    uint32_t r;
    memset(&shape, 0, sizeof shape);
    shape.name = name;
    shape.tokens_per_block = 16;
    shape.region_count = region_count;
    for (r = 0; r < region_count; r++) shape.region_bytes[r] = region_bytes;
    return shape;
}

shape_t shape_mha(void) { return shape_uniform("mha", 8, 4096); }
shape_t shape_gqa(void) { return shape_uniform("gqa", 8, 1024); }
shape_t shape_mla(void) { return shape_uniform("mla", 3, 18432); }
shape_t shape_large(void) { return shape_uniform("large", 1, 256 * 1024); }

shape_t shape_fp8(void) {
    shape_t shape = shape_uniform("fp8", 8, 1000);
    shape.tokens_per_block = 5; /* no power of two */
    shape.region_bytes[2] = shape.region_bytes[6] = 12;
    shape.region_bytes[3] = shape.region_bytes[7] = 1;
    return shape;
}

shape_t shape_blob(void) {
    shape_t shape = shape_uniform("blob", 1, 100000);
    shape.flags = KVSTORE_NAMESPACE_REGIONS_VARIABLE;
    return shape;
}

void namespace_config(const shape_t *shape, kvstore_namespace_config_t *config) {
    CHECK_STATUS(kvstore_namespace_config_init(config, sizeof *config), KVSTORE_OK);
    config->flags = shape->flags;
    config->tokens_per_block = shape->tokens_per_block;
    config->region_count = shape->region_count;
    config->region_bytes = shape->region_bytes;
    config->model_name = shape->name;
}

kvstore_namespace_t *open_namespace(kvstore_t *store, const shape_t *shape) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    namespace_config(shape, &config);
    CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
    CHECK(ns != NULL);
    return ns;
}

/* ---------------------------------------------------------------- prompts and payloads */

uint32_t *make_tokens(uint64_t seed, size_t count) {
    uint32_t *tokens = (uint32_t *)must_malloc(count * sizeof *tokens);
    vary_tokens(tokens, 0, count, seed);
    return tokens;
}

void vary_tokens(uint32_t *tokens, size_t from, size_t count, uint64_t seed) {
    size_t i;
    for (i = from; i < count; i++) tokens[i] = (uint32_t)(mix64(mix64(seed) ^ i) % 262144);
}

kvstore_prompt_t prompt_of(const uint32_t *tokens, size_t token_count) {
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = (uint32_t)sizeof prompt;
    prompt.tokens = tokens;
    prompt.token_count = token_count;
    return prompt;
}

kvstore_prompt_t digest_prompt(const void *digests, size_t digest_count) {
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = (uint32_t)sizeof prompt;
    prompt.digests = digests;
    prompt.digest_count = digest_count;
    return prompt;
}

uint64_t region_length(const shape_t *shape, uint64_t content_seed, uint64_t block, uint32_t region) {
    uint64_t bound = shape->region_bytes[region];
    if (!(shape->flags & KVSTORE_NAMESPACE_REGIONS_VARIABLE)) return bound;
    if (block % 4 == 0) return bound; /* the maximum and one byte are among them */
    if (block % 4 == 1) return 1;
    return 1 + mix64(content_seed ^ (block << 8)) % bound;
}

#define GUARD_BYTES 19 /* odd, so that hardly a piece is aligned */
#define GUARD 0xEC
#define UNTOUCHED 0xA5

static size_t common_divisor(size_t a, size_t b) {
    while (b != 0) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

pieces_t pieces_new(const shape_t *shape, uint64_t first_block, uint64_t block_count, uint32_t first_region,
                    uint32_t region_count) {
    pieces_t pieces;
    uint64_t per_block = 0, b;
    size_t offset = 0, i, step;
    uint32_t r;
    memset(&pieces, 0, sizeof pieces);
    if (region_count == 0) region_count = shape->region_count - first_region;
    pieces.shape = *shape;
    pieces.first_block = first_block;
    pieces.block_count = block_count;
    pieces.first_region = first_region;
    pieces.region_count = region_count;
    pieces.span_count = (size_t)(block_count * region_count);
    pieces.spans = (kvstore_span_t *)must_malloc(pieces.span_count * sizeof *pieces.spans);
    pieces.block_status =
        (kvstore_status_t *)must_malloc((size_t)block_count * sizeof *pieces.block_status);
    for (r = 0; r < region_count; r++) per_block += shape->region_bytes[first_region + r] + GUARD_BYTES;
    pieces.memory_bytes = (size_t)(per_block * block_count) + GUARD_BYTES;
    pieces.memory = (unsigned char *)must_malloc(pieces.memory_bytes);
    memset(pieces.memory, GUARD, pieces.memory_bytes);
    /* Visit the pieces in an order that is not theirs, as a paged engine's memory is. */
    for (step = 7; common_divisor(step, pieces.span_count) != 1; step++) {
    }
    for (i = 0; i < pieces.span_count; i++) {
        size_t s = (i * step + 3) % pieces.span_count;
        uint64_t bytes = shape->region_bytes[first_region + s % region_count];
        offset += GUARD_BYTES;
        pieces.spans[s].data = pieces.memory + offset;
        pieces.spans[s].capacity = (size_t)bytes;
        pieces.spans[s].length = 0;
        offset += (size_t)bytes;
    }
    for (b = 0; b < block_count; b++) pieces.block_status[b] = 12345;
    return pieces;
}

void pieces_free(pieces_t *pieces) {
    free(pieces->spans);
    free(pieces->block_status);
    free(pieces->memory);
    memset(pieces, 0, sizeof *pieces);
}

static unsigned char content_byte(uint64_t piece_seed, uint64_t i) {
    return (unsigned char)(mix64(piece_seed + i / 8) >> (8 * (i % 8)));
}

static uint64_t piece_seed(uint64_t content_seed, uint64_t block, uint32_t region) {
    return mix64(mix64(content_seed) ^ (block << 20) ^ region);
}

void pieces_fill(pieces_t *pieces, uint64_t content_seed) {
    size_t s;
    for (s = 0; s < pieces->span_count; s++) {
        uint64_t block = pieces->first_block + s / pieces->region_count, i;
        uint32_t region = pieces->first_region + (uint32_t)(s % pieces->region_count);
        uint64_t length = region_length(&pieces->shape, content_seed, block, region);
        uint64_t seed = piece_seed(content_seed, block, region);
        unsigned char *bytes = (unsigned char *)pieces->spans[s].data;
        for (i = 0; i < length; i++) bytes[i] = content_byte(seed, i);
        pieces->spans[s].length = (size_t)length;
    }
}

void pieces_clear(pieces_t *pieces) {
    size_t s;
    uint64_t b;
    for (s = 0; s < pieces->span_count; s++) {
        memset(pieces->spans[s].data, UNTOUCHED, pieces->spans[s].capacity);
        pieces->spans[s].length = 0;
    }
    for (b = 0; b < pieces->block_count; b++) pieces->block_status[b] = 12345;
}

bool pieces_match(const pieces_t *pieces, uint64_t content_seed, uint64_t blocks) {
    size_t s, g;
    if (blocks > pieces->block_count) return false;
    for (s = 0; s < pieces->span_count; s++) {
        const unsigned char *bytes = (const unsigned char *)pieces->spans[s].data;
        uint64_t block = pieces->first_block + s / pieces->region_count, i;
        uint32_t region = pieces->first_region + (uint32_t)(s % pieces->region_count);
        uint64_t length, seed;
        for (g = 1; g <= GUARD_BYTES; g++) /* the guards before and behind each piece */
            if (bytes[-(ptrdiff_t)g] != GUARD || bytes[pieces->shape.region_bytes[region] + g - 1] != GUARD) {
                fprintf(stderr, "  a guard byte beside block %" PRIu64 " region %u was written\n", block, region);
                return false;
            }
        if (s / pieces->region_count >= blocks) continue;
        length = region_length(&pieces->shape, content_seed, block, region);
        seed = piece_seed(content_seed, block, region);
        if (pieces->spans[s].length != length) {
            fprintf(stderr, "  block %" PRIu64 " region %u: length %zu, expected %" PRIu64 "\n", block, region,
                    pieces->spans[s].length, length);
            return false;
        }
        for (i = 0; i < length; i++)
            if (bytes[i] != content_byte(seed, i)) {
                fprintf(stderr, "  block %" PRIu64 " region %u: byte %" PRIu64 " is wrong\n", block, region, i);
                return false;
            }
    }
    return true;
}

kvstore_transfer_t transfer_of(pieces_t *pieces) {
    kvstore_transfer_t transfer;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.first_block = pieces->first_block;
    transfer.block_count = pieces->block_count;
    transfer.first_region = pieces->first_region;
    transfer.region_count = pieces->region_count;
    transfer.spans = pieces->spans;
    transfer.span_count = pieces->span_count;
    transfer.block_status = pieces->block_status;
    return transfer;
}

kvstore_match_t match_zero(void) {
    kvstore_match_t match;
    memset(&match, 0, sizeof match);
    match.struct_size = (uint32_t)sizeof match;
    return match;
}

kvstore_transfer_result_t result_zero(void) {
    kvstore_transfer_result_t result;
    memset(&result, 0, sizeof result);
    result.struct_size = (uint32_t)sizeof result;
    return result;
}

kvstore_status_t offload_blocks(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens,
                                size_t token_count, uint64_t first, uint64_t count, uint64_t content_seed,
                                kvstore_transfer_result_t *result) {
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    pieces_t pieces = pieces_new(shape, first, count, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_status_t status;
    pieces_fill(&pieces, content_seed);
    status = kvstore_offload(ns, &prompt, &transfer, result);
    /* Offload only reads. */
    if (!pieces_match(&pieces, content_seed, count)) fail(__FILE__, __LINE__, "offload changed its input");
    pieces_free(&pieces);
    return status;
}

void offload_prompt(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens, uint64_t blocks,
                    uint64_t content_seed) {
    kvstore_transfer_result_t result = result_zero();
    CHECK_STATUS(offload_blocks(ns, shape, tokens, (size_t)blocks * shape->tokens_per_block, 0, blocks,
                                content_seed, &result),
                 KVSTORE_OK);
    CHECK_EQ(result.blocks_done, blocks);
    CHECK_EQ(result.blocks_host + result.blocks_disk, blocks);
}

void check_restore(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens, uint64_t blocks,
                   uint64_t content_seed) {
    kvstore_prompt_t prompt = prompt_of(tokens, (size_t)blocks * shape->tokens_per_block);
    pieces_t pieces = pieces_new(shape, 0, blocks, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    uint64_t bytes = 0, b;
    uint32_t r;
    pieces_clear(&pieces);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, blocks);
    CHECK_EQ(result.blocks_host + result.blocks_disk, blocks);
    for (b = 0; b < blocks; b++) {
        CHECK_EQ(pieces.block_status[b], KVSTORE_OK);
        for (r = 0; r < shape->region_count; r++) bytes += region_length(shape, content_seed, b, r);
    }
    CHECK_EQ(result.bytes, bytes);
    CHECK(pieces_match(&pieces, content_seed, blocks));
    pieces_free(&pieces);
}

uint64_t peek_blocks(kvstore_namespace_t *ns, const uint32_t *tokens, size_t token_count) {
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    kvstore_match_t match = match_zero();
    kvstore_status_t status = kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match);
    if (status == KVSTORE_MISS) {
        CHECK_EQ(match.blocks_matched, 0);
        return 0;
    }
    CHECK_STATUS(status, KVSTORE_OK);
    CHECK(match.blocks_matched > 0);
    CHECK_EQ(match.lease, 0);
    return match.blocks_matched;
}
