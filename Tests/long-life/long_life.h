/* What the parts of the long-life test share: the mixed use (mixed_use.c) and what watches it (long_life.c). */
#ifndef KVSTORE_LONG_LIFE_H
#define KVSTORE_LONG_LIFE_H

#include <kvstore.h>
#include <stdatomic.h>
#include <stdint.h>

/* The store: small, so that it is full after seconds and evicts from then on; the catalog as well. */
#define STORE_BYTES (UINT64_C(64) << 20)
#define CATALOG_BYTES (UINT64_C(8) << 20)
#define HOST_BYTES (UINT64_C(8) << 20)

/* Calls and blocks since the start, and the first thing that was wrong. */
typedef struct {
    _Atomic uint64_t calls, blocks_offloaded, blocks_restored, misses, refusals;
    _Atomic int failed;
} counts_t;

extern counts_t counts;
/* Between two calls of a thread. */
extern unsigned pause_microseconds;

/* Says what is wrong once, and that the run has failed. */
void wrong(const char *what, int64_t number);

kvstore_t *open_store(const char *path);

/* One thread's use of the store: random calls until *stop, from a seed. *newest is the last prompt that it has offloaded. */
void use_store(kvstore_t *store, uint64_t seed, uint64_t *newest, const _Atomic int *stop);

#endif
