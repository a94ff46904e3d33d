/* Stops the process before its $STOP_AT_STEP-th step: a file that is opened to be written or made, a name that changes, a sync;
 * with $STOP_AT_RENAME before its first rename. */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static void step(void) {
    static _Atomic long count;
    const char *at = getenv("STOP_AT_STEP");
    if (at != NULL && ++count == atol(at)) raise(SIGSTOP);
}

static void stop_at_rename(void) {
    static _Atomic int isDone;
    if (getenv("STOP_AT_RENAME") != NULL && !isDone++) raise(SIGSTOP);
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define MODE(flags)                        \
    mode_t mode = 0;                       \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest;                      \
        va_start(rest, flags);             \
        mode = va_arg(rest, mode_t);       \
        va_end(rest);                      \
    }                                      \
    if (((flags) & O_ACCMODE) != O_RDONLY) step();

int open(const char *path, int flags, ...) { REAL(open); MODE(flags) return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { REAL(open64); MODE(flags) return real(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { REAL(openat); MODE(flags) return real(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { REAL(openat64); MODE(flags) return real(folder, path, flags, mode); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); step(); return real(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { REAL(mkdirat); step(); return real(folder, path, mode); }
int rename(const char *path, const char *to) { REAL(rename); stop_at_rename(); step(); return real(path, to); }
int unlinkat(int folder, const char *path, int flags) { REAL(unlinkat); step(); return real(folder, path, flags); }
int renameat(int folder, const char *path, int to_folder, const char *to) { REAL(renameat); stop_at_rename(); step(); return real(folder, path, to_folder, to); }
int fsync(int fd) { REAL(fsync); step(); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); step(); return real(fd); }
