/* Inlined: a chained block key hashes 88 bytes, where a call through the PLT costs as much as the hash.
 * XXH_INLINE_ALL renames the functions by macro, which Swift does not see, hence the plain names below. */
#ifndef KVSTORE_CXXHASH_SHIM_H
#define KVSTORE_CXXHASH_SHIM_H
#define XXH_INLINE_ALL
#include <string.h>
#include <xxhash.h>

typedef XXH128_hash_t kv_xxh128_t;

static inline uint64_t kv_xxh3_64(const void *bytes, size_t count) { return XXH3_64bits(bytes, count); }
static inline kv_xxh128_t kv_xxh3_128(const void *bytes, size_t count) { return XXH3_128bits(bytes, count); }
/* Over three pieces as if they lay side by side (Swift cannot import the 64-byte aligned state). */
static inline uint64_t kv_xxh3_64_joined(const void *a, size_t a_count, const void *b, size_t b_count,
                                         const void *c, size_t c_count) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, a, a_count);
    XXH3_64bits_update(&state, b, b_count);
    XXH3_64bits_update(&state, c, c_count);
    return XXH3_64bits_digest(&state);
}
/* Copies, and answers the checksum of the copy. Piece by piece: the checksum reads from the cache what was just written,
 * where a pass of its own over many MiB reads it from memory again (a quarter less time a byte). */
static inline uint64_t kv_xxh3_64_copying(void *target, const void *source, size_t count) {
    enum { piece = 64 << 10 };
    if (count <= piece) {
        memcpy(target, source, count);
        return XXH3_64bits(target, count);
    }
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (size_t offset = 0; offset < count; offset += piece) {
        size_t length = count - offset < piece ? count - offset : piece;
        memcpy((char *)target + offset, (const char *)source + offset, length);
        XXH3_64bits_update(&state, (char *)target + offset, length);
    }
    return XXH3_64bits_digest(&state);
}
#endif
