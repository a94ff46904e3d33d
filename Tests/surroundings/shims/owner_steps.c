/* Stops a process at steps around the files in owners/, as if it were preempted there: for as long as $STEPS/STEP.wait exists, once it
 * has said by $STEPS/STEP.here that it is there.
 *
 * `list` is the second look at the folder, before its names are read; `lock` is the locking of the process's own file, after it was made. */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void stop_at(const char *step) {
    const char *folder = getenv("STEPS");
    char path[4096];
    int fd;
    if (folder == NULL) return;
    snprintf(path, sizeof path, "%s/%s.wait", folder, step);
    if (access(path, F_OK) != 0) return;
    snprintf(path, sizeof path, "%s/%s.here", folder, step);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0) close(fd);
    snprintf(path, sizeof path, "%s/%s.wait", folder, step);
    while (access(path, F_OK) == 0) usleep(1000);
}

static int ends_in(int fd, const char *end) {
    char link[64], path[4096];
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < (ssize_t)strlen(end)) return 0;
    path[length] = '\0';
    return strcmp(path + length - strlen(end), end) == 0;
}

static DIR *listed(DIR *directory) {
    static int count;
    if (directory != NULL && ends_in(dirfd(directory), "/owners") && ++count == 2) stop_at("list");
    return directory;
}

DIR *opendir(const char *name) {
    DIR *(*real)(const char *) = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    return listed(real(name));
}

DIR *fdopendir(int fd) {
    DIR *(*real)(int) = (DIR * (*)(int)) dlsym(RTLD_NEXT, "fdopendir");
    return listed(real(fd));
}

static int control(const char *name, int fd, int command, void *argument) {
    int (*real)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, name);
    if (command == F_SETLK && ends_in(fd, ".lock") && !ends_in(fd, "opening.lock")) stop_at("lock");
    return real(fd, command, argument);
}

int fcntl(int fd, int command, ...) {
    va_list list;
    void *argument;
    va_start(list, command);
    argument = va_arg(list, void *);
    va_end(list);
    return control("fcntl", fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
    va_list list;
    void *argument;
    va_start(list, command);
    argument = va_arg(list, void *);
    va_end(list);
    return control("fcntl64", fd, command, argument);
}
