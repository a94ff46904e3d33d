/* Random calls of the C interface: what its parts share. */
#ifndef KVSTORE_ABI_FUZZ_H
#define KVSTORE_ABI_FUZZ_H

#include <kvstore.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { blocks_max = 6, regions_max = 3, tokens_per_block = 4, store_count = 2, namespace_count = 16, operation_count = 6, sequence_count = 4 };
enum { region_bytes_max = 9000, shape_count = 5, guarded_bytes = 1 << 20, guarded_count = 16 };

/* What the blocks of a namespace are like. */
typedef struct {
    bool digests, variable;
    unsigned region_count;
    uint64_t region_bytes[regions_max];
} shape_t;

/* Namespace number n has shape n % shape_count, lies in store n % store_count, and n is its salt. */
extern const shape_t shapes[shape_count];

/* Memory whose end is the beginning of an inaccessible page: one byte too many is a signal. */
typedef struct {
    unsigned char *end;
    size_t used;
} guarded_t;

/* An asynchronous operation of one thread: its memory is never given back, only used again after its end. */
typedef struct {
    kvstore_operation_t *handle;
    unsigned char *memory;
    kvstore_span_t spans[blocks_max * regions_max];
    kvstore_status_t statuses[blocks_max];
    bool is_restore;
    unsigned space, first_block, first_region, region_count;
    uint64_t number;
} operation_t;

/* A sequence of a device: the first tokens of a prompt. */
typedef struct {
    uint64_t id, number;
    size_t token_count;
} sequence_t;

/* A thread's own device; one thread at a time changes a sequence. */
typedef struct {
    kvstore_device_t *handle;
    unsigned space;
    sequence_t sequences[sequence_count];
} device_t;

typedef struct {
    unsigned number;
    uint64_t random;
    guarded_t guarded[guarded_count];
    unsigned next_guarded;
    unsigned char *payload;
    operation_t operations[operation_count];
    device_t device;
    /* What the thread is doing, for who looks whether it hangs. */
    kvstore_status_t status;
    const char *_Atomic call;
    _Atomic uint64_t call_number;
} fuzzer_t;

/* Handles that all threads draw from and close under each other. */
extern kvstore_t *_Atomic stores[store_count];
extern kvstore_namespace_t *_Atomic namespaces[namespace_count];
extern _Atomic(void *) any_handles[64]; /* of every kind, open, closed or never */
extern _Atomic uint64_t leases[64];
extern _Atomic uint64_t call_count, checked_blocks, statuses_seen[32];
extern _Atomic int failed;
/* Held for reading while lent memory is used, for writing while a store is closed: that is the caller's to see to. */
extern pthread_rwlock_t lending;
extern const char *folder;

void fail(fuzzer_t *fuzzer, const char *what, int64_t number);

/* memory.c */
uint64_t mix(uint64_t x);
uint64_t below(fuzzer_t *fuzzer, uint64_t bound);
bool one_in(fuzzer_t *fuzzer, uint64_t bound);
/* A small number mostly, one near a boundary otherwise. */
uint64_t wild_number(fuzzer_t *fuzzer);
void guarded_init(fuzzer_t *fuzzer);
/* `count` bytes that end at an inaccessible page, filled with `byte`. Good until sixteen more were asked for. */
void *guarded(fuzzer_t *fuzzer, size_t count, int byte);
/* A copy of a struct as a caller of any version may hand it over: NULL, shorter, longer, with a wrong size; or, mostly, right. */
void *as_struct(fuzzer_t *fuzzer, const void *value, size_t size);
/* The same for a struct that the call fills. */
void *result_struct(fuzzer_t *fuzzer, size_t size);
void fill_payload(unsigned space, uint64_t number, unsigned block, unsigned region, void *data, size_t length);
/* Whether `length` bytes are what somebody offloaded as this region. */
bool payload_is_right(unsigned space, uint64_t number, unsigned block, unsigned region, const void *data, size_t length);

/* arguments.c */
kvstore_t *pick_store(fuzzer_t *fuzzer);
/* A namespace's handle, open or closed; rarely something else. *space is the number of the namespace that it would be. */
kvstore_namespace_t *pick_namespace(fuzzer_t *fuzzer, unsigned *space);
/* A handle of any kind but an open namespace, or a number that never was one. */
void *pick_any(fuzzer_t *fuzzer);
void remember(fuzzer_t *fuzzer, void *handle);
uint64_t pick_number(fuzzer_t *fuzzer);
/* The prompt of this number, out of the ordinary in one way or another now and then: but its tokens are its own. */
const kvstore_prompt_t *pick_prompt(fuzzer_t *fuzzer, unsigned space, uint64_t number, unsigned count, bool whole);
/* Token number `index` of a prompt in tokens mode. */
uint32_t token_at(uint64_t number, size_t index);
/* Which blocks and regions a transfer names, and its pieces of memory. */
typedef struct {
    kvstore_transfer_t transfer;
    unsigned first_block, block_count, first_region, region_count;
} move_t;
move_t pick_move(fuzzer_t *fuzzer, unsigned space, bool is_offload, unsigned char *memory, kvstore_span_t *spans,
                 kvstore_status_t *statuses);
void note(fuzzer_t *fuzzer, const char *call, kvstore_status_t status);
/* Makes a call: its name is known should it not come back, and its status is counted. */
#define CALL(name, ...)                                 \
    do {                                                \
        atomic_store(&fuzzer->call, #name);             \
        fuzzer->status = kvstore_##name(__VA_ARGS__);   \
        note(fuzzer, #name, fuzzer->status);            \
    } while (0)

/* calls.c */
void open_stores(fuzzer_t *fuzzer);
void call_something(fuzzer_t *fuzzer);

/* moves.c */
void move_something(fuzzer_t *fuzzer);
void end_operations(fuzzer_t *fuzzer);

/* sections.c */
void use_sections(fuzzer_t *fuzzer, kvstore_namespace_t *ns, const kvstore_prompt_t *prompt);

/* devices.c */
void use_device(fuzzer_t *fuzzer);

#endif
