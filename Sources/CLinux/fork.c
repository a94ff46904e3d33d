#include "clinux_fork.h"

#include <pthread.h>

static uint64_t generation;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void in_child(void) { generation += 1; }
static void install(void) { pthread_atfork(0, 0, in_child); }

uint64_t clinux_fork_generation(void) {
    pthread_once(&once, install);
    return generation;
}
