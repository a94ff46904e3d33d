#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

int clinux_o_direct(void) { return O_DIRECT; }

int clinux_fallocate(int fd, uint64_t byte_count) {
    if (byte_count > INT64_MAX) return EFBIG;
    for (;;) {
        if (fallocate(fd, 0, 0, (off_t)byte_count) == 0) return 0;
        if (errno != EINTR) return errno;
    }
}

int clinux_direct_alignment(int fd, uint32_t *memory_alignment, uint32_t *offset_alignment) {
#ifdef STATX_DIOALIGN
    struct statx info;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) != 0) return errno;
    if ((info.stx_mask & STATX_DIOALIGN) == 0) return ENOTSUP;
    *memory_alignment = info.stx_dio_mem_align;
    *offset_alignment = info.stx_dio_offset_align;
    return 0;
#else
    (void)fd, (void)memory_alignment, (void)offset_alignment;
    return ENOTSUP;
#endif
}

int clinux_birth_time(int fd, uint64_t *nanoseconds) {
    struct statx info;
    *nanoseconds = 0;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &info) != 0) return errno;
    if (info.stx_mask & STATX_BTIME)
        *nanoseconds = (uint64_t)info.stx_btime.tv_sec * 1000000000u + info.stx_btime.tv_nsec;
    return 0;
}

off_t clinux_first_data(int fd) { return lseek(fd, 0, SEEK_DATA); }

int clinux_drop_page_cache(int fd) { return posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); }

static struct flock first_byte(void) {
    struct flock lock = {0};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_len = 1;
    return lock;
}

int clinux_record_lock(int fd) {
    struct flock lock = first_byte();
    if (fcntl(fd, F_SETLK, &lock) == 0) return 0;
    return errno == EACCES ? EAGAIN : errno;
}

int clinux_description_lock(int fd) {
    struct flock lock = first_byte();
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return 0;
    return errno == EACCES ? EAGAIN : errno;
}

int clinux_share_lock(int fd, uint64_t offset) {
    struct flock own = {0};
    if (offset > INT64_MAX - 1) return EINVAL;
    own.l_type = F_RDLCK;
    own.l_whence = SEEK_SET;
    own.l_start = (off_t)offset;
    own.l_len = 1;
    if (fcntl(fd, F_SETLK, &own) != 0) return errno == EACCES ? EAGAIN : errno;
    /* Ours first, so that of two at once at least one sees the other. */
    for (int behind = 0; behind < 2; behind++) {
        struct flock other = {0};
        if (!behind && offset == 0) continue;
        other.l_type = F_WRLCK;
        other.l_whence = SEEK_SET;
        other.l_start = behind ? (off_t)offset + 1 : 0;
        other.l_len = behind ? 0 : (off_t)offset;
        if (fcntl(fd, F_GETLK, &other) != 0) return errno;
        if (other.l_type != F_UNLCK) return EAGAIN;
    }
    return 0;
}

int clinux_record_lock_holder(int fd, int32_t *process_id) {
    struct flock lock = first_byte();
    if (fcntl(fd, F_GETLK, &lock) != 0) return errno;
    /* A holder in another PID namespace has no number here: the kernel says 0, and yet it holds the lock. */
    *process_id = lock.l_type == F_UNLCK ? 0 : lock.l_pid > 0 ? (int32_t)lock.l_pid : -1;
    return 0;
}

int clinux_file_lock(int fd, int is_exclusive) {
    for (;;) {
        if (flock(fd, (is_exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) return 0;
        if (errno != EINTR) return errno == EWOULDBLOCK ? EAGAIN : errno;
    }
}

static struct flock bytes_from(uint64_t first, uint64_t count, short type) {
    struct flock lock = {0};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = (off_t)first;
    lock.l_len = (off_t)count; /* 0: to the end */
    return lock;
}

int clinux_process_holds_lock(int fd) {
    struct flock lock = bytes_from(0, 0, F_WRLCK);
    /* Asked for an open file description, the kernel tells of this process's own record locks as well. */
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return 0;
    return lock.l_type != F_UNLCK && lock.l_pid == getpid();
}

int clinux_description_range(int fd, uint64_t offset, uint64_t count, int kind) {
    static const short types[] = {F_UNLCK, F_RDLCK, F_WRLCK};
    struct flock lock = bytes_from(offset, count, types[kind]);
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return 0;
    return errno == EACCES ? EAGAIN : errno;
}

int clinux_share_byte(int fd, uint64_t offset) {
    struct flock lock = bytes_from(offset, 1, F_RDLCK);
    return fcntl(fd, F_SETLK, &lock) == 0 ? 0 : errno;
}

int clinux_other_byte_is_shared(int fd, uint64_t offset, int only_here) {
    struct flock before = bytes_from(1, offset - 1, F_WRLCK), after = bytes_from(offset + 1, 0, F_WRLCK);
    struct flock same = bytes_from(offset, 1, F_WRLCK);
    if (offset > 1) {
        if (fcntl(fd, F_GETLK, &before) != 0) return -errno;
        if (before.l_type != F_UNLCK) return 1;
    }
    if (fcntl(fd, F_GETLK, &after) != 0) return -errno;
    if (after.l_type != F_UNLCK) return 1;
    if (!only_here) return 0;
    /* Without /proc other PID namespaces have the same byte: of a process there the kernel has no number for us. */
    if (fcntl(fd, F_GETLK, &same) != 0) return -errno;
    return same.l_type != F_UNLCK && same.l_pid <= 0;
}

int clinux_is_in_memory(const char *path) {
    struct statfs information;
    if (statfs(path, &information) != 0) return 0;
    return information.f_type == 0x01021994 /* tmpfs */ || information.f_type == 0x858458f6 /* ramfs */;
}

int clinux_random(void *bytes, size_t count) {
    size_t done = 0;
    while (done < count) {
        ssize_t got = getrandom((char *)bytes + done, count - done, 0);
        if (got > 0) done += (size_t)got;
        else if (got == 0) return EIO;
        else if (errno != EINTR) return errno;
    }
    return 0;
}

int clinux_advise_huge_pages(void *address, size_t byte_count) {
    return madvise(address, byte_count, MADV_HUGEPAGE) == 0 ? 0 : errno;
}

int clinux_populate(void *address, size_t byte_count) {
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
    return madvise(address, byte_count, MADV_POPULATE_WRITE) == 0 ? 0 : errno;
}

int clinux_exchange(int folder, const char *name, const char *other) {
    return renameat2(folder, name, folder, other, RENAME_EXCHANGE) == 0 ? 0 : -errno;
}
