/* Counts what this program and the library in it ask the C library for. */
#ifndef COUNTED_H
#define COUNTED_H
#include <stdint.h>

/* Allocations of this thread so far. */
uint64_t counted_allocations(void);

/* Mutexes that this thread has locked so far, of the store's or of LMDB's. */
uint64_t counted_locks(void);

/* Calls of all threads so far that are a system call each. */
typedef struct {
    uint64_t reads, read_bytes;     /* pread */
    uint64_t writes, written_bytes; /* pwrite, pwritev, write */
    uint64_t syncs;                 /* fdatasync, fsync, msync */
    uint64_t opens;                 /* open, openat: of files, not folders */
} counted_io_t;

counted_io_t counted_io(void);

/* While `held`, whoever writes to a file waits; so how much a thread finds when it goes on does not depend on time. */
void counted_hold_writes(int held);
#endif
