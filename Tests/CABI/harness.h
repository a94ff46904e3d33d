/* The frame of the C interface's tests: assertions, cases, and the things that most cases need.
 *
 * Each case runs in a process of its own (main.c starts this program again for each), so that a case can
 * crash, hang or leak handles without touching the next, and a failed check can simply exit. Compiles as C99
 * and C++17. */
#ifndef KVSTORE_TESTS_HARNESS_H
#define KVSTORE_TESTS_HARNESS_H

#ifndef _GNU_SOURCE /* g++ defines it */
#define _XOPEN_SOURCE 700
#endif

#include <kvstore.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------- checks */

/* Prints what went wrong and ends the process of the case with status 1. Usable in threads and after fork. */
void fail(const char *file, int line, const char *format, ...);

/* Ends the process of the case as skipped. */
void skip(const char *reason);

kvstore_status_t check_status(const char *file, int line, const char *call, kvstore_status_t got,
                              kvstore_status_t want);
kvstore_status_t check_one_of(const char *file, int line, const char *call, kvstore_status_t got, int count,
                              ...);

#define CHECK(condition)                                                                                 \
    do {                                                                                                 \
        if (!(condition)) fail(__FILE__, __LINE__, "not true: %s", #condition);                          \
    } while (0)

#define CHECK_EQ(got, want)                                                                              \
    do {                                                                                                 \
        uint64_t got_ = (uint64_t)(got), want_ = (uint64_t)(want);                                       \
        if (got_ != want_)                                                                               \
            fail(__FILE__, __LINE__, "%s is %" PRIu64 ", expected %" PRIu64, #got, got_, want_);         \
    } while (0)

/* The call returns exactly this status. After an error the thread's message must be there. */
#define CHECK_STATUS(call, want) check_status(__FILE__, __LINE__, #call, (call), (want))
/* The call returns one of `count` statuses, where the header leaves the choice open. */
#define CHECK_ONE_OF(call, count, ...) check_one_of(__FILE__, __LINE__, #call, (call), (count), __VA_ARGS__)

/* Waits until `condition` holds: 50 ms are promised, the load of a test machine gets its share. */
#define EVENTUALLY(condition)                                                                            \
    do {                                                                                                 \
        uint64_t end_ = now_nanoseconds() + UINT64_C(5000000000);                                        \
        while (!(condition) && now_nanoseconds() < end_) sleep_milliseconds(5);                          \
        CHECK(condition);                                                                                \
    } while (0)

/* ---------------------------------------------------------------- cases */

typedef struct {
    const char *name;
    void (*run)(void);
} test_case_t;

extern const test_case_t library_cases[], namespace_cases[], round_trip_cases[], transfer_cases[], miss_cases[],
    capacity_cases[], lookup_cases[], digest_cases[], section_cases[], keep_cases[], bad_config_cases[],
    bad_transfer_cases[], thread_cases[], process_cases[], operation_cases[], loan_cases[], sharing_cases[],
    scheduler_cases[], see_cases[], device_cases[];

/* Parts that a case starts as a process of their own: main.c looks `name` up here. */
typedef struct {
    const char *name;
    int (*run)(int argc, char **argv);
} child_role_t;

extern const child_role_t process_roles[], peer_roles[];

/* What a test program consists of, and its name; the lists end with NULL. groups.c of the folder that builds it has them. */
extern const char *const suite_name;
extern const test_case_t *const case_groups[];
extern const child_role_t *const role_groups[];

/* This program's path, for cases that start it again. */
extern const char *test_program;
/* The case's fresh, empty folder; it is removed after the case. */
extern const char *test_dir;

/* test_dir/name, or test_dir/name+suffix; the caller may keep it (never freed: the process is short). */
char *path_in_dir(const char *name);

/* ---------------------------------------------------------------- stores and namespaces */

#define MIB ((uint64_t)1 << 20)

/* A small store: 256 MiB on disk, 16 MiB of host tier. */
void small_config(kvstore_config_t *config, const char *path);
kvstore_t *open_small(const char *path);
kvstore_t *open_store(const kvstore_config_t *config);
void close_store(kvstore_t *store);
void flush_store(kvstore_t *store);
kvstore_stats_t stats_of(kvstore_t *store);

#define SHAPE_REGIONS_MAX 64

/* What the tests need to know of a namespace's blocks. */
typedef struct {
    const char *name;
    uint32_t flags, tokens_per_block, region_count;
    uint64_t region_bytes[SHAPE_REGIONS_MAX];
} shape_t;

/* 4 layers, K and V, 8 heads of 16, fp16, 16 tokens: 8 regions of 4 KiB. */
shape_t shape_mha(void);
/* The same with 2 KV heads: 8 regions of 1 KiB; a payload that lives in the catalog. */
shape_t shape_gqa(void);
/* 3 layers of one latent of 576 fp16 values a token: 3 regions of 18,432 bytes. */
shape_t shape_mla(void);
/* 2 layers of fp8 K and V with scales: regions of 1,000, 1,000, 12 and 1 bytes; odd on purpose. */
shape_t shape_fp8(void);
/* One opaque region of at most 100,000 bytes. */
shape_t shape_blob(void);
/* One region of 256 KiB: fills a small store soon. */
shape_t shape_large(void);

void namespace_config(const shape_t *shape, kvstore_namespace_config_t *config);
kvstore_namespace_t *open_namespace(kvstore_t *store, const shape_t *shape);

/* ---------------------------------------------------------------- prompts and payloads */

/* Token ids drawn from `seed`: equal seeds give equal prefixes. Freed with free(). */
uint32_t *make_tokens(uint64_t seed, size_t count);
/* Replaces tokens[from..count) by ids drawn from `seed`: a branch. */
void vary_tokens(uint32_t *tokens, size_t from, size_t count, uint64_t seed);

kvstore_prompt_t prompt_of(const uint32_t *tokens, size_t token_count);
kvstore_prompt_t digest_prompt(const void *digests, size_t digest_count);

/* Caller memory for a range of blocks and regions: each piece on its own, at an odd address, in shuffled
 * order, with guard bytes between the pieces. */
typedef struct {
    shape_t shape;
    uint64_t first_block, block_count;
    uint32_t first_region, region_count;
    kvstore_span_t *spans;
    size_t span_count;
    unsigned char *memory;
    size_t memory_bytes;
    kvstore_status_t *block_status;
} pieces_t;

pieces_t pieces_new(const shape_t *shape, uint64_t first_block, uint64_t block_count, uint32_t first_region,
                    uint32_t region_count);
void pieces_free(pieces_t *pieces);
/* Writes the bytes that block `first_block + b` of the prompt with this content seed has. */
void pieces_fill(pieces_t *pieces, uint64_t content_seed);
/* Fills with a pattern that no payload has, and sets length 0: before a restore. */
void pieces_clear(pieces_t *pieces);
/* The first `blocks` blocks hold the content of this seed, their lengths are right, no guard was touched. */
bool pieces_match(const pieces_t *pieces, uint64_t content_seed, uint64_t blocks);
kvstore_transfer_t transfer_of(pieces_t *pieces);
/* The byte count of a region of a block: the shape's, or one drawn from the seed if regions are variable. */
uint64_t region_length(const shape_t *shape, uint64_t content_seed, uint64_t block, uint32_t region);
/* The byte count of a prompt's first `blocks` blocks. */
uint64_t payload_bytes(const shape_t *shape, uint64_t content_seed, uint64_t blocks);

/* Offloads blocks [first, first + count) of the prompt, all regions; returns the status. */
kvstore_status_t offload_blocks(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens,
                                size_t token_count, uint64_t first, uint64_t count, uint64_t content_seed,
                                kvstore_transfer_result_t *result);
/* Offloads a whole prompt of `blocks` blocks and checks that all of them were taken. */
void offload_prompt(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens, uint64_t blocks,
                    uint64_t content_seed);
/* Restores `blocks` blocks of the prompt and compares every byte. */
void check_restore(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens, uint64_t blocks,
                   uint64_t content_seed);
/* Restores and compares as many of these blocks as are stored; returns how many. One call, with no look-up before it: a full
 * store frees slots ahead by itself, also between a look-up and a restore. */
uint64_t check_stored(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens, uint64_t blocks,
                      uint64_t content_seed);

/* The same for prompts that are named by their seed, from which tokens and content are drawn. */
void offload_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed, uint64_t blocks);
uint64_t peek_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed, uint64_t blocks);
void check_restore_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed, uint64_t blocks);
uint64_t check_stored_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed, uint64_t blocks);

/* Zeros, with struct_size set. */
kvstore_match_t match_zero(void);
kvstore_transfer_result_t result_zero(void);
kvstore_flush_result_t flush_zero(void);
kvstore_stats_t stats_zero(void);
/* Blocks of the prompt that are stored, without a trace. */
uint64_t peek_blocks(kvstore_namespace_t *ns, const uint32_t *tokens, size_t token_count);

/* ---------------------------------------------------------------- rest */

uint64_t now_nanoseconds(void);
void sleep_milliseconds(unsigned milliseconds);
uint64_t mix64(uint64_t x); /* splitmix64's finaliser (Steele, Lea, Flood 2014) */
void *must_malloc(size_t bytes);
/* Starts this program in a child role; returns its pid. `read_end` (may be NULL) gets its stdout. */
int spawn_role(const char *role, const char *argument, const char *argument2, int *read_end);
/* Waits for a child: its exit status, or 128 + signal. */
int wait_for(int pid);
/* Kills a child with SIGKILL; that it still ran is checked. */
void kill_child(int pid);

#endif
