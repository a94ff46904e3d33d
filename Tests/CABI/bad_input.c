#include "bad_input.h"

void bad_sizes(size_t size, uint32_t sizes[BAD_SIZE_COUNT]) {
    sizes[0] = 0;
    sizes[1] = 3;
    sizes[2] = 4;
    sizes[3] = (uint32_t)size - 1;
    sizes[4] = 1u << 20;
    sizes[5] = UINT32_MAX;
}

void *later(later_t *memory, const void *ours, size_t size, unsigned char tail) {
    uint32_t later_size = (uint32_t)(size + LATER_BYTES);
    memset(memory->bytes, tail, sizeof memory->bytes);
    memcpy(memory->bytes, ours, size);
    memcpy(memory->bytes, &later_size, sizeof later_size);
    return memory->bytes;
}
