/* For cases about a store's files. */
#ifndef KVSTORE_TESTS_FOLDER_H
#define KVSTORE_TESTS_FOLDER_H

#include "harness.h"

/* A closed store with these prompts of shape_large, 4 blocks each; and that it still has them. */
void make_store(const char *path, uint64_t first, uint64_t count);
void check_store(const char *path, uint64_t first, uint64_t count);

/* Processes that are started in between run with shims/NAME.c preloaded. */
void run_with_shim(const char *name);
void run_without_shim(void);

#endif
