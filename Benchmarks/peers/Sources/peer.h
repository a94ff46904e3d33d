/* The same blocks through another store: what each of them has to offer for it. */
#ifndef PEER_H
#define PEER_H
#include <stddef.h>
#include <stdint.h>

enum { key_bytes = 16 };

typedef struct {
    const char *folder;
    size_t block_bytes, block_count, batch_count;
    const uint8_t *keys;  /* block_count × key_bytes */
    const char *payload;  /* block_count × block_bytes */
    char *target;         /* likewise, for reads */
} blocks_t;

typedef struct {
    const char *name;
    void (*open)(const blocks_t *blocks);
    /* Writes all blocks, batch_count of them at a time; each batch is durable before the next one. */
    void (*write)(const blocks_t *blocks);
    /* Before the page cache is dropped: everything in its last place. */
    void (*settle)(void);
    /* Copies blocks first, first + step, ... to the target; several threads call it. Leaves the target of a block that is
     * not there, or that the store finds damaged, as it is. */
    void (*read)(const blocks_t *blocks, size_t first, size_t step);
    /* How many of the keys are there, without their values. */
    size_t (*count)(const blocks_t *blocks);
    void (*close)(void);
} peer_t;

extern const peer_t lmdb_peer, blobdb_peer;

_Noreturn void fail(const char *what, const char *why);
#endif
