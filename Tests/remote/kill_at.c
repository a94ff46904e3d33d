/* Kills its process at a step that a test names: with LD_PRELOAD, and KILL_AT="FUNCTION NUMBER WHEN".
 *
 * FUNCTION is one of those below, NUMBER its call as counted from kill_at_arm on, beginning with 1, WHEN is before, half (half of
 * the bytes are sent or written) or after. kill_at_count tells how many calls there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { connects, sendmsgs, recvmsgs, pwrites, fsyncs, openats, mkdirats, unlinkats, function_count };
static const char *const names[function_count] = {"connect", "sendmsg", "recvmsg", "pwrite", "sync", "openat", "mkdirat", "unlinkat"};

enum when { never, before, half, after };
static _Atomic int is_armed;
static _Atomic long counts[function_count];
static long number;
static int function = -1;
static enum when moment = never;

void kill_at_arm(void) {
    char name[32] = "", when[32] = "";
    const char *text = getenv("KILL_AT");
    if (text != NULL && sscanf(text, "%31s %ld %31s", name, &number, when) == 3) {
        for (int i = 0; i < function_count; i++)
            if (strcmp(name, names[i]) == 0) function = i;
        moment = strcmp(when, "half") == 0 ? half : strcmp(when, "after") == 0 ? after : before;
    }
    is_armed = 1;
}

const char *kill_at_name(int index) { return index < function_count ? names[index] : NULL; }

long kill_at_count(int index) { return counts[index]; }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether this call is the one, and when; dies here if it is before. */
static enum when step(int index) {
    if (!is_armed) return never;
    if (atomic_fetch_add(&counts[index], 1) + 1 != number || index != function) return never;
    if (moment == before) die();
    return moment;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    enum when now = step(connects);
    int result = REAL(connect)(fd, address, length);
    if (now != never) die();
    return result;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    enum when now = step(sendmsgs);
    if (now == half) {
        size_t total = 0, rest;
        for (size_t i = 0; i < message->msg_iovlen; i++) total += message->msg_iov[i].iov_len;
        rest = total / 2;
        for (size_t i = 0; i < message->msg_iovlen && rest > 0; i++) {
            size_t count = message->msg_iov[i].iov_len < rest ? message->msg_iov[i].iov_len : rest;
            ssize_t sent = send(fd, message->msg_iov[i].iov_base, count, MSG_NOSIGNAL);
            if (sent < (ssize_t)count) break;
            rest -= count;
        }
        die();
    }
    ssize_t result = REAL(sendmsg)(fd, message, flags);
    if (now != never) die();
    return result;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    ssize_t result = REAL(recvmsg)(fd, message, flags);
    /* Only what brings something is a step: how often there is nothing yet is chance. */
    if (result > 0 && step(recvmsgs) != never) die();
    return result;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    enum when now = step(pwrites);
    ssize_t result = REAL(pwrite)(fd, bytes, now == half ? count / 2 : count, offset);
    if (now != never) die();
    return result;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    enum when now = step(pwrites);
    ssize_t result = REAL(pwritev)(fd, parts, now == half ? (count + 1) / 2 : count, offset);
    if (now != never) die();
    return result;
}

int fsync(int fd) {
    enum when now = step(fsyncs);
    int result = REAL(fsync)(fd);
    if (now != never) die();
    return result;
}

int fdatasync(int fd) {
    enum when now = step(fsyncs);
    int result = REAL(fdatasync)(fd);
    if (now != never) die();
    return result;
}

int openat(int folder, const char *path, int flags, ...) {
    mode_t mode = 0;
    enum when now = never;
    if (flags & O_CREAT) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
        now = step(openats);
    }
    int result = REAL(openat)(folder, path, flags, mode);
    if (now != never) die();
    return result;
}

int mkdirat(int folder, const char *path, mode_t mode) {
    enum when now = step(mkdirats);
    int result = REAL(mkdirat)(folder, path, mode);
    if (now != never) die();
    return result;
}

int unlinkat(int folder, const char *path, int flags) {
    enum when now = step(unlinkats);
    int result = REAL(unlinkat)(folder, path, flags);
    if (now != never) die();
    return result;
}
