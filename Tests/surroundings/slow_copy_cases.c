/* Copies into the store that take long: the caller's memory is paged in slowly, or its thread does not get on. A page
 * that a thread of ours provides when it likes (userfaultfd) stops a copy where we want it stopped. */
#include "harness.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { TOKENS = 16, HEAD = 4096, BODY = 1 << 20, OTHERS = 12 };

static shape_t two_regions(uint64_t second) {
    shape_t shape = shape_large();
    shape.name = "two regions";
    shape.tokens_per_block = TOKENS;
    shape.region_count = 2;
    shape.region_bytes[0] = HEAD;
    shape.region_bytes[1] = second;
    return shape;
}

/* ---------------------------------------------------------------- memory that comes when we say so */

typedef struct {
    int descriptor;
    unsigned char *bytes;
    pthread_t thread;
    volatile int is_waited_for, may_come;
} slow_memory_t;

static void *serve_faults(void *argument) {
    static unsigned char page[4096] __attribute__((aligned(4096)));
    slow_memory_t *slow = (slow_memory_t *)argument;
    struct uffd_msg message;
    memset(page, 0xBB, sizeof page);
    while (read(slow->descriptor, &message, sizeof message) == (ssize_t)sizeof message) {
        struct uffdio_copy copy;
        if (message.event != UFFD_EVENT_PAGEFAULT) continue;
        __atomic_store_n(&slow->is_waited_for, 1, __ATOMIC_SEQ_CST);
        while (!__atomic_load_n(&slow->may_come, __ATOMIC_SEQ_CST)) sleep_milliseconds(1);
        memset(&copy, 0, sizeof copy);
        copy.dst = message.arg.pagefault.address & ~UINT64_C(4095);
        copy.src = (uintptr_t)page;
        copy.len = 4096;
        (void)ioctl(slow->descriptor, UFFDIO_COPY, &copy);
    }
    return NULL;
}

/* BODY bytes of 0xBB, of which all but the first 64 KiB come when `may_come` is set. */
static void slow_memory_start(slow_memory_t *slow) {
    struct uffdio_api api;
    struct uffdio_register range;
    memset(slow, 0, sizeof *slow);
    slow->descriptor = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (slow->descriptor < 0) skip("no userfaultfd here");
    memset(&api, 0, sizeof api);
    api.api = UFFD_API;
    CHECK(ioctl(slow->descriptor, UFFDIO_API, &api) == 0);
    slow->bytes = (unsigned char *)mmap(NULL, BODY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(slow->bytes != MAP_FAILED);
    memset(slow->bytes, 0xBB, 65536);
    memset(&range, 0, sizeof range);
    range.range.start = (uintptr_t)slow->bytes + 65536;
    range.range.len = BODY - 65536;
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    CHECK(ioctl(slow->descriptor, UFFDIO_REGISTER, &range) == 0);
    CHECK(pthread_create(&slow->thread, NULL, serve_faults, slow) == 0);
}

/* ---------------------------------------------------------------- calls */

static void tokens_of(uint32_t number, uint32_t tokens[TOKENS]) {
    int i;
    for (i = 0; i < TOKENS; i++) tokens[i] = number;
}

static kvstore_status_t offload_regions(kvstore_namespace_t *ns, uint32_t number, uint32_t first, uint32_t count,
                                        void *head, void *body, uint64_t body_bytes, uint64_t timeout) {
    uint32_t tokens[TOKENS];
    kvstore_prompt_t prompt;
    kvstore_transfer_t transfer;
    kvstore_span_t spans[2] = {{head, HEAD, HEAD}, {body, body_bytes, body_bytes}};
    tokens_of(number, tokens);
    prompt = prompt_of(tokens, TOKENS);
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = sizeof transfer;
    transfer.block_count = 1;
    transfer.first_region = first;
    transfer.region_count = count;
    transfer.spans = spans + first;
    transfer.span_count = count;
    transfer.timeout_nanoseconds = timeout;
    return kvstore_offload(ns, &prompt, &transfer, NULL);
}

/* Restores the block and answers how many of its bytes differ; -1 for a miss. */
static int64_t differing_bytes(kvstore_namespace_t *ns, uint32_t number, unsigned char value) {
    static unsigned char head[HEAD], body[BODY];
    uint32_t tokens[TOKENS];
    kvstore_prompt_t prompt;
    kvstore_transfer_t transfer;
    kvstore_span_t spans[2] = {{head, HEAD, 0}, {body, BODY, 0}};
    int64_t count = 0;
    int i;
    tokens_of(number, tokens);
    prompt = prompt_of(tokens, TOKENS);
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = sizeof transfer;
    transfer.block_count = 1;
    transfer.spans = spans;
    transfer.span_count = 2;
    if (CHECK_ONE_OF(kvstore_restore(ns, &prompt, &transfer, NULL), 2, KVSTORE_OK, KVSTORE_MISS) == KVSTORE_MISS)
        return -1;
    for (i = 0; i < BODY; i++) count += body[i] != value;
    return count;
}

/* ---------------------------------------------------------------- cases */

typedef struct {
    kvstore_namespace_t *ns;
    unsigned char *body;
    kvstore_status_t status;
} copier_t;

static void *bring_body(void *argument) {
    copier_t *copier = (copier_t *)argument;
    copier->status = offload_regions(copier->ns, 7, 1, 1, NULL, copier->body, BODY, UINT64_C(30000000000));
    return NULL;
}

/* The slot of a block whose region is still being copied stays that block's, whatever other calls do meanwhile with the same
 * block and with others. */
static void slow_copy_keeps_its_slot(void) {
    static unsigned char whole[OTHERS][BODY], head[HEAD];
    shape_t shape = two_regions(BODY);
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    slow_memory_t slow;
    copier_t copier;
    pthread_t thread;
    uint32_t i;
    slow_memory_start(&slow);
    small_config(&config, path_in_dir("store"));
    config.host_bytes = 6 * MIB;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    CHECK_STATUS(offload_regions(ns, 7, 0, 1, head, NULL, 0, 0), KVSTORE_OK);
    copier.ns = ns;
    copier.body = slow.bytes;
    CHECK(pthread_create(&thread, NULL, bring_body, &copier) == 0);
    while (!__atomic_load_n(&slow.is_waited_for, __ATOMIC_SEQ_CST)) sleep_milliseconds(1);
    /* The same region from another thread has to wait for the first one's copy; the whole block need not. */
    memset(whole[0], 0xAA, BODY);
    CHECK_STATUS(offload_regions(ns, 7, 1, 1, NULL, whole[0], BODY, 50000000), KVSTORE_BUSY);
    CHECK_STATUS(offload_regions(ns, 7, 0, 2, head, whole[0], BODY, 0), KVSTORE_OK);
    flush_store(store);
    for (i = 0; i < OTHERS; i++) {
        memset(whole[i], (int)i + 1, BODY);
        CHECK_STATUS(offload_regions(ns, 100 + i, 0, 2, whole[i], whole[i], BODY, 0), KVSTORE_OK);
        flush_store(store);
    }
    __atomic_store_n(&slow.may_come, 1, __ATOMIC_SEQ_CST);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_EQ(copier.status, KVSTORE_OK);
    CHECK_EQ(differing_bytes(ns, 7, 0xAA), 0);
    for (i = OTHERS; i-- > 0;) CHECK_EQ(differing_bytes(ns, 100 + i, (unsigned char)(i + 1)), 0);
    CHECK_EQ(stats_of(store).misses_corrupt, 0);
    close_store(store);
}

/* A block all of whose regions come, one of them slowly, is as its calls brought it. */
static void slow_copy_ends(void) {
    static unsigned char head[HEAD];
    shape_t shape = two_regions(BODY);
    kvstore_t *store;
    kvstore_namespace_t *ns;
    slow_memory_t slow;
    copier_t copier;
    pthread_t thread;
    slow_memory_start(&slow);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    copier.ns = ns;
    copier.body = slow.bytes;
    CHECK(pthread_create(&thread, NULL, bring_body, &copier) == 0);
    while (!__atomic_load_n(&slow.is_waited_for, __ATOMIC_SEQ_CST)) sleep_milliseconds(1);
    CHECK_STATUS(offload_regions(ns, 7, 0, 1, head, NULL, 0, 0), KVSTORE_OK);
    flush_store(store); /* does not wait for it */
    CHECK_EQ(differing_bytes(ns, 7, 0xBB), (uint64_t)-1);
    __atomic_store_n(&slow.may_come, 1, __ATOMIC_SEQ_CST);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_EQ(copier.status, KVSTORE_OK);
    CHECK_EQ(differing_bytes(ns, 7, 0xBB), 0);
    flush_store(store);
    CHECK_EQ(stats_of(store).blocks_offloaded, 1);
    close_store(store);
}

/* ---------------------------------------------------------------- equal prefixes */

enum { THREADS = 4, ROUNDS = 400, SMALL = 65536 };

typedef struct {
    kvstore_namespace_t *ns;
    pthread_barrier_t *barrier;
    unsigned number;
    uint64_t busy_count;
} layer_thread_t;

static void *save_layers(void *argument) {
    static unsigned char bytes[SMALL];
    layer_thread_t *own = (layer_thread_t *)argument;
    uint32_t round;
    for (round = 1; round <= ROUNDS; round++) {
        uint32_t layer;
        (void)pthread_barrier_wait(own->barrier);
        for (layer = 0; layer < 2; layer++) {
            /* Some bring the layers in one order, some in the other. */
            uint32_t region = own->number % 2 == 0 ? layer : 1 - layer;
            kvstore_status_t status =
                offload_regions(own->ns, round, region, 1, bytes, bytes, SMALL, UINT64_C(20000000000));
            if (status != KVSTORE_OK) own->busy_count++;
        }
    }
    return NULL;
}

/* Requests with one prefix save it layer by layer at the same time: no block stays half stored, nor keeps arena room. */
static void equal_prefixes_layer_by_layer(void) {
    static unsigned char bytes[SMALL];
    shape_t shape = two_regions(SMALL);
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    layer_thread_t own[THREADS];
    uint32_t i;
    small_config(&config, path_in_dir("store"));
    config.host_bytes = 2 * MIB;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    CHECK(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
    for (i = 0; i < THREADS; i++) {
        own[i].ns = ns;
        own[i].barrier = &barrier;
        own[i].number = i;
        own[i].busy_count = 0;
        CHECK(pthread_create(&threads[i], NULL, save_layers, &own[i]) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK_EQ(own[i].busy_count, 0);
    }
    flush_store(store);
    CHECK_EQ(stats_of(store).blocks_offloaded, ROUNDS);
    /* The whole arena is there for others. */
    for (i = 0; i < 200; i++)
        CHECK_STATUS(offload_regions(ns, 100000 + i, 0, 2, bytes, bytes, SMALL, 0), KVSTORE_OK);
    close_store(store);
}

/* A prompt of more blocks than enter the queue at once, a layer at a time. */
static void long_prompt_layer_by_layer(void) {
    enum { blocks = 40 };
    shape_t shape = shape_large();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    uint32_t *tokens;
    kvstore_prompt_t prompt;
    uint32_t region;
    shape.name = "four regions";
    shape.region_count = 4;
    for (region = 0; region < 4; region++) shape.region_bytes[region] = SMALL * 4;
    small_config(&config, path_in_dir("store"));
    config.host_bytes = 64 * MIB;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    tokens = make_tokens(1, (size_t)blocks * shape.tokens_per_block);
    prompt = prompt_of(tokens, (size_t)blocks * shape.tokens_per_block);
    for (region = 0; region < 4; region++) {
        pieces_t pieces = pieces_new(&shape, 0, blocks, region, 1);
        kvstore_transfer_t transfer = transfer_of(&pieces);
        kvstore_transfer_result_t result = result_zero();
        pieces_fill(&pieces, 1);
        CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &result), KVSTORE_OK);
        CHECK_EQ(result.blocks_done, blocks);
        pieces_free(&pieces);
    }
    flush_store(store);
    check_restore(ns, &shape, tokens, blocks, 1);
    close_store(store);
    free(tokens);
}

const test_case_t slow_copy_cases[] = {
    {"slow_copy_keeps_its_slot", slow_copy_keeps_its_slot},
    {"slow_copy_ends", slow_copy_ends},
    {"equal_prefixes_layer_by_layer", equal_prefixes_layer_by_layer},
    {"long_prompt_layer_by_layer", long_prompt_layer_by_layer},
    {NULL, NULL},
};
