/* Blocks as values of RocksDB with blob files (BlobDB). */
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

static rocksdb_t *db;
static rocksdb_options_t *options;

static void check(char *error, const char *what) {
    if (error != NULL) fail(what, error);
}

static void open_store(const blocks_t *blocks) {
    char *error = NULL;
    options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_enable_blob_files(options, 1);
    rocksdb_options_set_min_blob_size(options, 1024);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_increase_parallelism(options, 2);
    db = rocksdb_open(options, blocks->folder, &error);
    check(error, "rocksdb_open");
}

static const char *key_of(const blocks_t *blocks, size_t block) {
    return (const char *)blocks->keys + block * key_bytes;
}

static void write_blocks(const blocks_t *blocks) {
    rocksdb_writeoptions_t *durable = rocksdb_writeoptions_create();
    size_t first, block;
    rocksdb_writeoptions_set_sync(durable, 1);
    for (first = 0; first < blocks->block_count; first += blocks->batch_count) {
        rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
        char *error = NULL;
        for (block = first; block < first + blocks->batch_count && block < blocks->block_count; block++)
            rocksdb_writebatch_put(batch, key_of(blocks, block), key_bytes, blocks->payload + block * blocks->block_bytes,
                                   blocks->block_bytes);
        rocksdb_write(db, durable, batch, &error);
        check(error, "rocksdb_write");
        rocksdb_writebatch_destroy(batch);
    }
    rocksdb_writeoptions_destroy(durable);
}

/* From the memtable and the log into blob files. */
static void settle(void) {
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    char *error = NULL;
    rocksdb_flushoptions_set_wait(flush, 1);
    rocksdb_flush(db, flush, &error);
    check(error, "rocksdb_flush");
    rocksdb_flushoptions_destroy(flush);
}

static void read_blocks(const blocks_t *blocks, size_t first, size_t step) {
    rocksdb_readoptions_t *reading = rocksdb_readoptions_create();
    size_t block;
    for (block = first; block < blocks->block_count; block += step) {
        char *error = NULL;
        size_t length = 0;
        rocksdb_pinnableslice_t *value = rocksdb_get_pinned(db, reading, key_of(blocks, block), key_bytes, &error);
        if (error != NULL) {
            fprintf(stderr, "rocksdb_get_pinned: %s\n", error);
            rocksdb_free(error);
        }
        if (value == NULL) continue;
        const char *bytes = rocksdb_pinnableslice_value(value, &length);
        if (length == blocks->block_bytes) memcpy(blocks->target + block * blocks->block_bytes, bytes, length);
        rocksdb_pinnableslice_destroy(value);
    }
    rocksdb_readoptions_destroy(reading);
}

/* Its quickest answer, which may be a false yes: nothing better leaves the value unread. */
static size_t count_blocks(const blocks_t *blocks) {
    rocksdb_readoptions_t *reading = rocksdb_readoptions_create();
    size_t block, found = 0;
    for (block = 0; block < blocks->block_count; block++)
        found += rocksdb_key_may_exist(db, reading, key_of(blocks, block), key_bytes, NULL, NULL, NULL, 0, NULL) != 0;
    rocksdb_readoptions_destroy(reading);
    return found;
}

static void close_store(void) {
    rocksdb_close(db);
    rocksdb_options_destroy(options);
}

const peer_t blobdb_peer = {"blobdb", open_store, write_blocks, settle, read_blocks, count_blocks, close_store};
