/* Fills a store, or restores everything from it and compares each byte.
 *
 * usage: restore_all fill|read FOLDER
 *
 * `read` prints the status of the open, or the number of blocks that came back. Exit status: 0, 1 when a byte is wrong,
 * 2 when `fill` fails. A signal is what the caller counts. */
#include <kvstore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPTS = 12, BLOCKS = 20, TOKENS_PER_BLOCK = 16, SLOT_BYTES = 24576, INLINE_BYTES = 512 };

static uint64_t mix64(uint64_t x) { /* splitmix64's finaliser (Steele, Lea, Flood 2014) */
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void fill_bytes(unsigned char *bytes, size_t count, unsigned prompt, unsigned block) {
    size_t i;
    for (i = 0; i < count; i++)
        bytes[i] = (unsigned char)mix64((uint64_t)prompt << 40 | (uint64_t)block << 20 | i / 8);
}

static kvstore_namespace_t *open_namespace(kvstore_t *store, uint64_t region_bytes) {
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns = NULL;
    uint64_t regions[1];
    regions[0] = region_bytes;
    if (kvstore_namespace_config_init(&config, sizeof config) != KVSTORE_OK) exit(2);
    config.tokens_per_block = TOKENS_PER_BLOCK;
    config.region_bytes = regions;
    config.region_count = 1;
    config.model_name = "damaged-catalog";
    return kvstore_namespace_open(store, &config, &ns) == KVSTORE_OK ? ns : NULL;
}

/* Offloads or restores each prompt; returns the blocks that are right, or -1 when a byte is wrong. */
static long move_all(kvstore_namespace_t *ns, size_t bytes, int reads) {
    static unsigned char memory[BLOCKS][SLOT_BYTES], wanted[SLOT_BYTES];
    long right = 0;
    unsigned prompt, block, token;
    for (prompt = 0; prompt < PROMPTS; prompt++) {
        uint32_t tokens[BLOCKS * TOKENS_PER_BLOCK];
        kvstore_span_t spans[BLOCKS];
        kvstore_prompt_t request;
        kvstore_transfer_t transfer;
        kvstore_transfer_result_t result;
        memset(&request, 0, sizeof request);
        memset(&transfer, 0, sizeof transfer);
        memset(&result, 0, sizeof result);
        memset(memory, 0xEE, sizeof memory);
        for (token = 0; token < BLOCKS * TOKENS_PER_BLOCK; token++) /* the first five blocks are shared */
            tokens[token] = token < 5 * TOKENS_PER_BLOCK ? token : token + 1000 * prompt;
        for (block = 0; block < BLOCKS; block++) {
            memset(&spans[block], 0, sizeof spans[block]);
            spans[block].data = memory[block];
            spans[block].capacity = bytes;
            spans[block].length = reads ? 0 : bytes;
            if (!reads) fill_bytes(memory[block], bytes, block < 5 ? 0 : prompt, block);
        }
        request.struct_size = sizeof request;
        request.tokens = tokens;
        request.token_count = BLOCKS * TOKENS_PER_BLOCK;
        transfer.struct_size = sizeof transfer;
        transfer.spans = spans;
        transfer.span_count = BLOCKS;
        transfer.block_count = BLOCKS;
        result.struct_size = sizeof result;
        if (!reads) {
            if (kvstore_offload(ns, &request, &transfer, &result) != KVSTORE_OK) exit(2);
            continue;
        }
        kvstore_restore(ns, &request, &transfer, &result);
        for (block = 0; block < result.blocks_done; block++) {
            fill_bytes(wanted, bytes, block < 5 ? 0 : prompt, block);
            if (spans[block].length != bytes || memcmp(memory[block], wanted, bytes) != 0) return -1;
            right++;
        }
    }
    return right;
}

int main(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    kvstore_status_t status;
    uint64_t sizes[2] = {SLOT_BYTES, INLINE_BYTES};
    long counts[2] = {0, 0};
    int reads, i;
    if (argc != 3 || kvstore_config_init(&config, sizeof config) != KVSTORE_OK) return 2;
    reads = strcmp(argv[1], "read") == 0;
    config.path = argv[2];
    config.capacity_bytes = (uint64_t)256 << 20;
    config.host_bytes = (uint64_t)16 << 20;
    status = kvstore_open(&config, &store);
    if (status != KVSTORE_OK) {
        printf("%s\n", kvstore_status_string(status));
        return reads ? 0 : 2;
    }
    for (i = 0; i < 2; i++) {
        kvstore_namespace_t *ns = open_namespace(store, sizes[i]);
        if (ns == NULL) {
            if (!reads) return 2;
            continue;
        }
        counts[i] = move_all(ns, (size_t)sizes[i], reads);
        if (counts[i] < 0) {
            fprintf(stderr, "wrong bytes\n");
            return 1;
        }
    }
    status = kvstore_close(store);
    if (!reads) return status == KVSTORE_OK ? 0 : 2;
    printf("%ld %ld\n", counts[0], counts[1]);
    return 0;
}
