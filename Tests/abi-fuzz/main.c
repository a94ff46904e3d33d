/* Random calls of the C interface from several threads until enough were made.
 *
 * usage: abi_fuzz FOLDER CALLS THREADS SEED
 * Exit status 1 and a line on stderr when something was wrong; a signal is a failure as well. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const shape_t shapes[shape_count] = {
    {false, false, 2, {5000, 9000, 0}}, /* slots */
    {false, false, 3, {500, 100, 1}},   /* in the catalog */
    {true, false, 1, {6000, 0, 0}},     /* by digests */
    {false, true, 1, {8000, 0, 0}},     /* of variable length */
    {false, true, 3, {300, 700, 64}},   /* the same in the catalog */
};

kvstore_t *_Atomic stores[store_count];
kvstore_namespace_t *_Atomic namespaces[namespace_count];
_Atomic(void *) any_handles[64];
_Atomic uint64_t leases[64];
_Atomic uint64_t call_count, checked_blocks, statuses_seen[32];
_Atomic int failed;
pthread_rwlock_t lending = PTHREAD_RWLOCK_INITIALIZER;
const char *folder;

static uint64_t seed, calls_wanted;
static _Atomic int threads_left;

void fail(fuzzer_t *fuzzer, const char *what, int64_t number) {
    if (atomic_exchange(&failed, 1) == 0)
        fprintf(stderr, "FAIL (seed %llu, thread %u, call %llu): %s (%lld)\n", (unsigned long long)seed, fuzzer->number,
                (unsigned long long)atomic_load(&fuzzer->call_number), what, (long long)number);
}

static __thread fuzzer_t *current;

/* The call in which it happened, and where; then the signal takes its way. */
static void on_signal(int number) {
    void *frames[64];
    char line[256];
    int length = snprintf(line, sizeof line, "FAIL (seed %llu, thread %u, call %llu): signal %d in or after %s\n", (unsigned long long)seed,
                          current ? current->number : 99, (unsigned long long)(current ? atomic_load(&current->call_number) : 0), number,
                          current ? atomic_load(&current->call) : "a thread of the library");
    if (write(2, line, (size_t)length) == length) backtrace_symbols_fd(frames, backtrace(frames, 64), 2);
    signal(number, SIG_DFL);
}

static void *run_thread(void *argument) {
    fuzzer_t *fuzzer = current = (fuzzer_t *)argument;
    while (atomic_load(&call_count) < calls_wanted && !atomic_load(&failed)) call_something(fuzzer);
    end_operations(fuzzer);
    atomic_fetch_sub(&threads_left, 1);
    return NULL;
}

/* A call that does not come back is reported with its name, and ends the process. */
static void watch(fuzzer_t *fuzzers, unsigned thread_count) {
    uint64_t seen[64] = {0};
    unsigned still[64] = {0}, t;
    while (atomic_load(&threads_left) > 0) {
        usleep(200000);
        for (t = 0; t < thread_count; t++) {
            uint64_t number = atomic_load(&fuzzers[t].call_number);
            still[t] = number == seen[t] ? still[t] + 1 : 0;
            seen[t] = number;
            if (still[t] < 5 * 300) continue;
            fprintf(stderr, "FAIL (seed %llu): %s has not come back for 300 s\n", (unsigned long long)seed,
                    atomic_load(&fuzzers[t].call));
            _exit(1);
        }
    }
}

static void close_all(fuzzer_t *fuzzer) {
    unsigned s;
    for (s = 0; s < store_count; s++) {
        kvstore_t *store = atomic_exchange(&stores[s], NULL);
        kvstore_stats_t stats;
        kvstore_status_t status;
        memset(&stats, 0, sizeof stats);
        stats.struct_size = (uint32_t)sizeof stats;
        if (store == NULL) continue;
        if (kvstore_stats(store, &stats) == KVSTORE_OK && stats.poisoned) fail(fuzzer, "an invariant failed in the store", s);
        if (stats.misses_corrupt > 0 || stats.blocks_quarantined > 0)
            fail(fuzzer, "blocks failed their check", (int64_t)stats.misses_corrupt);
        status = kvstore_close(store);
        if (status != KVSTORE_OK) fail(fuzzer, "the last close", status);
    }
}

int main(int argc, char **argv) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGABRT, SIGFPE};
    unsigned thread_count, t, s;
    fuzzer_t *fuzzers;
    pthread_t *threads;
    if (argc != 5) {
        fprintf(stderr, "usage: abi_fuzz FOLDER CALLS THREADS SEED\n");
        return 2;
    }
    folder = argv[1];
    calls_wanted = strtoull(argv[2], NULL, 10);
    thread_count = (unsigned)strtoul(argv[3], NULL, 10);
    seed = strtoull(argv[4], NULL, 10);
    for (s = 0; s < sizeof signals / sizeof signals[0]; s++) signal(signals[s], on_signal);
    fuzzers = (fuzzer_t *)calloc(thread_count, sizeof *fuzzers);
    threads = (pthread_t *)calloc(thread_count, sizeof *threads);
    if (thread_count == 0 || thread_count > 64 || fuzzers == NULL || threads == NULL || mkdir(folder, 0700) != 0) return 1;
    for (t = 0; t < thread_count; t++) {
        fuzzers[t].number = t;
        fuzzers[t].random = mix(seed * 64 + t);
        atomic_store(&fuzzers[t].call, "");
        guarded_init(&fuzzers[t]);
        fuzzers[t].payload = (unsigned char *)malloc((size_t)blocks_max * regions_max * region_bytes_max);
        for (s = 0; s < operation_count; s++)
            fuzzers[t].operations[s].memory = (unsigned char *)malloc((size_t)blocks_max * regions_max * region_bytes_max);
    }
    open_stores(&fuzzers[0]);
    atomic_store(&threads_left, (int)thread_count);
    for (t = 0; t < thread_count; t++)
        if (pthread_create(&threads[t], NULL, run_thread, &fuzzers[t]) != 0) return 1;
    watch(fuzzers, thread_count);
    for (t = 0; t < thread_count; t++) pthread_join(threads[t], NULL);
    open_stores(&fuzzers[0]);
    close_all(&fuzzers[0]);
    printf("abi fuzz: seed %llu, %llu calls, %llu blocks compared; statuses", (unsigned long long)seed,
           (unsigned long long)atomic_load(&call_count), (unsigned long long)atomic_load(&checked_blocks));
    for (int status = -15; status < 16; status++)
        if (atomic_load(&statuses_seen[status + 16]) > 0)
            printf(" %s %llu", kvstore_status_string(status) + 8, (unsigned long long)atomic_load(&statuses_seen[status + 16]));
    printf("\n");
    return atomic_load(&failed);
}
