/* Containers: processes that do not share a PID namespace, /dev/shm, /proc or a writable mount with those that have the store open. */
#include "folder.h"
#include "surroundings.h"

#include <dlfcn.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

/* Opens the store as it is told, and says what came of it and, refused, whether the message names the remedy. */
static int role_newcomer(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    kvstore_status_t status;
    (void)argc;
    small_config(&config, argv[0]);
    if (argv[1][0] == 'r' && argv[1][1] == 'o') config.flags |= KVSTORE_OPEN_READ_ONLY;
    status = kvstore_open(&config, &store);
    if (status == KVSTORE_OK) {
        close_store(store);
        return 1;
    }
    CHECK_STATUS(status, KVSTORE_E_LOCKED);
    return strstr(kvstore_last_error_message(), argv[1] + 3) != NULL ? 2 : 3;
}

#define OPENS 1
#define REFUSED 2

/* `how`: "rw" or "ro", a colon, and what a refusal's message holds. */
static int newcomer(const char *path, const char *how) { return wait_for(spawn_role("newcomer", path, how, NULL)); }

/* From here on processes that are started are in a PID namespace of their own. */
static void own_processes(void) {
    if (unshare(CLONE_NEWPID) != 0) skip("needs root, with a PID namespace of its own");
    /* The first one is its init: the namespace ends with it. */
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause();
        _exit(0);
    }
}

static void hide_proc(void) {
    own_mounts();
    if (mount("none", "/proc", "tmpfs", 0, NULL) != 0) skip("tmpfs cannot be mounted");
}

static void without_proc(const char *held) {
    char *path = path_in_dir("store");
    holder_t holder;
    make_store(path, 1, 1);
    hide_proc();
    holder = holder_start(path, held);
    CHECK_EQ(holder.opened, KVSTORE_OK);
    CHECK_EQ(newcomer(path, "rw:"), OPENS);
    CHECK_EQ(newcomer(path, "ro:"), OPENS);
    own_processes();
    if (strcmp(held, "rw") == 0) {
        CHECK_EQ(newcomer(path, "rw:--pid=container:NAME"), REFUSED);
        CHECK_EQ(newcomer(path, "ro:shareProcessNamespace"), REFUSED);
    } else {
        /* What is locked does not say which of the two it is. */
        CHECK_EQ(newcomer(path, "rw:container:NAME"), REFUSED);
    }
    holder_end(&holder);
    CHECK_EQ(newcomer(path, "rw:"), OPENS);
}

static void without_proc_a_writer_is_seen(void) { without_proc("rw"); }
static void without_proc_a_reader_is_seen(void) { without_proc("ro"); }

/* The store's folder a second time, for reading only. */
static char *bind_read_only(const char *path) {
    char *other = path_in_dir("read-only");
    CHECK(mkdir(other, 0700) == 0);
    if (mount(path, other, NULL, MS_BIND, NULL) != 0 ||
        mount(NULL, other, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) != 0)
        skip("no bind mounts");
    return other;
}

/* As with a volume that is mounted read-only: with the same /dev/shm it reads beside the server, with another one it is refused. */
static void a_read_only_mount_of_a_live_store(void) {
    char *path = path_in_dir("store"), *other;
    holder_t holder, reader;
    make_store(path, 1, 1);
    own_mounts();
    other = bind_read_only(path);
    holder = holder_start(path, "rw");
    CHECK_EQ(holder.opened, KVSTORE_OK);
    reader = holder_start(other, "ro");
    CHECK_EQ(reader.opened, KVSTORE_OK);
    CHECK_EQ(newcomer(path, "rw:"), OPENS);
    holder_end(&reader);
    holder_end(&holder);
    holder = holder_start(path, "rw");
    own_mounts();
    CHECK(mount("none", "/dev/shm", "tmpfs", 0, NULL) == 0);
    CHECK_EQ(newcomer(other, "ro:--ipc=container:NAME"), REFUSED);
    holder_end(&holder);
    CHECK_EQ(newcomer(other, "ro:"), OPENS);
}

/* Nor has it a /dev/shm: nobody would know of LMDB's reader. So it does not read beside a writer, and no writer comes beside it. */
static void a_read_only_mount_without_shared_memory(void) {
    char *path = path_in_dir("store"), *other, *disk = path_in_dir("disk");
    holder_t holder, reader;
    make_store(path, 1, 1);
    own_mounts();
    other = bind_read_only(path);
    holder = holder_start(path, "rw");
    CHECK_EQ(holder.opened, KVSTORE_OK);
    CHECK(mkdir(disk, 0700) == 0);
    CHECK(mount(disk, "/dev/shm", NULL, MS_BIND, NULL) == 0);
    CHECK_EQ(newcomer(other, "ro:--ipc=container:NAME"), REFUSED);
    CHECK(umount("/dev/shm") == 0);
    holder_end(&holder);
    CHECK(mount(disk, "/dev/shm", NULL, MS_BIND, NULL) == 0);
    reader = holder_start(other, "ro");
    CHECK_EQ(reader.opened, KVSTORE_OK);
    CHECK_EQ(newcomer(other, "ro:"), OPENS);
    CHECK(umount("/dev/shm") == 0);
    CHECK_EQ(newcomer(path, "rw:--ipc=container:NAME"), REFUSED);
    holder_end(&reader);
    CHECK_EQ(newcomer(path, "rw:"), OPENS);
}

typedef kvstore_status_t (*open_call_t)(const kvstore_config_t *, kvstore_t **);
typedef kvstore_status_t (*close_call_t)(kvstore_t *);

/* An adapter brings a library of its own along: it is not the process's. */
static void a_second_copy_of_the_library(void) {
    char *path = path_in_dir("store"), *copy = path_in_dir("copy.so");
    kvstore_config_t config;
    kvstore_t *store, *other = NULL;
    void *library;
    open_call_t open_call;
    Dl_info information;
    if (dladdr((void *)(intptr_t)kvstore_open, &information) == 0 || strstr(information.dli_fname, ".so") == NULL)
        skip("the library is not shared");
    CHECK_EQ(run_shell("cp '%s' '%s'", information.dli_fname, copy), 0);
    library = dlopen(copy, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    open_call = (open_call_t)(intptr_t)dlsym(library, "kvstore_open");
    small_config(&config, path);
    store = open_store(&config);
    CHECK_EQ(owner_count(path), 1);
    CHECK_EQ(open_call(&config, &other), KVSTORE_E_LOCKED);
    CHECK(other == NULL);
    CHECK_EQ(owner_count(path), 1);
    CHECK_EQ(newcomer(path, "rw:"), OPENS);
    close_store(store);
    CHECK_EQ(open_call(&config, &other), KVSTORE_OK);
    CHECK_EQ(((close_call_t)(intptr_t)dlsym(library, "kvstore_close"))(other), KVSTORE_OK);
}

const test_case_t container_cases[] = {
    {"a_second_copy_of_the_library", a_second_copy_of_the_library},
    {"without_proc_a_writer_is_seen", without_proc_a_writer_is_seen},
    {"without_proc_a_reader_is_seen", without_proc_a_reader_is_seen},
    {"a_read_only_mount_of_a_live_store", a_read_only_mount_of_a_live_store},
    {"a_read_only_mount_without_shared_memory", a_read_only_mount_without_shared_memory},
    {NULL, NULL},
};

const child_role_t container_roles[] = {{"newcomer", role_newcomer}, {NULL, NULL}};
