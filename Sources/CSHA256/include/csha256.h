/* SHA-256 by the processor's own instructions, where it has them. */
#ifndef CSHA256_H
#define CSHA256_H

#include <stddef.h>
#include <stdint.h>

/* Takes chunks of 64 bytes into a state of FIPS 180-4. Returns 0, and does nothing, where there are no such instructions. */
int csha256_compress(uint32_t state[8], const void *chunks, size_t chunk_count);

#endif
