/* Blocks as values of LMDB: overflow pages of one memory-mapped file. */
#include <lmdb.h>
#include <string.h>

#include "peer.h"

static MDB_env *environment;
static MDB_dbi table;

static void check(int code, const char *what) {
    if (code != MDB_SUCCESS) fail(what, mdb_strerror(code));
}

static void open_store(const blocks_t *blocks) {
    MDB_txn *txn;
    check(mdb_env_create(&environment), "mdb_env_create");
    check(mdb_env_set_mapsize(environment, blocks->block_count * (blocks->block_bytes + 8192) + (64u << 20)), "map size");
    check(mdb_env_open(environment, blocks->folder, MDB_NOTLS, 0600), "mdb_env_open");
    check(mdb_txn_begin(environment, NULL, 0, &txn), "mdb_txn_begin");
    check(mdb_dbi_open(txn, NULL, 0, &table), "mdb_dbi_open");
    check(mdb_txn_commit(txn), "mdb_txn_commit");
}

static MDB_val key_of(const blocks_t *blocks, size_t block) {
    return (MDB_val){key_bytes, (void *)(uintptr_t)(blocks->keys + block * key_bytes)};
}

static void write_blocks(const blocks_t *blocks) {
    size_t first, block;
    for (first = 0; first < blocks->block_count; first += blocks->batch_count) {
        MDB_txn *txn;
        check(mdb_txn_begin(environment, NULL, 0, &txn), "mdb_txn_begin");
        for (block = first; block < first + blocks->batch_count && block < blocks->block_count; block++) {
            MDB_val key = key_of(blocks, block), value = {blocks->block_bytes, NULL};
            check(mdb_put(txn, table, &key, &value, MDB_RESERVE), "mdb_put");
            memcpy(value.mv_data, blocks->payload + block * blocks->block_bytes, blocks->block_bytes);
        }
        check(mdb_txn_commit(txn), "mdb_txn_commit");
    }
}

static void settle(void) { check(mdb_env_sync(environment, 1), "mdb_env_sync"); }

static void read_blocks(const blocks_t *blocks, size_t first, size_t step) {
    MDB_txn *txn;
    size_t block;
    check(mdb_txn_begin(environment, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
    for (block = first; block < blocks->block_count; block += step) {
        MDB_val key = key_of(blocks, block), value;
        int code = mdb_get(txn, table, &key, &value);
        if (code == MDB_NOTFOUND || (code == MDB_SUCCESS && value.mv_size != blocks->block_bytes)) continue;
        check(code, "mdb_get");
        memcpy(blocks->target + block * blocks->block_bytes, value.mv_data, value.mv_size);
    }
    mdb_txn_abort(txn);
}

static size_t count_blocks(const blocks_t *blocks) {
    MDB_txn *txn;
    size_t block, found = 0;
    check(mdb_txn_begin(environment, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
    for (block = 0; block < blocks->block_count; block++) {
        MDB_val key = key_of(blocks, block), value;
        found += mdb_get(txn, table, &key, &value) == MDB_SUCCESS;
    }
    mdb_txn_abort(txn);
    return found;
}

static void close_store(void) { mdb_env_close(environment); }

const peer_t lmdb_peer = {"lmdb", open_store, write_blocks, settle, read_blocks, count_blocks, close_store};
