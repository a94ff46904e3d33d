/* Tells a process from its forked children, where threads and LMDB state are gone. */
#ifndef CLINUX_FORK_H
#define CLINUX_FORK_H

#include <stdint.h>

/* The number of forks between this process and the one that first called this. Cheap: no system call. */
uint64_t clinux_fork_generation(void);

#endif
