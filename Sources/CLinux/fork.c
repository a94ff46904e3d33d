#include "clinux_fork.h"

#include <pthread.h>

/* Written in a child only, before it has a second thread. */
uint64_t clinux_fork_count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void in_child(void) { clinux_fork_count += 1; }
static void install(void) { pthread_atfork(0, 0, in_child); }

void clinux_fork_watch(void) { pthread_once(&once, install); }
