#ifndef IORECORDER_H
#define IORECORDER_H

/* Records, fails, delays or dies at what this process does to files: its own definitions of open, pwrite, fdatasync and
 * their kin take the place of libc's in the program that links this, also for the calls of LMDB. Only files below one
 * folder are looked at. Every change of the file system is numbered, from 0 on: a crash test dies at each number. */

#include <stddef.h>
#include <stdint.h>

enum {
    IORECORDER_WRITE = 1,
    IORECORDER_RESIZE = 2,         /* ftruncate or fallocate: `byte_count` is the new size */
    IORECORDER_SYNC = 3,           /* of a file's bytes */
    IORECORDER_SYNC_DIRECTORY = 4, /* of a folder's entries */
    IORECORDER_CREATE = 5,
    IORECORDER_MAKE_DIRECTORY = 6,
    IORECORDER_REMOVE = 7,
    IORECORDER_RENAME = 8,
    IORECORDER_OPEN = 9, /* of a file that is there, for writing: changes nothing, but can fail */
    IORECORDER_OPEN_TO_READ = 10,
};

typedef struct {
    uint32_t kind;
    uint32_t file; /* the file as such, whatever its name; of folders 0 */
    uint64_t offset;
    uint64_t byte_count;
    const uint8_t *bytes; /* of a write */
    uint32_t is_synced;   /* a write that was durable when it returned (O_DSYNC) */
    const char *path;     /* below the recorded folder; of a write or sync NULL */
    const char *new_path; /* of a rename */
} iorecorder_operation_t;

/* 0 in builds with a sanitizer, which has its own definitions of these functions. */
int iorecorder_is_available(void);

/* Forgets what was recorded and begins again, with the files below `folder`. */
void iorecorder_start(const char *folder);
void iorecorder_stop(void);
size_t iorecorder_count(void);
const iorecorder_operation_t *iorecorder_operation(size_t number);

/* From operation `number` on, `count` operations whose kind is in `kinds` (1 << IORECORDER_...) fail. A failing write
 * lands its first `landing_byte_count` bytes; with error 0 it is a short write that says so. */
void iorecorder_fail(size_t number, size_t count, uint32_t kinds, int error, size_t landing_byte_count);
/* How many operations the last plan made fail. */
size_t iorecorder_failure_count(void);

/* SIGKILL in place of operation `number`; half of it, to the page, lands if it is a write and `lands_half`. */
void iorecorder_die(size_t number, int lands_half);

/* From now on every operation, and every read, waits, until it is called with 0. */
void iorecorder_hang(int hangs);

/* Copies what is written of a file, holes left out; one that is not there is an empty one. 0, or an errno. */
int iorecorder_copy(const char *path, const char *new_path);

/* On a signal that ends the process, this text is written to standard error first. Copied. */
void iorecorder_set_label(const char *text);

#endif
