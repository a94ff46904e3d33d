/* Threads that do random operations on one store; whatever comes back must be the right bytes. */
#ifndef KVSTORE_TESTS_WORKER_H
#define KVSTORE_TESTS_WORKER_H

#include "harness.h"

#include <pthread.h>

/* Of the prompts that workers move. */
#define PROMPT_BLOCKS 8
#define PROMPT_TOKENS (PROMPT_BLOCKS * 16)

typedef struct {
    kvstore_t *store;
    kvstore_namespace_t *ns;
    shape_t shape;
    int number;       /* what a worker does follows from it */
    uint64_t prompts; /* operations go over this many prompts, which all workers share */
    bool may_close;   /* another thread closes the handles meanwhile */
    uint64_t operations;
    pthread_t thread;
} worker_t;

/* Starts `count` workers like this one, numbered from its number on. Where it has no namespace, each opens a handle of its own. */
void workers_start(worker_t *workers, int count, const worker_t *like);
void workers_join(worker_t *workers, int count);

#endif
