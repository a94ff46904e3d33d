/* kvstore_llama_digest.c — names weights by their SHA-256 (FIPS 180-4). */
#include "kvstore_llama_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t rotate_right(uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }

static void chunk(kvstore_llama_hash_t *hash, const uint8_t *bytes) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)bytes[4 * i] << 24 | (uint32_t)bytes[4 * i + 1] << 16 |
               (uint32_t)bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate_right(a, 7) ^ rotate_right(a, 18) ^ (a >> 3)) + w[i - 7] +
               (rotate_right(b, 17) ^ rotate_right(b, 19) ^ (b >> 10));
    }
    memcpy(s, hash->state, sizeof s);
    for (int i = 0; i < 64; i++) {
        const uint32_t sum1 =
            rotate_right(s[4], 6) ^ rotate_right(s[4], 11) ^ rotate_right(s[4], 25);
        const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        const uint32_t t1 = s[7] + sum1 + choice + k[i] + w[i];
        const uint32_t sum0 =
            rotate_right(s[0], 2) ^ rotate_right(s[0], 13) ^ rotate_right(s[0], 22);
        const uint32_t t2 = sum0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) hash->state[i] += s[i];
}

void kvstore_llama_hash_init(kvstore_llama_hash_t *hash) {
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memset(hash, 0, sizeof *hash);
    memcpy(hash->state, initial, sizeof initial);
}

void kvstore_llama_hash_add(kvstore_llama_hash_t *hash, const void *data, size_t count) {
    const uint8_t *bytes = data;
    const size_t held = (size_t)(hash->byte_count % 64);
    hash->byte_count += count;
    if (held > 0) {
        const size_t more = count < 64 - held ? count : 64 - held;
        memcpy(hash->pending + held, bytes, more);
        if (held + more < 64) return;
        chunk(hash, hash->pending);
        bytes += more;
        count -= more;
    }
    for (; count >= 64; bytes += 64, count -= 64) chunk(hash, bytes);
    if (count > 0) memcpy(hash->pending, bytes, count);
}

void kvstore_llama_hash_finish(kvstore_llama_hash_t *hash, uint8_t digest_out[32]) {
    size_t count = (size_t)(hash->byte_count % 64);
    hash->pending[count++] = 0x80;
    if (count > 56) {
        memset(hash->pending + count, 0, 64 - count);
        chunk(hash, hash->pending);
        count = 0;
    }
    memset(hash->pending + count, 0, 56 - count);
    for (int i = 0; i < 8; i++) {
        hash->pending[56 + i] = (uint8_t)(hash->byte_count * 8 >> (56 - 8 * i));
    }
    chunk(hash, hash->pending);
    for (int i = 0; i < 32; i++)
        digest_out[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}

static int add_file(kvstore_llama_hash_t *hash, const char *path) {
    enum { PIECE_BYTES = 1 << 20 };
    FILE *file = fopen(path, "rb");
    if (file == NULL) return errno;
    uint8_t *piece = malloc(PIECE_BYTES);
    int error = piece == NULL ? ENOMEM : 0;
    while (error == 0) {
        errno = 0;
        const size_t count = fread(piece, 1, PIECE_BYTES, file);
        if (ferror(file)) error = errno != 0 ? errno : EIO;
        kvstore_llama_hash_add(hash, piece, count);
        if (count < PIECE_BYTES) break;
    }
    free(piece);
    fclose(file);
    return error;
}

/* How many parts a model has whose first part's name ends in "-00001-of-NNNNN.gguf", else 1. */
static unsigned part_count(const char *path) {
    static const char pattern[] = "-00001-of-00000.gguf";
    const size_t length = strlen(path), tail = sizeof pattern - 1;
    if (length < tail) return 1;
    const char *name = path + length - tail;
    unsigned count = 0;
    for (size_t i = 0; i < tail; i++) {
        if (i < 10 || i >= 15) {
            if (name[i] != pattern[i]) return 1;
        } else {
            if (name[i] < '0' || name[i] > '9') return 1;
            count = 10 * count + (unsigned)(name[i] - '0');
        }
    }
    return count;
}

int kvstore_llama_digest_file(const char *path, uint8_t digest_out[32]) {
    kvstore_llama_hash_t hash;
    kvstore_llama_hash_init(&hash);
    const unsigned parts = part_count(path);
    int error = add_file(&hash, path);
    if (error == 0 && parts > 1) {
        const size_t length = strlen(path);
        char *part = malloc(length + 1);
        if (part == NULL) return ENOMEM;
        for (unsigned number = 2; number <= parts && error == 0; number++) {
            memcpy(part, path, length + 1);
            char digits[6];
            snprintf(digits, sizeof digits, "%05u", number % 100000u);
            memcpy(part + length - 19, digits, 5);
            error = add_file(&hash, part);
        }
        free(part);
    }
    if (error == 0) kvstore_llama_hash_finish(&hash, digest_out);
    return error;
}
