/* One run of one store, for `kvstore bench compare`.
 *
 *   kvstore-peers STORE FOLDER BLOCK_BYTES BLOCKS BATCH THREADS SEED     STORE: lmdb, blobdb
 *
 * Prints nanoseconds: durable write, cold read, look-up of all keys, warm read. Every byte is compared after each read. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "peer.h"

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

static void fill(uint64_t *words, size_t count, uint64_t seed) {
    uint64_t state = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    size_t i;
    for (i = 0; i < count; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        words[i] = state;
    }
}

/* Lets the kernel forget its pages of every file in the folder. */
static void drop_page_cache(const char *folder) {
    DIR *directory = opendir(folder);
    struct dirent *entry;
    if (directory == NULL) fail("opendir", folder);
    while ((entry = readdir(directory)) != NULL) {
        int fd = openat(dirfd(directory), entry->d_name, O_RDONLY);
        if (fd < 0) continue;
        if (fdatasync(fd) == 0) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
    closedir(directory);
}

typedef struct {
    const peer_t *peer;
    const blocks_t *blocks;
    size_t first, step;
} reader_t;

static void *read_some(void *argument) {
    const reader_t *reader = argument;
    reader->peer->read(reader->blocks, reader->first, reader->step);
    return NULL;
}

/* Nanoseconds to read everything with so many threads. */
static uint64_t read_all(const peer_t *peer, const blocks_t *blocks, size_t threads) {
    pthread_t ids[16];
    reader_t readers[16];
    uint64_t start, time;
    size_t i;
    memset(blocks->target, 0xA5, blocks->block_count * blocks->block_bytes);
    start = now();
    for (i = 0; i < threads; i++) {
        readers[i] = (reader_t){peer, blocks, i, threads};
        if (pthread_create(&ids[i], NULL, read_some, &readers[i]) != 0) fail("pthread_create", "no thread");
    }
    for (i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    time = now() - start;
    if (memcmp(blocks->target, blocks->payload, blocks->block_count * blocks->block_bytes) != 0)
        fail(peer->name, "WRONG BYTES");
    return time;
}

int main(int argc, char **argv) {
    const peer_t *peers[] = {&lmdb_peer, &blobdb_peer}, *peer = NULL;
    uint64_t start, write_time, cold_time, count_time, warm_time;
    size_t i, threads;
    if (argc != 8) {
        fprintf(stderr, "usage: kvstore-peers lmdb|blobdb FOLDER BLOCK_BYTES BLOCKS BATCH THREADS SEED\n");
        return 2;
    }
    for (i = 0; i < sizeof peers / sizeof *peers; i++)
        if (strcmp(peers[i]->name, argv[1]) == 0) peer = peers[i];
    if (peer == NULL) fail(argv[1], "not one of lmdb, blobdb");
    blocks_t blocks = {.folder = argv[2],
                       .block_bytes = strtoul(argv[3], NULL, 10) / 8 * 8,
                       .block_count = strtoul(argv[4], NULL, 10),
                       .batch_count = strtoul(argv[5], NULL, 10)};
    threads = strtoul(argv[6], NULL, 10);
    if (blocks.block_bytes == 0 || blocks.block_count == 0 || blocks.batch_count == 0 || threads < 1 || threads > 16)
        fail("arguments", "out of range");
    char *payload = malloc(blocks.block_count * blocks.block_bytes);
    uint8_t *keys = malloc(blocks.block_count * key_bytes);
    blocks.target = malloc(blocks.block_count * blocks.block_bytes);
    if (payload == NULL || keys == NULL || blocks.target == NULL) fail("malloc", "memory is short");
    fill((uint64_t *)(void *)payload, blocks.block_count * blocks.block_bytes / 8, strtoul(argv[7], NULL, 10));
    fill((uint64_t *)(void *)keys, blocks.block_count * key_bytes / 8, strtoul(argv[7], NULL, 10) + 1);
    blocks.payload = payload;
    blocks.keys = keys;

    peer->open(&blocks);
    start = now();
    peer->write(&blocks);
    write_time = now() - start;
    peer->settle();
    peer->close();
    drop_page_cache(blocks.folder);
    peer->open(&blocks);
    cold_time = read_all(peer, &blocks, threads);
    /* Once to warm up. */
    if (peer->count(&blocks) != blocks.block_count) fail(peer->name, "a block is missing");
    start = now();
    if (peer->count(&blocks) != blocks.block_count) fail(peer->name, "a block is missing");
    count_time = now() - start;
    warm_time = read_all(peer, &blocks, threads);
    peer->close();
    printf("%llu %llu %llu %llu\n", (unsigned long long)write_time, (unsigned long long)cold_time,
           (unsigned long long)count_time, (unsigned long long)warm_time);
    return 0;
}
