/* Random numbers, memory with an inaccessible page behind it, and payloads that say what they are. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t mix(uint64_t x) { /* splitmix64's finaliser (Steele, Lea, Flood 2014) */
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

uint64_t below(fuzzer_t *fuzzer, uint64_t bound) {
    fuzzer->random = mix(fuzzer->random);
    return fuzzer->random % bound;
}

bool one_in(fuzzer_t *fuzzer, uint64_t bound) { return below(fuzzer, bound) == 0; }

uint64_t wild_number(fuzzer_t *fuzzer) {
    uint64_t near = (uint64_t)1 << below(fuzzer, 64);
    switch (below(fuzzer, 5)) {
    case 0: return below(fuzzer, 8);
    case 1: return near - 1;
    case 2: return near;
    case 3: return UINT64_MAX - below(fuzzer, 4);
    default: return mix(fuzzer->random) >> below(fuzzer, 64);
    }
}

void guarded_init(fuzzer_t *fuzzer) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned i;
    for (i = 0; i < guarded_count; i++) {
        unsigned char *base = (unsigned char *)mmap(NULL, guarded_bytes + page, PROT_READ | PROT_WRITE,
                                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED || mprotect(base + guarded_bytes, page, PROT_NONE) != 0) abort();
        fuzzer->guarded[i].end = base + guarded_bytes;
    }
}

void *guarded(fuzzer_t *fuzzer, size_t count, int byte) {
    guarded_t *piece = &fuzzer->guarded[fuzzer->next_guarded++ % guarded_count];
    if (count > guarded_bytes) count = guarded_bytes;
    memset(piece->end - count, byte, count);
    return piece->end - count;
}

static uint32_t wrong_size(fuzzer_t *fuzzer, size_t size) {
    switch (below(fuzzer, 4)) {
    case 0: return (uint32_t)below(fuzzer, size);
    case 1: return (uint32_t)(size - 8 * below(fuzzer, size / 8));
    case 2: return (uint32_t)(size + 8 * below(fuzzer, 512));
    default: return (uint32_t)(size + 8192 + wild_number(fuzzer) % 0x7FFFFFFF); /* refused before it is read */
    }
}

void *as_struct(fuzzer_t *fuzzer, const void *value, size_t size) {
    uint32_t said = (uint32_t)size;
    size_t there;
    unsigned char *copy;
    if (one_in(fuzzer, 200)) return NULL;
    if (one_in(fuzzer, 30)) said = wrong_size(fuzzer, size);
    there = said < 4 ? 4 : said > size + 4096 ? size : said;
    copy = (unsigned char *)guarded(fuzzer, there, 0);
    memcpy(copy, value, there < size ? there : size);
    memcpy(copy, &said, sizeof said);
    if (said > size && said == there && one_in(fuzzer, 2)) copy[there - 1] = 1; /* a field of a later version */
    return copy;
}

void *result_struct(fuzzer_t *fuzzer, size_t size) {
    unsigned char empty[1024];
    memset(empty, 0, sizeof empty);
    return as_struct(fuzzer, empty, size);
}

/* ---------------------------------------------------------------- payloads */

static uint64_t first_word(unsigned space, uint64_t number, unsigned block, unsigned region) {
    /* The first block is shared by four prompts, as their tokens are. */
    uint64_t chain = block == 0 ? number / 4 : number + 1000;
    return mix(chain * 4096 + block * 256 + region * 64 + space);
}

void fill_payload(unsigned space, uint64_t number, unsigned block, unsigned region, void *data, size_t length) {
    uint64_t word = first_word(space, number, block, region);
    size_t i;
    for (i = 0; i < length; i += 8, word += 0x0101010101010101)
        memcpy((unsigned char *)data + i, &word, length - i < 8 ? length - i : 8);
}

bool payload_is_right(unsigned space, uint64_t number, unsigned block, unsigned region, const void *data, size_t length) {
    uint64_t word = first_word(space, number, block, region);
    size_t i;
    for (i = 0; i < length; i += 8, word += 0x0101010101010101)
        if (memcmp((const unsigned char *)data + i, &word, length - i < 8 ? length - i : 8) != 0) return false;
    return true;
}
