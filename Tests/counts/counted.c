/* The definitions of a program take the place of libc's in the shared libraries that it loads, so that these see every call of the
 * store and of LMDB. */
#define _GNU_SOURCE
#include "counted.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---------------------------------------------------------------- locks */

static __thread uint64_t locks;

uint64_t counted_locks(void) { return locks; }

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    static int (*next)(pthread_mutex_t *);
    if (next == NULL) next = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    locks++;
    return next(mutex);
}

/* ---------------------------------------------------------------- memory */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static __thread uint64_t allocations;

uint64_t counted_allocations(void) { return allocations; }

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *pointer, size_t size) {
    allocations++;
    return __libc_realloc(pointer, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    allocations++;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **pointer, size_t alignment, size_t size) {
    allocations++;
    *pointer = __libc_memalign(alignment, size);
    return *pointer == NULL ? ENOMEM : 0;
}

/* ---------------------------------------------------------------- files */

static _Atomic uint64_t reads, read_bytes, writes, written_bytes, syncs, opens;

counted_io_t counted_io(void) {
    return (counted_io_t){reads, read_bytes, writes, written_bytes, syncs, opens};
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static int writes_are_held;

void counted_hold_writes(int held) {
    pthread_mutex_lock(&lock);
    writes_are_held = held;
    pthread_cond_broadcast(&released);
    pthread_mutex_unlock(&lock);
}

static void wait_for_release(void) {
    pthread_mutex_lock(&lock);
    while (writes_are_held) pthread_cond_wait(&released, &lock);
    pthread_mutex_unlock(&lock);
}

static ssize_t noted(ssize_t count, _Atomic uint64_t *calls, _Atomic uint64_t *bytes) {
    (*calls)++;
    if (count > 0) *bytes += (uint64_t)count;
    return count;
}

ssize_t pread(int fd, void *data, size_t size, off_t offset) {
    return noted(syscall(SYS_pread64, fd, data, size, offset), &reads, &read_bytes);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t offset) { return pread(fd, data, size, offset); }

ssize_t preadv(int fd, const struct iovec *pieces, int count, off_t offset) {
    return noted(syscall(SYS_preadv, fd, pieces, (long)count, offset, 0L), &reads, &read_bytes);
}
ssize_t preadv64(int fd, const struct iovec *pieces, int count, off64_t offset) {
    return preadv(fd, pieces, count, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    wait_for_release();
    return noted(syscall(SYS_pwrite64, fd, data, size, offset), &writes, &written_bytes);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    wait_for_release();
    return noted(syscall(SYS_pwritev, fd, pieces, (long)count, offset, 0L), &writes, &written_bytes);
}
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) {
    return pwritev(fd, pieces, count, offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    wait_for_release();
    return noted(syscall(SYS_writev, fd, pieces, (long)count), &writes, &written_bytes);
}

int fdatasync(int fd) {
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd) {
    syncs++;
    return (int)syscall(SYS_fsync, fd);
}

int msync(void *address, size_t length, int flags) {
    if (flags & MS_SYNC) syncs++;
    return (int)syscall(SYS_msync, address, length, flags);
}

/* Not counted: what depends on others. In shared memory a store that is opened looks at what killed processes left there;
 * folders are listed for files to remove after the open, by a thread that nobody waits for. */
static void note_open(const char *path, int flags) {
    if ((flags & O_DIRECTORY) == 0 && strncmp(path, "/dev/shm/", 9) != 0) opens++;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    mode_t mode = 0;
    va_start(rest, flags);
    if (flags & (O_CREAT | __O_TMPFILE)) mode = va_arg(rest, mode_t);
    va_end(rest);
    note_open(path, flags);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    va_list rest;
    mode_t mode = 0;
    va_start(rest, flags);
    if (flags & (O_CREAT | __O_TMPFILE)) mode = va_arg(rest, mode_t);
    va_end(rest);
    note_open(path, flags);
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}
