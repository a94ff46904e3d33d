/* Times single calls of the C interface, as a program in C makes them through the shared library. */
#ifndef CALL_BENCH_H
#define CALL_BENCH_H
#include <stddef.h>
#include <stdint.h>

/* The version that kvstore.h names, for example "0.1.0". */
const char *call_bench_version(void);

/* Nanoseconds of each call; every array has room for call_count. What the clock itself takes is taken off. */
typedef struct {
  size_t call_count;
  uint64_t *version; /* kvstore_version: crossing into the library, and nothing else */
  uint64_t *peek;    /* kvstore_match of one block with PEEK */
  uint64_t *match;   /* kvstore_match of one block, and the release of its lease */
  uint64_t *restore; /* kvstore_restore of one block that has a copy in RAM */
  uint64_t *copy;    /* memcpy of the same bytes from a buffer like it */
} call_bench_times_t;

/* Loads the library, makes a store in `folder` with one block of `block_bytes` in one region, and times calls that hit
 * it. Compares every byte that comes back. Returns 0; or 1 with what went wrong in `message`. */
int call_bench_run(const char *library, const char *folder, size_t block_bytes,
                   const call_bench_times_t *times, char *message, size_t message_bytes);
#endif
