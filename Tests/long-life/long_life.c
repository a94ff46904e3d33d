/* Watches a store in mixed use for a long time: after a warm-up nothing may grow.
 *
 * usage: long_life STORE SECONDS SEED
 *        long_life STORE - SEED         a visitor: uses the store of another process for a moment
 *
 * Rounds: threads use the store, then all handles are closed and it is opened again. Each second a sample is taken. The first fifth of the
 * time is the warm-up; the most in the last third of it may not be above the most between the two, but for a slack. */
#define _GNU_SOURCE
#include "long_life.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { threads = 3 };
enum { resident, descriptors, tasks, catalog_bytes, disk_bytes, files, leases, figure_count };

static const char *const figure_names[figure_count] = {
    "resident KiB", "file descriptors", "threads", "catalog bytes", "disk bytes", "files", "leases"};

/* By how much a figure may be above its settled most: a share of it, and an amount. Memory of a malloc arena and pages of an
 * LMDB that is full come and go; descriptors and threads of one call may be seen or not. Bytes on disk and files have the store's
 * own bound, below which they come and go: slot files are given back to other slot sizes, the file of removals grows and is
 * condensed. take_sample holds every sample against that bound. */
static const struct {
    unsigned percent;
    uint64_t amount;
} slack[figure_count] = {{5, 4096}, {0, 4}, {0, 2}, {5, 65536}, {0, 0}, {0, 8}, {50, 256}};

typedef struct {
    double second;
    uint64_t of[figure_count];
} sample_t;

static const char *path;
static kvstore_t *store;
static _Atomic int stop;
static uint64_t seed, rounds, newest[threads];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void *run_thread(void *argument) {
    uintptr_t number = (uintptr_t)argument;
    use_store(store, seed * 1000003 + rounds * 64 + number, &newest[number], &stop);
    return NULL;
}

/* ---------------------------------------------------------------- what is watched */

static uint64_t entry_count(const char *folder) {
    DIR *opened = opendir(folder);
    uint64_t count = 0;
    if (opened == NULL) return 0;
    while (readdir(opened) != NULL) count++;
    closedir(opened);
    return count - 3; /* . and .. and, in /proc/self/fd, our own */
}

static uint64_t resident_kib(void) {
    unsigned long total = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu %lu", &total, &pages) != 2) wrong("statm", 0);
    if (file != NULL) fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
}

static void add_folder(const char *folder, sample_t *sample) {
    DIR *opened = opendir(folder);
    struct dirent *entry;
    if (opened == NULL) return;
    while ((entry = readdir(opened)) != NULL) {
        char child[4096];
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(child, sizeof child, "%s/%s", folder, entry->d_name);
        if (lstat(child, &info) != 0) continue;
        if (S_ISDIR(info.st_mode)) {
            add_folder(child, sample);
        } else {
            sample->of[disk_bytes] += (uint64_t)info.st_blocks * 512;
            sample->of[files]++;
        }
    }
    closedir(opened);
}

static sample_t take_sample(double begin) {
    sample_t sample;
    kvstore_stats_t stats;
    memset(&sample, 0, sizeof sample);
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    if (kvstore_stats(store, &stats) != KVSTORE_OK) wrong("stats", 0);
    sample.second = now() - begin;
    sample.of[catalog_bytes] = stats.catalog_bytes_used;
    sample.of[leases] = stats.leases_active;
    sample.of[descriptors] = entry_count("/proc/self/fd");
    sample.of[tasks] = entry_count("/proc/self/task") + 1;
    sample.of[resident] = resident_kib();
    add_folder(path, &sample);
    if (sample.of[disk_bytes] > STORE_BYTES) wrong("the disk is not bounded", (int64_t)sample.of[disk_bytes]);
    return sample;
}

/* ---------------------------------------------------------------- the whole */

/* A process that opens the store, uses it for a moment, and closes it or dies. */
static void invite(const char *program, uint64_t number) {
    char seed_text[32];
    int status = 0;
    pid_t pid;
    snprintf(seed_text, sizeof seed_text, "%llu", (unsigned long long)(seed * 7919 + number));
    pid = fork();
    if (pid < 0) return wrong("fork", 0);
    if (pid == 0) {
        execl(program, program, path, "-", seed_text, (char *)NULL);
        _exit(127);
    }
    usleep(300000);
    if (number % 3 == 0) kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid || (number % 3 != 0 && status != 0)) wrong("a visitor failed", status);
}

static int visit(void) {
    pthread_t thread;
    store = open_store(path);
    if (store == NULL) return 1;
    newest[0] = 3000000000 + seed % 64 * 1000;
    if (pthread_create(&thread, NULL, run_thread, (void *)0) != 0) return 1;
    usleep(400000);
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    if (kvstore_close(store) != KVSTORE_OK) wrong("close", 0);
    return atomic_load(&counts.failed);
}

static void judge(const sample_t *samples, size_t count, double seconds) {
    unsigned f;
    size_t i;
    for (f = 0; f < figure_count; f++) {
        uint64_t settled = 0, later = 0, least = UINT64_MAX, bound;
        for (i = 0; i < count; i++) {
            uint64_t value = samples[i].of[f];
            if (samples[i].second < 0.2 * seconds) continue;
            if (samples[i].second < 2 * seconds / 3) settled = value > settled ? value : settled;
            else later = value > later ? value : later;
            least = value < least ? value : least;
        }
        bound = settled + settled * slack[f].percent / 100 + slack[f].amount;
        /* Half a minute is too short for malloc's arenas to have seen all sizes. */
        if (f == resident && seconds < 600) bound += settled / 5;
        if (f == disk_bytes) bound = STORE_BYTES;
        printf("%-16s after the warm-up %llu ... %llu, in the last third at most %llu, bound %llu\n", figure_names[f],
               (unsigned long long)least, (unsigned long long)(later > settled ? later : settled), (unsigned long long)later,
               (unsigned long long)bound);
        if (later > bound) {
            fprintf(stderr, "FAIL (seed %llu): %s grow\n", (unsigned long long)seed, figure_names[f]);
            atomic_store(&counts.failed, 1);
        }
    }
}

int main(int argc, char **argv) {
    double begin = now(), seconds, round_seconds;
    sample_t *samples;
    size_t count = 0;
    uint64_t visitors = 0;
    if (argc != 4) {
        fprintf(stderr, "usage: long_life STORE SECONDS SEED\n");
        return 2;
    }
    path = argv[1];
    seed = strtoull(argv[3], NULL, 10);
    if (strcmp(argv[2], "-") == 0) return visit();
    seconds = strtod(argv[2], NULL);
    round_seconds = seconds < 600 ? seconds / 10 : 60;
    /* The long form leaves the machine to others. */
    pause_microseconds = seconds < 600 ? 0 : 1000;
    samples = (sample_t *)calloc((size_t)(seconds * 4) + 64, sizeof *samples);
    if (samples == NULL) return 1;
    for (uintptr_t t = 0; t < threads; t++) newest[t] = t * 1000000000;
    while (now() - begin < seconds && !atomic_load(&counts.failed)) {
        pthread_t handles[threads];
        double end = now() + round_seconds;
        kvstore_status_t status;
        atomic_store(&stop, 0);
        if ((store = open_store(path)) == NULL) break;
        for (uintptr_t t = 0; t < threads; t++)
            if (pthread_create(&handles[t], NULL, run_thread, (void *)t) != 0) return 1;
        while (now() < end && !atomic_load(&counts.failed)) {
            usleep(500000);
            if (count < (size_t)(seconds * 4) + 64) samples[count++] = take_sample(begin);
            if (count % 4 == 0) invite(argv[0], ++visitors);
        }
        atomic_store(&stop, 1);
        for (int t = 0; t < threads; t++) pthread_join(handles[t], NULL);
        status = kvstore_close(store);
        if (status != KVSTORE_OK) wrong("close", status);
        rounds++;
    }
    if (!atomic_load(&counts.failed)) judge(samples, count, seconds);
    printf("long life: %.0f s, seed %llu, %zu samples, %llu opens, %llu visitors, %llu calls, %llu blocks offloaded, %llu restored, "
           "%llu misses, %llu refusals: %s\n",
           now() - begin, (unsigned long long)seed, count, (unsigned long long)rounds, (unsigned long long)visitors,
           (unsigned long long)atomic_load(&counts.calls), (unsigned long long)atomic_load(&counts.blocks_offloaded),
           (unsigned long long)atomic_load(&counts.blocks_restored), (unsigned long long)atomic_load(&counts.misses),
           (unsigned long long)atomic_load(&counts.refusals), atomic_load(&counts.failed) ? "FAILED" : "nothing grows");
    free(samples);
    return atomic_load(&counts.failed);
}
