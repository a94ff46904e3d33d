/* The device tier: sequences in slots of a device, the simulated one and one of an engine's own. */
#include "harness.h"

#include <pthread.h>

#define BLOCKS 6

static kvstore_device_t *attach(kvstore_namespace_t *ns, uint64_t slots, kvstore_device_copy_fn copy, void *context) {
    kvstore_device_config_t config;
    kvstore_device_t *device = NULL;
    memset(&config, 0, sizeof config);
    config.struct_size = sizeof config;
    config.slot_count = slots;
    config.copy = copy;
    config.context = context;
    CHECK_STATUS(kvstore_device_attach(ns, &config, &device), KVSTORE_OK);
    CHECK(device != NULL);
    return device;
}

static uint64_t create(kvstore_device_t *device) {
    uint64_t sequence = 0;
    CHECK_STATUS(kvstore_sequence_create(device, &sequence), KVSTORE_OK);
    CHECK(sequence != 0);
    return sequence;
}

/* The table; the caller has room for 32 slots. */
static size_t table_of(kvstore_device_t *device, uint64_t sequence, uint64_t *slots) {
    size_t count = 0;
    CHECK_STATUS(kvstore_sequence_table(device, sequence, slots, 32, &count), KVSTORE_OK);
    return count;
}

static unsigned char content(uint64_t seed, uint64_t block, uint64_t at) {
    return (unsigned char)mix64(seed * 1000003 + block * 4099 + at);
}

static void compute(unsigned char *slot, uint64_t slot_bytes, uint64_t seed, uint64_t block) {
    uint64_t i;
    for (i = 0; i < slot_bytes; i++) slot[i] = content(seed, block, i);
}

static bool computed(const unsigned char *slot, uint64_t slot_bytes, uint64_t seed, uint64_t block) {
    uint64_t i;
    for (i = 0; i < slot_bytes; i++)
        if (slot[i] != content(seed, block, i)) return false;
    return true;
}

/* What one device wrote, another reads, in the slots of each; by way of disk. */
static void device_round_trip(void) {
    shape_t shape = shape_mha();
    size_t count = (size_t)BLOCKS * shape.tokens_per_block, i;
    uint32_t *tokens = make_tokens(1, count + 3);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_device_t *device = attach(ns, 16, NULL, NULL);
    kvstore_prompt_t prompt = prompt_of(tokens, count + 3);
    kvstore_transfer_result_t result = result_zero();
    uint64_t slots[32], slot_bytes, sequence = create(device), again;
    void *memory;
    CHECK_STATUS(kvstore_device_memory(device, &memory, &slot_bytes), KVSTORE_OK);
    CHECK(memory != NULL && slot_bytes == 8 * 4096);
    CHECK_STATUS(kvstore_sequence_append(device, sequence, tokens, count + 3, 0), KVSTORE_OK);
    CHECK_EQ(table_of(device, sequence, slots), BLOCKS + 1);
    for (i = 0; i < BLOCKS; i++) compute((unsigned char *)memory + slots[i] * slot_bytes, slot_bytes, 1, i);
    CHECK_STATUS(kvstore_sequence_offload(device, sequence, 0, &result), KVSTORE_OK);
    CHECK(result.blocks_done == BLOCKS && result.blocks_host == BLOCKS && result.bytes == BLOCKS * slot_bytes);
    flush_store(store);
    CHECK_EQ(stats_of(store).device_slots_used, BLOCKS + 1);
    CHECK_EQ(stats_of(store).device_slots_capacity, 16);
    /* The close ends the device with its store. */
    close_store(store);
    CHECK_STATUS(kvstore_sequence_create(device, &again), KVSTORE_E_BAD_HANDLE);

    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    device = attach(ns, 16, NULL, NULL);
    CHECK_STATUS(kvstore_device_memory(device, &memory, &slot_bytes), KVSTORE_OK);
    sequence = create(device);
    CHECK_STATUS(kvstore_sequence_restore(device, sequence, &prompt, 0, &result), KVSTORE_OK);
    CHECK(result.blocks_done == BLOCKS && result.blocks_disk == BLOCKS);
    CHECK_EQ(table_of(device, sequence, slots), BLOCKS);
    for (i = 0; i < BLOCKS; i++)
        CHECK(computed((unsigned char *)memory + slots[i] * slot_bytes, slot_bytes, 1, i));
    again = create(device);
    CHECK_STATUS(kvstore_sequence_restore(device, again, &prompt, 0, &result), KVSTORE_OK);
    CHECK(result.blocks_done == BLOCKS && result.blocks_disk == 0 && result.blocks_host == 0);
    CHECK_EQ(stats_of(store).device_slots_used, BLOCKS);
    CHECK_EQ(stats_of(store).device_blocks_shared, BLOCKS);
    CHECK_STATUS(kvstore_sequence_free(device, again), KVSTORE_OK);
    CHECK_STATUS(kvstore_sequence_free(device, sequence), KVSTORE_OK);
    CHECK_STATUS(kvstore_sequence_free(device, sequence), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_EQ(stats_of(store).device_slots_used, 0);
    CHECK_EQ(stats_of(store).device_slots_cached, BLOCKS);
    CHECK_STATUS(kvstore_device_detach(device), KVSTORE_OK);
    CHECK_STATUS(kvstore_device_detach(device), KVSTORE_E_BAD_HANDLE);
    CHECK_EQ(stats_of(store).device_slots_capacity, 0);
    close_store(store);
    free(tokens);
}

/* A sequence forked into four: slots in use are the shared and the own ones; in the end none is. */
static void device_forks(void) {
    shape_t shape = shape_mha();
    size_t per = shape.tokens_per_block, count;
    uint32_t *tokens = make_tokens(1, 8 * per);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_device_t *device = attach(ns, 12, NULL, NULL);
    uint64_t sequences[4], trunk[32], own[32];
    int i;
    sequences[0] = create(device);
    CHECK_STATUS(kvstore_sequence_append(device, sequences[0], tokens, 3 * per + 5, 0), KVSTORE_OK);
    CHECK_EQ(table_of(device, sequences[0], trunk), 4);
    for (i = 1; i < 4; i++) CHECK_STATUS(kvstore_sequence_fork(device, sequences[0], &sequences[i]), KVSTORE_OK);
    CHECK_EQ(stats_of(store).device_slots_used, 4);
    for (i = 0; i < 4; i++)
        CHECK_STATUS(kvstore_sequence_append(device, sequences[i], tokens + 3 * per + 5, per, 0), KVSTORE_OK);
    CHECK_EQ(stats_of(store).device_slots_used, 3 + 4 * 2);
    CHECK_EQ(stats_of(store).device_copies_on_write, 3);
    for (i = 0; i < 4; i++) {
        CHECK_EQ(table_of(device, sequences[i], own), 5);
        CHECK(memcmp(own, trunk, 3 * sizeof *own) == 0 && (i == 3) == (own[3] == trunk[3]));
    }
    /* All or nothing: one slot is left. */
    CHECK_STATUS(kvstore_sequence_append(device, sequences[0], tokens, 2 * per, 0), KVSTORE_FULL);
    CHECK_EQ(table_of(device, sequences[0], own), 5);
    CHECK_STATUS(kvstore_sequence_table(device, sequences[0], own, 2, &count), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK_EQ(count, 5);
    for (i = 0; i < 4; i++) CHECK_STATUS(kvstore_sequence_free(device, sequences[i]), KVSTORE_OK);
    CHECK_EQ(stats_of(store).device_slots_used, 0);
    CHECK_EQ(stats_of(store).device_slots_cached, 0);
    close_store(store);
    free(tokens);
}

/* ---------------------------------------------------------------- an engine's device */

typedef struct {
    unsigned char *memory; /* slots 4,096 bytes apart, as an engine that pads them would have them */
    uint64_t stride;
    bool is_slow;
    int status;
    /* What a slow device has still to do. */
    uint32_t direction;
    kvstore_device_copy_t late[16];
    size_t late_count;
    uint64_t completion;
    pthread_t thread;
} engine_t;

static void engine_copy_now(engine_t *engine, uint32_t direction, const kvstore_device_copy_t *copies, size_t count) {
    size_t i;
    for (i = 0; i < count; i++) {
        unsigned char *slot = engine->memory + copies[i].slot * engine->stride;
        if (direction == KVSTORE_DEVICE_IN) memcpy(slot, copies[i].host, copies[i].bytes);
        else if (direction == KVSTORE_DEVICE_OUT) memcpy(copies[i].host, slot, copies[i].bytes);
        else memcpy(slot, engine->memory + copies[i].from_slot * engine->stride, copies[i].bytes);
    }
}

static void *engine_later(void *context) {
    engine_t *engine = (engine_t *)context;
    sleep_milliseconds(20);
    engine_copy_now(engine, engine->direction, engine->late, engine->late_count);
    CHECK_STATUS(kvstore_device_copy_done(engine->completion, engine->status), KVSTORE_OK);
    CHECK_STATUS(kvstore_device_copy_done(engine->completion, KVSTORE_OK), KVSTORE_E_BAD_HANDLE);
    return NULL;
}

static void engine_copy(void *context, uint32_t direction, const kvstore_device_copy_t *copies, size_t count,
                        uint64_t completion) {
    engine_t *engine = (engine_t *)context;
    CHECK(count > 0 && count <= 16);
    engine->direction = direction;
    engine->completion = completion;
    engine->late_count = count;
    memcpy(engine->late, copies, count * sizeof *copies);
    if (!engine->is_slow) CHECK(pthread_create(&engine->thread, NULL, engine_later, engine) == 0);
}

/* The end of each copy comes from a thread of the engine's. */
static void device_of_an_engine(void) {
    shape_t shape = shape_gqa();
    size_t count = (size_t)BLOCKS * shape.tokens_per_block, i;
    uint32_t *tokens = make_tokens(1, count);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    uint64_t bytes = 8 * 1024, slots[32], sequence, other;
    kvstore_prompt_t prompt = prompt_of(tokens, count);
    kvstore_transfer_result_t result = result_zero();
    kvstore_device_t *device;
    engine_t engine;
    void *memory = &engine;
    memset(&engine, 0, sizeof engine);
    engine.stride = bytes + 4096;
    engine.memory = (unsigned char *)must_malloc(20 * engine.stride);
    device = attach(ns, 20, engine_copy, &engine);
    CHECK_STATUS(kvstore_device_memory(device, &memory, &bytes), KVSTORE_OK);
    CHECK(memory == NULL && bytes == 8 * 1024);
    sequence = create(device);
    CHECK_STATUS(kvstore_sequence_append(device, sequence, tokens, count, 0), KVSTORE_OK);
    CHECK_EQ(table_of(device, sequence, slots), BLOCKS);
    for (i = 0; i < BLOCKS; i++) compute(engine.memory + slots[i] * engine.stride, bytes, 9, i);
    CHECK_STATUS(kvstore_sequence_offload(device, sequence, 0, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, BLOCKS);
    CHECK(pthread_join(engine.thread, NULL) == 0);
    flush_store(store);
    /* Out of the device's cache, into other slots. */
    CHECK_STATUS(kvstore_device_detach(device), KVSTORE_OK);
    memset(engine.memory, 0, 20 * engine.stride);
    device = attach(ns, 20, engine_copy, &engine);
    sequence = create(device);
    CHECK_STATUS(kvstore_sequence_restore(device, sequence, &prompt, 0, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, BLOCKS);
    CHECK(pthread_join(engine.thread, NULL) == 0);
    CHECK_EQ(table_of(device, sequence, slots), BLOCKS);
    for (i = 0; i < BLOCKS; i++) CHECK(computed(engine.memory + slots[i] * engine.stride, bytes, 9, i));
    /* A copy that fails: the call says so, and nothing is left behind. */
    engine.status = KVSTORE_E_IO;
    sequence = create(device);
    CHECK_STATUS(kvstore_sequence_append(device, sequence, tokens, 5, 0), KVSTORE_OK);
    CHECK_STATUS(kvstore_sequence_fork(device, sequence, &other), KVSTORE_OK);
    CHECK_STATUS(kvstore_sequence_append(device, other, tokens, 1, 0), KVSTORE_E_IO);
    CHECK(pthread_join(engine.thread, NULL) == 0);
    CHECK_EQ(stats_of(store).device_slots_used, BLOCKS + 1);
    /* One that takes too long: the call ends, the device stays until it is over. */
    engine.status = KVSTORE_OK;
    engine.is_slow = true;
    CHECK_STATUS(kvstore_sequence_append(device, other, tokens, 1, 1000000), KVSTORE_BUSY);
    CHECK_STATUS(kvstore_device_detach(device), KVSTORE_BUSY);
    CHECK_EQ(stats_of(store).device_slots_used, BLOCKS + 2);
    CHECK_STATUS(kvstore_device_copy_done(engine.completion, KVSTORE_OK), KVSTORE_OK);
    CHECK_EQ(stats_of(store).device_slots_used, BLOCKS + 1);
    CHECK_STATUS(kvstore_device_detach(device), KVSTORE_OK);
    close_store(store);
    free(engine.memory);
    free(tokens);
}

typedef struct {
    kvstore_device_t *device;
    uint64_t sequence;
    kvstore_prompt_t prompt;
    kvstore_status_t restored;
} restoring_t;

static void *restore_in_thread(void *context) {
    restoring_t *restoring = (restoring_t *)context;
    kvstore_transfer_result_t result = result_zero();
    restoring->restored = kvstore_sequence_restore(restoring->device, restoring->sequence, &restoring->prompt,
                                                   UINT64_C(20000000000), &result);
    return NULL;
}

static int is_copying;

static void engine_copy_seen(void *context, uint32_t direction, const kvstore_device_copy_t *copies, size_t count,
                             uint64_t completion) {
    engine_copy(context, direction, copies, count, completion);
    __atomic_store_n(&is_copying, 1, __ATOMIC_SEQ_CST);
}

/* While another thread's copy is under way, the engine's memory is still needed: the device stays. */
static void device_copies_in_a_thread(void) {
    shape_t shape = shape_gqa();
    size_t count = (size_t)BLOCKS * shape.tokens_per_block;
    uint32_t *tokens = make_tokens(1, count);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_transfer_result_t result = result_zero();
    restoring_t restoring;
    pthread_t thread;
    engine_t engine;
    memset(&restoring, 0, sizeof restoring);
    restoring.prompt = prompt_of(tokens, count);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, count, 0, BLOCKS, 1, &result), KVSTORE_OK);
    memset(&engine, 0, sizeof engine);
    engine.stride = 8 * 1024;
    engine.memory = (unsigned char *)must_malloc(8 * engine.stride);
    engine.is_slow = true;
    restoring.device = attach(ns, 8, engine_copy_seen, &engine);
    restoring.sequence = create(restoring.device);
    CHECK(pthread_create(&thread, NULL, restore_in_thread, &restoring) == 0);
    while (!__atomic_load_n(&is_copying, __ATOMIC_SEQ_CST)) sleep_milliseconds(1);
    CHECK_STATUS(kvstore_device_detach(restoring.device), KVSTORE_BUSY);
    CHECK(strstr(kvstore_last_error_message(), "kvstore_device_copy_done") != NULL);
    engine_copy_now(&engine, engine.direction, engine.late, engine.late_count);
    CHECK_STATUS(kvstore_device_copy_done(engine.completion, KVSTORE_OK), KVSTORE_OK);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_STATUS(restoring.restored, KVSTORE_OK);
    CHECK_STATUS(kvstore_device_detach(restoring.device), KVSTORE_OK);
    CHECK_EQ(stats_of(store).device_slots_used, 0);
    CHECK_EQ(stats_of(store).host_bytes_lent, 0);
    close_store(store);
    free(engine.memory);
    free(tokens);
}

/* A store that is closed while its device still copies: the copy ends in memory that is still there. */
static void device_outlives_a_close(void) {
    shape_t shape = shape_gqa();
    size_t count = (size_t)BLOCKS * shape.tokens_per_block;
    uint32_t *tokens = make_tokens(1, count);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_transfer_result_t result = result_zero();
    kvstore_device_t *device;
    uint64_t sequence;
    engine_t engine;
    memset(&engine, 0, sizeof engine);
    engine.stride = 8 * 1024;
    engine.memory = (unsigned char *)must_malloc(8 * engine.stride);
    memset(engine.memory, 1, 8 * engine.stride);
    engine.is_slow = true;
    device = attach(ns, 8, engine_copy, &engine);
    sequence = create(device);
    CHECK_STATUS(kvstore_sequence_append(device, sequence, tokens, count, 0), KVSTORE_OK);
    CHECK_STATUS(kvstore_sequence_offload(device, sequence, 1000000, &result), KVSTORE_BUSY);
    CHECK_EQ(result.blocks_done, 0);
    close_store(store);
    engine_copy_now(&engine, engine.direction, engine.late, engine.late_count);
    CHECK_STATUS(kvstore_device_copy_done(engine.completion, KVSTORE_OK), KVSTORE_OK);
    store = open_small(path_in_dir("store"));
    CHECK_EQ(stats_of(store).blocks_stored, 0);
    CHECK_EQ(stats_of(store).host_bytes_lent, 0);
    close_store(store);
    free(engine.memory);
    free(tokens);
}

static void device_arguments(void) {
    shape_t shape = shape_gqa(), blob = shape_blob();
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape), *variable = open_namespace(store, &blob);
    kvstore_device_config_t config;
    kvstore_device_t *device = NULL;
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    uint64_t sequence, other = 7, slot_bytes;
    size_t count;
    void *memory;
    memset(&config, 0, sizeof config);
    CHECK_STATUS(kvstore_device_attach(ns, NULL, &device), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_device_attach(ns, &config, &device), KVSTORE_E_INVALID_ARGUMENT);
    config.struct_size = sizeof config;
    CHECK_STATUS(kvstore_device_attach(ns, &config, &device), KVSTORE_E_INVALID_ARGUMENT);
    config.slot_count = UINT64_MAX;
    CHECK_STATUS(kvstore_device_attach(ns, &config, &device), KVSTORE_E_INVALID_ARGUMENT);
    config.slot_count = 4;
    config.flags = 1;
    CHECK_STATUS(kvstore_device_attach(ns, &config, &device), KVSTORE_E_INVALID_ARGUMENT);
    config.flags = 0;
    CHECK_STATUS(kvstore_device_attach(ns, &config, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_device_attach(NULL, &config, &device), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_device_attach(variable, &config, &device), KVSTORE_E_INVALID_ARGUMENT);
    CHECK(device == NULL);
    CHECK_STATUS(kvstore_device_detach(NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_device_attach(ns, &config, &device), KVSTORE_OK);
    CHECK_STATUS(kvstore_device_detach((kvstore_device_t *)ns), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_device_copy_done(12345678, KVSTORE_OK), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_device_memory(device, NULL, &slot_bytes), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_device_memory(device, &memory, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_device_memory(NULL, &memory, &slot_bytes), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_sequence_create(device, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_sequence_create(NULL, &sequence), KVSTORE_E_BAD_HANDLE);
    sequence = create(device);
    CHECK_STATUS(kvstore_sequence_fork(device, sequence, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_sequence_fork(device, sequence + 99, &other), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_EQ(other, 0);
    CHECK_STATUS(kvstore_sequence_free(device, 0), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_sequence_append(device, sequence, NULL, 1, 0), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_sequence_append(device, sequence, tokens, SIZE_MAX, 0), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_sequence_append(device, sequence, NULL, 0, 0), KVSTORE_OK);
    CHECK_STATUS(kvstore_sequence_table(device, sequence, NULL, 1, &count), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_sequence_table(device, sequence, NULL, 0, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_sequence_table(device, sequence, NULL, 0, &count), KVSTORE_OK);
    CHECK_STATUS(kvstore_sequence_restore(device, sequence, NULL, 0, NULL), KVSTORE_E_INVALID_ARGUMENT);
    CHECK_STATUS(kvstore_sequence_restore(device, sequence, &prompt, 0, NULL), KVSTORE_MISS);
    CHECK_STATUS(kvstore_sequence_offload(device, sequence, 0, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_sequence_offload(NULL, sequence, 0, NULL), KVSTORE_E_BAD_HANDLE);
    CHECK_STATUS(kvstore_sequence_append(device, sequence, tokens, 16, 0), KVSTORE_OK);
    CHECK_STATUS(kvstore_sequence_restore(device, sequence, &prompt, 0, NULL), KVSTORE_E_INVALID_ARGUMENT);
    close_store(store);
    free(tokens);
}

const test_case_t device_cases[] = {
    {"device_round_trip", device_round_trip},
    {"device_forks", device_forks},
    {"device_of_an_engine", device_of_an_engine},
    {"device_copies_in_a_thread", device_copies_in_a_thread},
    {"device_outlives_a_close", device_outlives_a_close},
    {"device_arguments", device_arguments},
    {NULL, NULL},
};
