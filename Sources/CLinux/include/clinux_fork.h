/* Tells a process from its forked children, where threads and LMDB state are gone. */
#ifndef CLINUX_FORK_H
#define CLINUX_FORK_H

#include <stdint.h>

extern uint64_t clinux_fork_count;

/* From now on forks are counted. */
void clinux_fork_watch(void);

/* The number of forks between this process and the one that first called clinux_fork_watch. One load: every call of the C interface asks. */
static inline uint64_t clinux_fork_generation(void) { return clinux_fork_count; }

#endif
