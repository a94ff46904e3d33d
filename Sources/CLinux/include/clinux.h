/* Linux calls that Swift cannot import: names behind _GNU_SOURCE, variadic functions, atomics on shared memory.
 * No logic. Each function returns 0 or an errno value, unless it says otherwise. */
#ifndef KVSTORE_CLINUX_H
#define KVSTORE_CLINUX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The O_DIRECT bit of this architecture. */
int clinux_o_direct(void);

/* Gives the file real extents for its first byte_count bytes, and that length. */
int clinux_fallocate(int fd, uint64_t byte_count);

/* What direct I/O on fd wants. ENOTSUP: the kernel does not say. Both 0: the file refuses direct I/O. */
int clinux_direct_alignment(int fd, uint32_t *memory_alignment, uint32_t *offset_alignment);

/* When the file was made, in Unix nanoseconds; 0: the file system does not say. */
int clinux_birth_time(int fd, uint64_t *nanoseconds);

/* Where the first written byte lies, or -1 with errno (ENXIO: there is none). */
off_t clinux_first_data(int fd);

/* Asks the kernel to forget the cached pages of fd (clean ones only). */
int clinux_drop_page_cache(int fd);

/* Takes the POSIX record lock on byte 0 for writing, without waiting. EAGAIN: another process holds it. */
int clinux_record_lock(int fd);

/* The same lock for as long as the descriptor is open, also against other threads of this process. EAGAIN: somebody holds it. */
int clinux_description_lock(int fd);

/* Takes a shared POSIX record lock on one byte, without waiting. EAGAIN: another process has a lock on another byte. */
int clinux_share_lock(int fd, uint64_t offset);

/* The process that holds the lock on byte 0, -1 if it is in another PID namespace, or 0. Tells nothing about locks of this process. */
int clinux_record_lock_holder(int fd, int32_t *process_id);

/* Takes a lock on the whole file that goes with the descriptor (flock), without waiting. EAGAIN: somebody holds one that excludes it.
 * From shared to exclusive and back the lock is given up in between, and gone after EAGAIN. */
int clinux_file_lock(int fd, int is_exclusive);

/* Shares the POSIX record lock on the one byte at offset. */
/* Whether this process holds the first record lock that this file has. */
int clinux_process_holds_lock(int fd);

int clinux_share_byte(int fd, uint64_t offset);

/* The lock of an open file description on `count` bytes (0: to the end), without waiting: 0, EAGAIN or another error.
 * `kind`: 0 ends it, 1 shares it, 2 takes it alone. */
int clinux_description_range(int fd, uint64_t offset, uint64_t count, int kind);

/* Whether another process shares a byte from offset 1 on that is not this one (1, 0), or an error (-errno). With 0, any.
 * `only_here`: also whether a process in another PID namespace shares this one. */
int clinux_other_byte_is_shared(int fd, uint64_t offset, int only_here);

/* Lets two names of a folder change places at once: 0, or -errno. */
int clinux_exchange(int folder, const char *name, const char *other);

/* Whether what has this path lies in memory (tmpfs, ramfs). */
int clinux_is_in_memory(const char *path);

/* Fills bytes from the kernel's generator. */
int clinux_random(void *bytes, size_t count);

/* Advises huge pages for a mapping. */
int clinux_advise_huge_pages(void *address, size_t byte_count);

/* Faults memory in. */
int clinux_populate(void *address, size_t byte_count);

/* Sequentially consistent atomics on 8-byte aligned memory that other processes map too. */
static inline uint64_t clinux_atomic_load(const void *address) {
    return __atomic_load_n((const uint64_t *)address, __ATOMIC_SEQ_CST);
}
static inline void clinux_atomic_store(void *address, uint64_t value) {
    __atomic_store_n((uint64_t *)address, value, __ATOMIC_SEQ_CST);
}
/* 1: exchanged. */
static inline int clinux_atomic_compare_exchange(void *address, uint64_t expected, uint64_t desired) {
    return __atomic_compare_exchange_n((uint64_t *)address, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
/* Returns the value before. */
static inline uint64_t clinux_atomic_fetch_add(void *address, uint64_t addend) {
    return __atomic_fetch_add((uint64_t *)address, addend, __ATOMIC_SEQ_CST);
}

#ifdef __cplusplus
}
#endif
#endif
