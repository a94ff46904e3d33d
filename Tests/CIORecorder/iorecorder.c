#define _GNU_SOURCE
#include "iorecorder.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

enum { descriptor_max = 4096, file_max = 1 << 16 };

/* One lock around each recorded call, so that the numbers are the order in which things happened. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static int is_hanging;

static char root[4096];
static size_t root_length; /* 0: not recording */

static iorecorder_operation_t *operations;
static size_t operation_count, operation_capacity;

/* What a descriptor stands for. */
static struct {
    uint32_t file; /* 0: not ours */
    uint8_t is_synced, is_directory;
    char *path;
} descriptors[descriptor_max];

/* Files by inode; a number is given once. */
static struct {
    ino_t inode;
    uint32_t file;
} inodes[file_max];
static size_t inode_count;
static uint32_t next_file = 1;

static struct {
    size_t number, count, failures, landing;
    uint32_t kinds;
    int error, is_set;
} plan;
static struct {
    size_t number;
    int is_set, lands_half;
} death;

static char label[1024];

int iorecorder_is_available(void) {
#ifdef SANITIZED
    return 0;
#else
    return 1;
#endif
}

/* ------------------------------------------------------------ the real calls */

static int real_open(int folder, const char *path, int flags, mode_t mode) {
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}
static ssize_t real_pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return syscall(SYS_pwrite64, fd, bytes, count, offset);
}

/* ------------------------------------------------------------ recording */

static const char *below_root(const char *path) {
    if (root_length == 0 || path == NULL || strncmp(path, root, root_length) != 0) return NULL;
    if (path[root_length] == 0) return path + root_length;
    return path[root_length] == '/' ? path + root_length + 1 : NULL;
}

/* The whole path of a name in one of our folders, which a descriptor stands for, also by /proc/self/fd/N/NAME; other paths as they are. */
static const char *whole_path(int folder, const char *path, char buffer[8192]) {
    static const char by_descriptor[] = "/proc/self/fd/";
    if (root_length == 0 || path == NULL) return NULL;
    if (strncmp(path, by_descriptor, sizeof by_descriptor - 1) == 0) {
        char *end;
        folder = (int)strtol(path + sizeof by_descriptor - 1, &end, 10);
        if (*end != '/') return path;
        path = end + 1;
    } else if (path[0] == '/') {
        return path;
    }
    if (folder < 0 || folder >= descriptor_max || descriptors[folder].file == 0) return NULL;
    const char *parts[] = {root, descriptors[folder].path, strcmp(path, ".") == 0 ? "" : path};
    size_t length = 0;
    for (size_t i = 0; i < 3; i++) {
        size_t count = strlen(parts[i]);
        if (count == 0) continue;
        if (length > 0) buffer[length++] = '/';
        if (length + count + 2 > 8192) abort();
        memcpy(buffer + length, parts[i], count);
        length += count;
    }
    buffer[length] = 0;
    if (strcmp(path, "..") == 0) {
        *strrchr(buffer, '/') = 0;
        *strrchr(buffer, '/') = 0;
    }
    return buffer;
}

/* What a path below the root is called there, also when it is opened by way of a link, as LMDB opens the catalog. */
static const char *opened_below_root(int folder, const char *path, char buffer[8192]) {
    static char target[4096]; /* guarded by the lock */
    const char *name = below_root(whole_path(folder, path, buffer));
    if (name != NULL || path == NULL || path[0] != '/') return name;
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0) return NULL;
    target[length] = 0;
    return below_root(whole_path(AT_FDCWD, target, buffer));
}

static iorecorder_operation_t *append(uint32_t kind) {
    if (operation_count == operation_capacity) {
        operation_capacity = operation_capacity ? 2 * operation_capacity : 1024;
        operations = realloc(operations, operation_capacity * sizeof *operations);
        if (operations == NULL) abort();
    }
    iorecorder_operation_t *operation = &operations[operation_count++];
    memset(operation, 0, sizeof *operation);
    operation->kind = kind;
    return operation;
}

/* The file behind an inode; `is_new` gives it a new number, since inodes are used again. */
static uint32_t file_of(ino_t inode, int is_new) {
    for (size_t i = 0; i < inode_count; i++) {
        if (inodes[i].inode != inode) continue;
        if (is_new) inodes[i].file = next_file++;
        return inodes[i].file;
    }
    if (inode_count == file_max) abort();
    inodes[inode_count].inode = inode;
    inodes[inode_count].file = next_file++;
    return inodes[inode_count++].file;
}

static int is_ours(int fd) {
    return root_length > 0 && fd >= 0 && fd < descriptor_max && descriptors[fd].file != 0;
}

/* With the lock held, before operation number `operation_count` of this kind: waits, dies, or says how it fails:
 * -1 = it does not, else an errno, 0 being a short write. */
static int enter(uint32_t kind) {
    while (is_hanging) pthread_cond_wait(&released, &lock);
    if (death.is_set && operation_count == death.number && (kind != IORECORDER_WRITE || !death.lands_half)) {
        syscall(SYS_kill, getpid(), SIGKILL);
    }
    if (plan.is_set && operation_count >= plan.number && plan.failures < plan.count &&
        (plan.kinds & (1u << kind))) {
        plan.failures++;
        return plan.error;
    }
    return -1;
}

/* ------------------------------------------------------------ control */

static void forget(void) {
    for (size_t i = 0; i < operation_count; i++) {
        free((void *)operations[i].bytes);
        free((void *)operations[i].path);
        free((void *)operations[i].new_path);
    }
    operation_count = 0;
    memset(&plan, 0, sizeof plan);
    memset(&death, 0, sizeof death);
}

void iorecorder_start(const char *folder) {
    pthread_mutex_lock(&lock);
    forget();
    inode_count = 0;
    next_file = 1;
    root_length = strlen(folder);
    if (root_length >= sizeof root) abort();
    memcpy(root, folder, root_length + 1);
    pthread_mutex_unlock(&lock);
}

void iorecorder_stop(void) {
    pthread_mutex_lock(&lock);
    root_length = 0;
    plan.is_set = death.is_set = 0;
    memset(descriptors, 0, sizeof descriptors);
    pthread_mutex_unlock(&lock);
}

size_t iorecorder_count(void) {
    pthread_mutex_lock(&lock);
    size_t count = operation_count;
    pthread_mutex_unlock(&lock);
    return count;
}

const iorecorder_operation_t *iorecorder_operation(size_t number) {
    return number < operation_count ? &operations[number] : NULL;
}

void iorecorder_fail(size_t number, size_t count, uint32_t kinds, int error, size_t landing) {
    pthread_mutex_lock(&lock);
    plan.number = number;
    plan.count = count;
    plan.kinds = kinds;
    plan.error = error;
    plan.landing = landing;
    plan.failures = 0;
    plan.is_set = count > 0;
    pthread_mutex_unlock(&lock);
}

size_t iorecorder_failure_count(void) {
    pthread_mutex_lock(&lock);
    size_t count = plan.failures;
    pthread_mutex_unlock(&lock);
    return count;
}

void iorecorder_die(size_t number, int lands_half) {
    pthread_mutex_lock(&lock);
    death.number = number;
    death.lands_half = lands_half;
    death.is_set = 1;
    pthread_mutex_unlock(&lock);
}

void iorecorder_hang(int hangs) {
    pthread_mutex_lock(&lock);
    is_hanging = hangs;
    pthread_mutex_unlock(&lock);
    if (!hangs) pthread_cond_broadcast(&released);
}

int iorecorder_copy(const char *path, const char *new_path) {
    int source = open(path, O_RDONLY), target = open(new_path, O_RDWR | O_CREAT, 0600), error = 0;
    struct stat status;
    if (target < 0) error = errno;
    if (source >= 0 && error == 0) {
        if (fstat(source, &status) != 0 || ftruncate(target, status.st_size) != 0) error = errno;
        for (off_t next = 0; error == 0;) {
            off_t start = lseek(source, next, SEEK_DATA), end;
            if (start < 0) break;
            end = lseek(source, start, SEEK_HOLE);
            for (off_t to = start; start < end && error == 0;) {
                if (copy_file_range(source, &start, target, &to, (size_t)(end - start), 0) <= 0) error = EIO;
            }
            next = end;
        }
    }
    if (source >= 0) close(source);
    if (target >= 0) close(target);
    return error;
}

static void tell(int number) {
    (void)!write(2, label, strlen(label));
    signal(number, SIG_DFL);
    raise(number);
}

void iorecorder_set_label(const char *text) {
    static int is_installed;
    strncpy(label, text, sizeof label - 1);
    if (is_installed) return;
    is_installed = 1;
    int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGABRT};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) signal(numbers[i], tell);
}

#ifndef SANITIZED

/* ------------------------------------------------------------ opening */

static int open_recorded(int folder, const char *path, int flags, mode_t mode) {
    char buffer[8192];
    pthread_mutex_lock(&lock);
    const char *name = opened_below_root(folder, path, buffer);
    if (name == NULL) {
        pthread_mutex_unlock(&lock);
        return real_open(folder, path, flags, mode);
    }
    struct stat status;
    int is_new = (flags & O_CREAT) && fstatat(folder, path, &status, 0) != 0 && errno == ENOENT;
    uint32_t kind = is_new                            ? IORECORDER_CREATE
                    : (flags & O_ACCMODE) == O_RDONLY ? IORECORDER_OPEN_TO_READ
                                                      : IORECORDER_OPEN;
    int error = enter(kind);
    int fd = -1;
    if (error > 0) errno = error;
    else fd = real_open(folder, path, flags, mode);
    if (fd >= 0 && fd < descriptor_max && fstat(fd, &status) == 0) {
        uint32_t file = file_of(status.st_ino, is_new);
        free(descriptors[fd].path);
        descriptors[fd].file = file;
        descriptors[fd].is_synced = (flags & O_DSYNC) != 0;
        descriptors[fd].is_directory = S_ISDIR(status.st_mode);
        descriptors[fd].path = strdup(name);
        iorecorder_operation_t *operation = append(kind);
        operation->file = file;
        operation->path = strdup(name);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE_ARGUMENT                    \
    mode_t mode = 0;                     \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list arguments;               \
        va_start(arguments, flags);      \
        mode = va_arg(arguments, mode_t); \
        va_end(arguments);               \
    }

int open(const char *path, int flags, ...) {
    MODE_ARGUMENT
    return open_recorded(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    MODE_ARGUMENT
    return open_recorded(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    MODE_ARGUMENT
    return open_recorded(folder, path, flags | O_LARGEFILE, mode);
}

int open64(const char *path, int flags, ...) {
    MODE_ARGUMENT
    return open_recorded(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < descriptor_max && descriptors[fd].file != 0) {
        descriptors[fd].file = 0;
        free(descriptors[fd].path);
        descriptors[fd].path = NULL;
    }
    int code = (int)syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return code;
}

/* ------------------------------------------------------------ bytes */

static ssize_t write_recorded(int fd, const struct iovec *parts, int part_count, off_t offset) {
    pthread_mutex_lock(&lock);
    size_t byte_count = 0;
    for (int i = 0; i < part_count; i++) byte_count += parts[i].iov_len;
    uint8_t *bytes = malloc(byte_count + 1);
    if (bytes == NULL) abort();
    size_t filled = 0;
    for (int i = 0; i < part_count; i++) {
        memcpy(bytes + filled, parts[i].iov_base, parts[i].iov_len);
        filled += parts[i].iov_len;
    }
    int error = enter(IORECORDER_WRITE);
    ssize_t done;
    if (error < 0 && death.is_set && operation_count == death.number) {
        size_t half = byte_count / 2 / 4096 * 4096;
        /* By the parts as they came: O_DIRECT wants the caller's alignment. */
        size_t left = half;
        for (int i = 0; i < part_count && left > 0; i++) {
            size_t count = parts[i].iov_len < left ? parts[i].iov_len : left;
            real_pwrite(fd, parts[i].iov_base, count, offset + (off_t)(half - left));
            left -= count;
        }
        syscall(SYS_kill, getpid(), SIGKILL);
    }
    /* A short write moves something, or its caller would try for ever. */
    size_t landing = plan.landing < byte_count / 2 ? plan.landing : byte_count / 2;
    if (error == 0 && landing == 0) landing = byte_count;
    if (error < 0) {
        done = syscall(SYS_pwritev, fd, parts, part_count, offset, 0);
    } else {
        /* Part of it, through another descriptor if this one wants aligned memory. */
        done = 0;
        char path[64];
        static const char digits[] = "0123456789";
        char number[16];
        int length = 0, value = fd;
        do number[length++] = digits[value % 10];
        while ((value /= 10) > 0);
        memcpy(path, "/proc/self/fd/", 14);
        for (int i = 0; i < length; i++) path[14 + i] = number[length - 1 - i];
        path[14 + length] = 0;
        int plain = landing > 0 ? real_open(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0) : -1;
        if (plain >= 0) {
            done = real_pwrite(plain, bytes, landing, offset);
            syscall(SYS_close, plain);
        }
    }
    if (done > 0) {
        iorecorder_operation_t *operation = append(IORECORDER_WRITE);
        operation->file = descriptors[fd].file;
        operation->offset = (uint64_t)offset;
        operation->byte_count = (uint64_t)done;
        operation->bytes = bytes;
        operation->is_synced = descriptors[fd].is_synced && error < 0;
    } else {
        free(bytes);
    }
    if (error > 0) {
        errno = error;
        done = -1;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    if (!is_ours(fd)) return real_pwrite(fd, bytes, count, offset);
    struct iovec part = {(void *)bytes, count};
    return write_recorded(fd, &part, 1, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return pwrite(fd, bytes, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    if (!is_ours(fd)) return syscall(SYS_pwritev, fd, parts, count, offset, 0);
    return write_recorded(fd, parts, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return pwritev(fd, parts, count, offset);
}

/* At the descriptor's place, which moves along: LMDB seeks and writes pages that lie side by side. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!is_ours(fd)) return syscall(SYS_writev, fd, parts, count);
    off_t place = lseek(fd, 0, SEEK_CUR);
    ssize_t done = write_recorded(fd, parts, count, place);
    if (done > 0) lseek(fd, place + done, SEEK_SET);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (!is_ours(fd)) return syscall(SYS_write, fd, bytes, count);
    struct iovec part = {(void *)bytes, count};
    return writev(fd, &part, 1);
}

/* Reads are not numbered, but wait while everything hangs. */
static void wait_to_read(int fd) {
    pthread_mutex_lock(&lock);
    while (is_hanging && is_ours(fd)) pthread_cond_wait(&released, &lock);
    pthread_mutex_unlock(&lock);
}

ssize_t preadv(int fd, const struct iovec *parts, int count, off_t offset) {
    wait_to_read(fd);
    return syscall(SYS_preadv, fd, parts, count, offset, 0);
}

ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return preadv(fd, parts, count, offset);
}

static int resize_recorded(int fd, uint64_t byte_count, int allocates) {
    pthread_mutex_lock(&lock);
    int error = enter(IORECORDER_RESIZE), code = -1;
    if (error > 0) errno = error;
    else code = (int)(allocates ? syscall(SYS_fallocate, fd, 0, 0L, byte_count) : syscall(SYS_ftruncate, fd, byte_count));
    if (code == 0) {
        iorecorder_operation_t *operation = append(IORECORDER_RESIZE);
        operation->file = descriptors[fd].file;
        operation->byte_count = byte_count;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int ftruncate(int fd, off_t byte_count) {
    if (!is_ours(fd)) return (int)syscall(SYS_ftruncate, fd, byte_count);
    return resize_recorded(fd, (uint64_t)byte_count, 0);
}

int ftruncate64(int fd, off64_t byte_count) { return ftruncate(fd, byte_count); }

int fallocate(int fd, int mode, off_t offset, off_t byte_count) {
    if (!is_ours(fd) || mode != 0) return (int)syscall(SYS_fallocate, fd, mode, offset, byte_count);
    return resize_recorded(fd, (uint64_t)(offset + byte_count), 1);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t byte_count) {
    return fallocate(fd, mode, offset, byte_count);
}

static int sync_recorded(int fd, long call) {
    pthread_mutex_lock(&lock);
    int is_directory = descriptors[fd].is_directory;
    uint32_t kind = is_directory ? IORECORDER_SYNC_DIRECTORY : IORECORDER_SYNC;
    int error = enter(kind), code = -1;
    if (error > 0) errno = error;
    else code = (int)syscall(call, fd);
    if (code == 0) {
        iorecorder_operation_t *operation = append(kind);
        operation->file = descriptors[fd].file;
        if (is_directory) operation->path = strdup(descriptors[fd].path);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int fdatasync(int fd) {
    if (!is_ours(fd)) return (int)syscall(SYS_fdatasync, fd);
    return sync_recorded(fd, SYS_fdatasync);
}

int fsync(int fd) {
    if (!is_ours(fd)) return (int)syscall(SYS_fsync, fd);
    return sync_recorded(fd, SYS_fsync);
}

/* ------------------------------------------------------------ names */

static int change_name(uint32_t kind, int folder, const char *path, const char *new_path, mode_t mode) {
    char buffer[8192], new_buffer[8192];
    pthread_mutex_lock(&lock);
    const char *name = below_root(whole_path(folder, path, buffer));
    int error = name == NULL ? -1 : enter(kind), code = -1;
    if (error > 0) {
        errno = error;
    } else if (kind == IORECORDER_MAKE_DIRECTORY) {
        code = (int)syscall(SYS_mkdirat, folder, path, mode);
    } else if (kind == IORECORDER_RENAME) {
        code = (int)syscall(SYS_renameat2, folder, path, folder, new_path, 0);
    } else {
        code = (int)syscall(SYS_unlinkat, folder, path, (int)mode);
    }
    if (code == 0 && name != NULL) {
        iorecorder_operation_t *operation = append(kind);
        operation->path = strdup(name);
        const char *new_name = below_root(whole_path(folder, new_path, new_buffer));
        if (new_name != NULL) operation->new_path = strdup(new_name);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int mkdir(const char *path, mode_t mode) {
    return change_name(IORECORDER_MAKE_DIRECTORY, AT_FDCWD, path, NULL, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    return change_name(IORECORDER_MAKE_DIRECTORY, folder, path, NULL, mode);
}
int unlink(const char *path) { return change_name(IORECORDER_REMOVE, AT_FDCWD, path, NULL, 0); }
int unlinkat(int folder, const char *path, int flags) {
    return change_name(IORECORDER_REMOVE, folder, path, NULL, (mode_t)flags);
}
int remove(const char *path) {
    int code = unlink(path);
    return code != 0 && errno == EISDIR ? unlinkat(AT_FDCWD, path, AT_REMOVEDIR) : code;
}
int rename(const char *path, const char *new_path) {
    return change_name(IORECORDER_RENAME, AT_FDCWD, path, new_path, 0);
}
/* Within one folder. */
int renameat(int folder, const char *path, int new_folder, const char *new_path) {
    if (folder != new_folder) return (int)syscall(SYS_renameat2, folder, path, new_folder, new_path, 0);
    return change_name(IORECORDER_RENAME, folder, path, new_path, 0);
}

#endif
