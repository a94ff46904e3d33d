/* Structs of sizes that never were, and of versions that are not yet. */
#ifndef KVSTORE_TESTS_BAD_INPUT_H
#define KVSTORE_TESTS_BAD_INPUT_H

#include "harness.h"

/* Sizes that no version of a struct of `size` bytes ever had. */
#define BAD_SIZE_COUNT 6
void bad_sizes(size_t size, uint32_t sizes[BAD_SIZE_COUNT]);

/* A struct of a later version: longer than ours, with a tail that we know nothing of. */
#define LATER_BYTES 64
typedef union {
    unsigned char bytes[1024];
    uint64_t align;
} later_t;

void *later(later_t *memory, const void *ours, size_t size, unsigned char tail);

#endif
