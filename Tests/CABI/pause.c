/* Our own preadv and fdatasync come before libc's, for the library too: the dynamic linker looks in the program first. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pause.h"
#include "harness.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static const char *obeyed_folder = NULL;

static void name_of(char *path, size_t size, const char *folder, const char *prefix, const char *where) {
    if ((size_t)snprintf(path, size, "%s/%s-%s", folder, prefix, where) >= size) abort();
}

static void touch_file(const char *path) {
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    close(fd);
}

/* Whether the file behind fd is the one that `where` is about. */
static bool is_about(int fd, const char *where) {
    char link[64], path[4096];
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0) return false;
    path[length] = '\0';
    return strstr(path, strcmp(where, PAUSE_READ) == 0 ? "/slots/" : "/catalog.mdb") != NULL;
}

static void obey(int fd, const char *where) {
    char order[4096], held[4096];
    if (obeyed_folder == NULL) return;
    name_of(order, sizeof order, obeyed_folder, "pause", where);
    if (access(order, F_OK) != 0 || !is_about(fd, where)) return;
    name_of(held, sizeof held, obeyed_folder, "held", where);
    touch_file(held);
    while (access(order, F_OK) == 0) usleep(1000);
}

void pause_in(const char *folder) { obeyed_folder = folder; }

void pause_order(const char *folder, const char *where) {
    char order[4096], held[4096];
    name_of(held, sizeof held, folder, "held", where);
    (void)unlink(held);
    name_of(order, sizeof order, folder, "pause", where);
    touch_file(order);
}

void pause_wait(const char *folder, const char *where) {
    char held[4096];
    name_of(held, sizeof held, folder, "held", where);
    while (access(held, F_OK) != 0) usleep(1000); /* the case's alarm ends it */
}

void pause_end(const char *folder, const char *where) {
    char order[4096];
    name_of(order, sizeof order, folder, "pause", where);
    if (unlink(order) != 0) abort();
}

#ifdef __cplusplus
extern "C" {
#endif

ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t offset) {
    obey(fd, PAUSE_READ);
    /* The kernel takes the offset in two halves; on a 64-bit machine the first holds all of it. */
    return (ssize_t)syscall(SYS_preadv, fd, parts, count, (long)offset, 0L);
}

ssize_t preadv(int fd, const struct iovec *parts, int count, off_t offset) {
    return preadv64(fd, parts, count, (off64_t)offset);
}

int fdatasync(int fd) {
    obey(fd, PAUSE_COMMIT);
    return (int)syscall(SYS_fdatasync, fd);
}

#ifdef __cplusplus
}
#endif
