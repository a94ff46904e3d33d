/* What the cases of this folder share. */
#ifndef KVSTORE_TESTS_SURROUNDINGS_H
#define KVSTORE_TESTS_SURROUNDINGS_H

#include "harness.h"

/* Gives the case's process mounts of its own, which go with it; skips the case where that is not allowed. */
void own_mounts(void);
/* Mounts a fresh file system of `kind` (ext4, xfs, btrfs; tmpfs) and `mebibytes` at test_dir/NAME and returns that path; skips the
 * case without the tools. */
char *mount_fresh(const char *kind, const char *name, unsigned mebibytes);
/* Writes a file there until nothing more fits. */
void fill_up(const char *folder);

/* Runs a shell command line; its exit status, or 128 + signal. */
int run_shell(const char *format, ...);

char *path_in(const char *folder, const char *name);
void make_file(const char *path);
bool file_exists(const char *path);
void await_file(const char *path);

/* A process that opens the store at `path` as it is told ("rw", "ro") and closes it at `holder_end`. */
typedef struct {
    int pid;
    kvstore_status_t opened;
} holder_t;
holder_t holder_start(const char *path, const char *how);
void holder_end(holder_t *holder);

/* Owners' files that a store has. */
int owner_count(const char *store);
/* The largest number among them. */
unsigned long owner_number(const char *store);

extern const child_role_t surroundings_roles[];

#endif
