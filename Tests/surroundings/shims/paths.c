/* Counts calls that name a file by a path that depends on more than a folder's descriptor. What begins with /proc/self/fd/N does not,
 * and /proc, /sys and /dev are no store's. */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>

static _Atomic uint64_t count;
static char last[4096];

uint64_t paths_count(void) { return count; }
char *paths_last(void) { return last; }

static void look(int folder, const char *path) {
    if (path == NULL) return;
    if (strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/sys/", 5) == 0 || strncmp(path, "/dev/", 5) == 0) return;
    if (path[0] != '/' && folder != AT_FDCWD) return;
    count++;
    snprintf(last, sizeof last, "%s", path);
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define MODE(flags)                      \
    mode_t mode = 0;                     \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest;                    \
        va_start(rest, flags);           \
        mode = va_arg(rest, mode_t);     \
        va_end(rest);                    \
    }

int open(const char *path, int flags, ...) { REAL(open); MODE(flags) look(AT_FDCWD, path); return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { REAL(open64); MODE(flags) look(AT_FDCWD, path); return real(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { REAL(openat); MODE(flags) look(folder, path); return real(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { REAL(openat64); MODE(flags) look(folder, path); return real(folder, path, flags, mode); }
FILE *fopen(const char *path, const char *mode) { REAL(fopen); look(AT_FDCWD, path); return real(path, mode); }
FILE *fopen64(const char *path, const char *mode) { REAL(fopen64); look(AT_FDCWD, path); return real(path, mode); }
DIR *opendir(const char *path) { REAL(opendir); look(AT_FDCWD, path); return real(path); }
int stat(const char *path, struct stat *status) { REAL(stat); look(AT_FDCWD, path); return real(path, status); }
int stat64(const char *path, struct stat64 *status) { REAL(stat64); look(AT_FDCWD, path); return real(path, status); }
int lstat(const char *path, struct stat *status) { REAL(lstat); look(AT_FDCWD, path); return real(path, status); }
int lstat64(const char *path, struct stat64 *status) { REAL(lstat64); look(AT_FDCWD, path); return real(path, status); }
int fstatat(int folder, const char *path, struct stat *status, int flags) { REAL(fstatat); look(folder, path); return real(folder, path, status, flags); }
int statvfs(const char *path, struct statvfs *status) { REAL(statvfs); look(AT_FDCWD, path); return real(path, status); }
int access(const char *path, int mode) { REAL(access); look(AT_FDCWD, path); return real(path, mode); }
int faccessat(int folder, const char *path, int mode, int flags) { REAL(faccessat); look(folder, path); return real(folder, path, mode, flags); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); look(AT_FDCWD, path); return real(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { REAL(mkdirat); look(folder, path); return real(folder, path, mode); }
int unlink(const char *path) { REAL(unlink); look(AT_FDCWD, path); return real(path); }
int unlinkat(int folder, const char *path, int flags) { REAL(unlinkat); look(folder, path); return real(folder, path, flags); }
int remove(const char *path) { REAL(remove); look(AT_FDCWD, path); return real(path); }
int rename(const char *path, const char *to) { REAL(rename); look(AT_FDCWD, path); return real(path, to); }
int renameat(int folder, const char *path, int to_folder, const char *to) { REAL(renameat); look(folder, path); look(to_folder, to); return real(folder, path, to_folder, to); }
int link(const char *path, const char *to) { REAL(link); look(AT_FDCWD, path); return real(path, to); }
int symlink(const char *target, const char *path) { REAL(symlink); look(AT_FDCWD, path); return real(target, path); }
int truncate(const char *path, off_t length) { REAL(truncate); look(AT_FDCWD, path); return real(path, length); }
int chmod(const char *path, mode_t mode) { REAL(chmod); look(AT_FDCWD, path); return real(path, mode); }
char *realpath(const char *path, char *resolved) { REAL(realpath); look(AT_FDCWD, path); return real(path, resolved); }
