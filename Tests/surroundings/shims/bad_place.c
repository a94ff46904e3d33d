/* Preloaded: of slot files, the page at byte $BAD_PLACE cannot be written. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_bad(int fd, const struct iovec *parts, int count, off_t at) {
    char link[64], path[4096];
    const char *place = getenv("BAD_PLACE");
    ssize_t length;
    off_t size = 0;
    int i;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (place == NULL || length < 0) return 0;
    path[length] = '\0';
    for (i = 0; i < count; i++) size += (off_t)parts[i].iov_len;
    return strstr(path, "/slots/") != NULL && at <= atoll(place) && atoll(place) < at + size;
}

#define REFUSE(name)                                                                             \
    __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);                        \
    if (is_bad(fd, parts, count, at)) {                                                          \
        errno = EIO;                                                                             \
        return -1;                                                                               \
    }                                                                                            \
    return real(fd, parts, count, at);

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { REFUSE(pwritev) }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { REFUSE(pwritev64) }
