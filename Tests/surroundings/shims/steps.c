/* Preloaded: at the $STEPS_AT-th of the calls of $STEPS_KINDS the process stops, or the call is refused.
 *
 * Kinds: o a file or folder is opened, n a name is made, changed or removed, w a write, a sync, or room that is set
 * aside, r a read, l a lock, m a mapping. $STEPS_DO is "stop", "short" (of reads and writes: a part is done and said to
 * be) or the errno of the refusal; with $STEPS_ALL every call behind it is refused as well. Calls count from
 * steps_arm() on, with $STEPS_ARMED from the start. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static _Atomic int is_armed = -1;
static _Atomic long count, met;

void steps_arm(void) { is_armed = 1; }
void steps_disarm(void) { is_armed = 0; }
/* Calls that were refused. */
long steps_met(void) { return met; }

enum { GO_ON, REFUSED, SHORT };

static int step(char kind) {
    const char *kinds = getenv("STEPS_KINDS"), *what = getenv("STEPS_DO"), *at = getenv("STEPS_AT");
    long now;
    if (is_armed < 0) is_armed = getenv("STEPS_ARMED") != NULL;
    if (!is_armed || kinds == NULL || what == NULL || at == NULL || strchr(kinds, kind) == NULL) return GO_ON;
    now = ++count;
    if (now != atol(at) && !(now > atol(at) && getenv("STEPS_ALL") != NULL)) return GO_ON;
    met++;
    if (strcmp(what, "stop") == 0) {
        raise(SIGSTOP);
        return GO_ON;
    }
    if (strcmp(what, "short") == 0) return SHORT;
    errno = atoi(what);
    return REFUSED;
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define MODE(flags)                        \
    mode_t mode = 0;                       \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest;                      \
        va_start(rest, flags);             \
        mode = va_arg(rest, mode_t);       \
        va_end(rest);                      \
    }
#define OR(kind, refusal) \
    if (step(kind) == REFUSED) return refusal

int open(const char *path, int flags, ...) { REAL(open); MODE(flags) OR('o', -1); return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { REAL(open64); MODE(flags) OR('o', -1); return real(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { REAL(openat); MODE(flags) OR('o', -1); return real(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { REAL(openat64); MODE(flags) OR('o', -1); return real(folder, path, flags, mode); }
FILE *fopen(const char *path, const char *how) { REAL(fopen); OR('o', NULL); return real(path, how); }
DIR *opendir(const char *path) { REAL(opendir); OR('o', NULL); return real(path); }
int dup(int fd) { REAL(dup); OR('o', -1); return real(fd); }
int dup2(int fd, int to) { REAL(dup2); OR('o', -1); return real(fd, to); }

int mkdir(const char *path, mode_t mode) { REAL(mkdir); OR('n', -1); return real(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { REAL(mkdirat); OR('n', -1); return real(folder, path, mode); }
int unlink(const char *path) { REAL(unlink); OR('n', -1); return real(path); }
int unlinkat(int folder, const char *path, int flags) { REAL(unlinkat); OR('n', -1); return real(folder, path, flags); }
int renameat(int folder, const char *path, int to_folder, const char *to) { REAL(renameat); OR('n', -1); return real(folder, path, to_folder, to); }
int linkat(int folder, const char *path, int to_folder, const char *to, int flags) { REAL(linkat); OR('n', -1); return real(folder, path, to_folder, to, flags); }
int symlink(const char *path, const char *to) { REAL(symlink); OR('n', -1); return real(path, to); }
int symlinkat(const char *path, int folder, const char *to) { REAL(symlinkat); OR('n', -1); return real(path, folder, to); }

static size_t part(size_t size) { return size > 4096 ? size / 2 & ~(size_t)4095 : size / 2; }

#define MOVED(kind, size)           \
    switch (step(kind)) {           \
    case REFUSED: return -1;        \
    case SHORT: size = part(size); break; \
    default: break;                 \
    }

ssize_t pread(int fd, void *to, size_t size, off_t at) { REAL(pread); MOVED('r', size) return real(fd, to, size, at); }
ssize_t pread64(int fd, void *to, size_t size, off64_t at) { REAL(pread64); MOVED('r', size) return real(fd, to, size, at); }
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { REAL(pwrite); MOVED('w', size) return real(fd, from, size, at); }
ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) { REAL(pwrite64); MOVED('w', size) return real(fd, from, size, at); }

static int is_file(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

ssize_t read(int fd, void *to, size_t size) {
    REAL(read);
    if (is_file(fd)) MOVED('r', size)
    return real(fd, to, size);
}
ssize_t write(int fd, const void *from, size_t size) {
    REAL(write);
    if (is_file(fd)) MOVED('w', size)
    return real(fd, from, size);
}

/* Of several parts the first one comes, or half of an only one. */
#define PARTS(kind, name)                                           \
    REAL(name);                                                     \
    struct iovec first;                                             \
    switch (step(kind)) {                                           \
    case REFUSED: return -1;                                        \
    case SHORT:                                                     \
        first = parts[0];                                           \
        if (count_ == 1) first.iov_len = part(first.iov_len);       \
        return real(fd, &first, 1, at);                             \
    default: return real(fd, parts, count_, at);                    \
    }

ssize_t preadv(int fd, const struct iovec *parts, int count_, off_t at) { PARTS('r', preadv) }
ssize_t preadv64(int fd, const struct iovec *parts, int count_, off64_t at) { PARTS('r', preadv64) }
ssize_t pwritev(int fd, const struct iovec *parts, int count_, off_t at) { PARTS('w', pwritev) }
ssize_t pwritev64(int fd, const struct iovec *parts, int count_, off64_t at) { PARTS('w', pwritev64) }

int fsync(int fd) { REAL(fsync); OR('w', -1); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); OR('w', -1); return real(fd); }
int msync(void *at, size_t size, int flags) { REAL(msync); OR('w', -1); return real(at, size, flags); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); OR('w', -1); return real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); OR('w', -1); return real(fd, size); }
int fallocate(int fd, int mode, off_t at, off_t size) { REAL(fallocate); OR('w', -1); return real(fd, mode, at, size); }
int fallocate64(int fd, int mode, off64_t at, off64_t size) { REAL(fallocate64); OR('w', -1); return real(fd, mode, at, size); }

static int control(int (*real)(int, int, ...), int fd, int command, void *argument) {
    switch (command) {
    case F_SETLK: case F_SETLKW: case F_GETLK: case F_OFD_SETLK: case F_OFD_SETLKW: case F_OFD_GETLK: OR('l', -1); break;
    case F_DUPFD: case F_DUPFD_CLOEXEC: OR('o', -1); break;
    default: break;
    }
    return real(fd, command, argument);
}
#define ARGUMENT(command)              \
    void *argument;                    \
    va_list rest;                      \
    va_start(rest, command);           \
    argument = va_arg(rest, void *);   \
    va_end(rest);

int fcntl(int fd, int command, ...) { REAL(fcntl); ARGUMENT(command) return control(real, fd, command, argument); }
int fcntl64(int fd, int command, ...) { REAL(fcntl64); ARGUMENT(command) return control(real, fd, command, argument); }
int flock(int fd, int how) { REAL(flock); OR('l', -1); return real(fd, how); }

void *mmap(void *at, size_t size, int access, int flags, int fd, off_t offset) { REAL(mmap); OR('m', MAP_FAILED); return real(at, size, access, flags, fd, offset); }
void *mmap64(void *at, size_t size, int access, int flags, int fd, off64_t offset) { REAL(mmap64); OR('m', MAP_FAILED); return real(at, size, access, flags, fd, offset); }
