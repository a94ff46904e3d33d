#include "surroundings.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

void own_mounts(void) {
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        skip("needs root, with mounts of its own");
}

int run_shell(const char *format, ...) {
    char line[8192];
    int status;
    va_list list;
    va_start(list, format);
    CHECK((size_t)vsnprintf(line, sizeof line, format, list) < sizeof line);
    va_end(list);
    fflush(NULL);
    status = system(line);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

char *path_in(const char *folder, const char *name) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = (char *)must_malloc(size);
    snprintf(path, size, "%s/%s", folder, name);
    return path;
}

char *mount_fresh(const char *kind, const char *name, unsigned mebibytes) {
    char *path = path_in_dir(name);
    own_mounts();
    CHECK(mkdir(path, 0700) == 0);
    if (strcmp(kind, "tmpfs") == 0) {
        if (run_shell("mount -t tmpfs -o size=%um none '%s' 2> '%s.log'", mebibytes, path, path) != 0)
            skip("tmpfs cannot be mounted");
        return path;
    }
    if (run_shell("PATH=$PATH:/sbin:/usr/sbin; truncate -s %uM '%s.image' && mkfs.%s -q '%s.image' > '%s.log' 2>&1"
                  " && mount -o loop '%s.image' '%s' 2>> '%s.log'",
                  mebibytes, path, kind, path, path, path, path, path) != 0)
        skip("no loop device, or no tools for this file system");
    return path;
}

void fill_up(const char *folder) {
    /* Coarsely, then finely. */
    (void)run_shell("dd if=/dev/zero of='%s/fill' bs=64k 2> /dev/null; dd if=/dev/zero of='%s/fill2' bs=512 2> /dev/null;"
                    " sync -f '%s'",
                    folder, folder, folder);
}

void make_file(const char *path) {
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
}

bool file_exists(const char *path) { return access(path, F_OK) == 0; }

/* The case's alarm ends it. */
void await_file(const char *path) {
    while (!file_exists(path)) sleep_milliseconds(2);
}

/* ---------------------------------------------------------------- a second process */

static int role_holder(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    kvstore_status_t status;
    char *end = path_in_dir("holder.end");
    (void)argc;
    small_config(&config, argv[0]);
    if (strcmp(argv[1], "ro") == 0) config.flags |= KVSTORE_OPEN_READ_ONLY;
    status = kvstore_open(&config, &store);
    if (status != KVSTORE_OK) fprintf(stderr, "%s\n", kvstore_last_error_message());
    printf("%d\n", (int)status);
    fflush(stdout);
    if (status != KVSTORE_OK) return 0;
    await_file(end);
    close_store(store);
    return 0;
}

holder_t holder_start(const char *path, const char *how) {
    holder_t holder;
    char line[32] = "";
    int out;
    FILE *answers;
    holder.pid = spawn_role("holder", path, how, &out);
    answers = fdopen(out, "r");
    CHECK(answers != NULL && fgets(line, sizeof line, answers) != NULL);
    holder.opened = (kvstore_status_t)atoi(line);
    fclose(answers);
    if (holder.opened != KVSTORE_OK) CHECK_EQ(wait_for(holder.pid), 0);
    return holder;
}

void holder_end(holder_t *holder) {
    char *end = path_in_dir("holder.end");
    make_file(end);
    CHECK_EQ(wait_for(holder->pid), 0);
    CHECK(unlink(end) == 0);
}

/* ---------------------------------------------------------------- owners */

static unsigned long look_at_owners(const char *store, int *count) {
    DIR *directory = opendir(path_in(store, "owners"));
    struct dirent *entry;
    unsigned long largest = 0;
    CHECK(directory != NULL);
    *count = 0;
    while ((entry = readdir(directory)) != NULL) {
        char *end;
        unsigned long number = strtoul(entry->d_name, &end, 16);
        if (end == entry->d_name || strcmp(end, ".lock") != 0) continue;
        *count += 1;
        if (number > largest) largest = number;
    }
    closedir(directory);
    return largest;
}

int owner_count(const char *store) {
    int count;
    (void)look_at_owners(store, &count);
    return count;
}

unsigned long owner_number(const char *store) {
    int count;
    return look_at_owners(store, &count);
}

const child_role_t surroundings_roles[] = {{"holder", role_holder}, {NULL, NULL}};
