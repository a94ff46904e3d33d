/* The prompts and payloads of harness.h. */
#include "harness.h"

/* Here, where it is inlined: it makes every byte of every payload. */
uint64_t mix64(uint64_t x) {
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

uint32_t *make_tokens(uint64_t seed, size_t count) {
    uint32_t *tokens = (uint32_t *)must_malloc(count * sizeof *tokens);
    vary_tokens(tokens, 0, count, seed);
    return tokens;
}

void vary_tokens(uint32_t *tokens, size_t from, size_t count, uint64_t seed) {
    size_t i;
    for (i = from; i < count; i++) tokens[i] = (uint32_t)(mix64(mix64(seed) ^ i) % 262144);
}

kvstore_prompt_t prompt_of(const uint32_t *tokens, size_t token_count) {
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = (uint32_t)sizeof prompt;
    prompt.tokens = tokens;
    prompt.token_count = token_count;
    return prompt;
}

kvstore_prompt_t digest_prompt(const void *digests, size_t digest_count) {
    kvstore_prompt_t prompt;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = (uint32_t)sizeof prompt;
    prompt.digests = digests;
    prompt.digest_count = digest_count;
    return prompt;
}

uint64_t region_length(const shape_t *shape, uint64_t content_seed, uint64_t block, uint32_t region) {
    uint64_t bound = shape->region_bytes[region];
    if (!(shape->flags & KVSTORE_NAMESPACE_REGIONS_VARIABLE)) return bound;
    if (block % 4 == 0) return bound; /* the maximum and one byte are among them */
    if (block % 4 == 1) return 1;
    return 1 + mix64(content_seed ^ (block << 8)) % bound;
}

uint64_t payload_bytes(const shape_t *shape, uint64_t content_seed, uint64_t blocks) {
    uint64_t bytes = 0, b;
    uint32_t r;
    for (b = 0; b < blocks; b++)
        for (r = 0; r < shape->region_count; r++) bytes += region_length(shape, content_seed, b, r);
    return bytes;
}

#define GUARD_BYTES 19 /* odd, so that hardly a piece is aligned */
#define GUARD 0xEC
#define UNTOUCHED 0xA5

static size_t common_divisor(size_t a, size_t b) {
    while (b != 0) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

pieces_t pieces_new(const shape_t *shape, uint64_t first_block, uint64_t block_count, uint32_t first_region,
                    uint32_t region_count) {
    pieces_t pieces;
    uint64_t per_block = 0, b;
    size_t offset = 0, i, step;
    uint32_t r;
    memset(&pieces, 0, sizeof pieces);
    if (region_count == 0) region_count = shape->region_count - first_region;
    pieces.shape = *shape;
    pieces.first_block = first_block;
    pieces.block_count = block_count;
    pieces.first_region = first_region;
    pieces.region_count = region_count;
    pieces.span_count = (size_t)(block_count * region_count);
    pieces.spans = (kvstore_span_t *)must_malloc(pieces.span_count * sizeof *pieces.spans);
    pieces.block_status =
        (kvstore_status_t *)must_malloc((size_t)block_count * sizeof *pieces.block_status);
    for (r = 0; r < region_count; r++) per_block += shape->region_bytes[first_region + r] + GUARD_BYTES;
    pieces.memory_bytes = (size_t)(per_block * block_count) + GUARD_BYTES;
    pieces.memory = (unsigned char *)must_malloc(pieces.memory_bytes);
    memset(pieces.memory, GUARD, pieces.memory_bytes);
    /* Visit the pieces in an order that is not theirs, as a paged engine's memory is. */
    for (step = 7; common_divisor(step, pieces.span_count) != 1; step++) {
    }
    for (i = 0; i < pieces.span_count; i++) {
        size_t s = (i * step + 3) % pieces.span_count;
        uint64_t bytes = shape->region_bytes[first_region + s % region_count];
        offset += GUARD_BYTES;
        pieces.spans[s].data = pieces.memory + offset;
        pieces.spans[s].capacity = (size_t)bytes;
        pieces.spans[s].length = 0;
        offset += (size_t)bytes;
    }
    for (b = 0; b < block_count; b++) pieces.block_status[b] = 12345;
    return pieces;
}

void pieces_free(pieces_t *pieces) {
    free(pieces->spans);
    free(pieces->block_status);
    free(pieces->memory);
    memset(pieces, 0, sizeof *pieces);
}

static unsigned char content_byte(uint64_t piece_seed, uint64_t i) {
    return (unsigned char)(mix64(piece_seed + i / 8) >> (8 * (i % 8)));
}

static uint64_t piece_seed(uint64_t content_seed, uint64_t block, uint32_t region) {
    return mix64(mix64(content_seed) ^ (block << 20) ^ region);
}

void pieces_fill(pieces_t *pieces, uint64_t content_seed) {
    size_t s;
    for (s = 0; s < pieces->span_count; s++) {
        uint64_t block = pieces->first_block + s / pieces->region_count, i;
        uint32_t region = pieces->first_region + (uint32_t)(s % pieces->region_count);
        uint64_t length = region_length(&pieces->shape, content_seed, block, region);
        uint64_t seed = piece_seed(content_seed, block, region);
        unsigned char *bytes = (unsigned char *)pieces->spans[s].data;
        for (i = 0; i < length; i++) bytes[i] = content_byte(seed, i);
        pieces->spans[s].length = (size_t)length;
    }
}

void pieces_clear(pieces_t *pieces) {
    size_t s;
    uint64_t b;
    for (s = 0; s < pieces->span_count; s++) {
        memset(pieces->spans[s].data, UNTOUCHED, pieces->spans[s].capacity);
        pieces->spans[s].length = 0;
    }
    for (b = 0; b < pieces->block_count; b++) pieces->block_status[b] = 12345;
}

bool pieces_match(const pieces_t *pieces, uint64_t content_seed, uint64_t blocks) {
    size_t s, g;
    if (blocks > pieces->block_count) return false;
    for (s = 0; s < pieces->span_count; s++) {
        const unsigned char *bytes = (const unsigned char *)pieces->spans[s].data;
        uint64_t block = pieces->first_block + s / pieces->region_count, i;
        uint32_t region = pieces->first_region + (uint32_t)(s % pieces->region_count);
        uint64_t length, seed;
        for (g = 1; g <= GUARD_BYTES; g++) /* the guards before and behind each piece */
            if (bytes[-(ptrdiff_t)g] != GUARD || bytes[pieces->shape.region_bytes[region] + g - 1] != GUARD) {
                fprintf(stderr, "  a guard byte beside block %" PRIu64 " region %u was written\n", block, region);
                return false;
            }
        if (s / pieces->region_count >= blocks) continue;
        length = region_length(&pieces->shape, content_seed, block, region);
        seed = piece_seed(content_seed, block, region);
        if (pieces->spans[s].length != length) {
            fprintf(stderr, "  block %" PRIu64 " region %u: length %zu, expected %" PRIu64 "\n", block, region,
                    pieces->spans[s].length, length);
            return false;
        }
        for (i = 0; i < length; i++)
            if (bytes[i] != content_byte(seed, i)) {
                fprintf(stderr, "  block %" PRIu64 " region %u: byte %" PRIu64 " is wrong\n", block, region, i);
                return false;
            }
    }
    return true;
}

kvstore_transfer_t transfer_of(pieces_t *pieces) {
    kvstore_transfer_t transfer;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    transfer.first_block = pieces->first_block;
    transfer.block_count = pieces->block_count;
    transfer.first_region = pieces->first_region;
    transfer.region_count = pieces->region_count;
    transfer.spans = pieces->spans;
    transfer.span_count = pieces->span_count;
    transfer.block_status = pieces->block_status;
    return transfer;
}

kvstore_match_t match_zero(void) {
    kvstore_match_t match;
    memset(&match, 0, sizeof match);
    match.struct_size = (uint32_t)sizeof match;
    return match;
}

kvstore_transfer_result_t result_zero(void) {
    kvstore_transfer_result_t result;
    memset(&result, 0, sizeof result);
    result.struct_size = (uint32_t)sizeof result;
    return result;
}

kvstore_status_t offload_blocks(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens,
                                size_t token_count, uint64_t first, uint64_t count, uint64_t content_seed,
                                kvstore_transfer_result_t *result) {
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    pieces_t pieces = pieces_new(shape, first, count, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_status_t status;
    pieces_fill(&pieces, content_seed);
    status = kvstore_offload(ns, &prompt, &transfer, result);
    /* Offload only reads. */
    if (!pieces_match(&pieces, content_seed, count)) fail(__FILE__, __LINE__, "offload changed its input");
    pieces_free(&pieces);
    return status;
}

void offload_prompt(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens, uint64_t blocks,
                    uint64_t content_seed) {
    kvstore_transfer_result_t result = result_zero();
    CHECK_STATUS(offload_blocks(ns, shape, tokens, (size_t)blocks * shape->tokens_per_block, 0, blocks,
                                content_seed, &result),
                 KVSTORE_OK);
    CHECK_EQ(result.blocks_done, blocks);
    CHECK_EQ(result.blocks_host + result.blocks_disk, blocks);
}

void check_restore(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens, uint64_t blocks,
                   uint64_t content_seed) {
    kvstore_prompt_t prompt = prompt_of(tokens, (size_t)blocks * shape->tokens_per_block);
    pieces_t pieces = pieces_new(shape, 0, blocks, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    uint64_t b;
    pieces_clear(&pieces);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, blocks);
    CHECK_EQ(result.blocks_host + result.blocks_disk, blocks);
    for (b = 0; b < blocks; b++) CHECK_EQ(pieces.block_status[b], KVSTORE_OK);
    CHECK_EQ(result.bytes, payload_bytes(shape, content_seed, blocks));
    CHECK(pieces_match(&pieces, content_seed, blocks));
    pieces_free(&pieces);
}

uint64_t check_stored(kvstore_namespace_t *ns, const shape_t *shape, const uint32_t *tokens, uint64_t blocks,
                      uint64_t content_seed) {
    kvstore_prompt_t prompt = prompt_of(tokens, (size_t)blocks * shape->tokens_per_block);
    pieces_t pieces = pieces_new(shape, 0, blocks, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    pieces_clear(&pieces);
    CHECK_ONE_OF(kvstore_restore(ns, &prompt, &transfer, &result), 2, KVSTORE_OK, KVSTORE_MISS);
    CHECK(pieces_match(&pieces, content_seed, result.blocks_done));
    pieces_free(&pieces);
    return result.blocks_done;
}

uint64_t peek_blocks(kvstore_namespace_t *ns, const uint32_t *tokens, size_t token_count) {
    kvstore_prompt_t prompt = prompt_of(tokens, token_count);
    kvstore_match_t match = match_zero();
    kvstore_status_t status = kvstore_match(ns, &prompt, KVSTORE_MATCH_PEEK, 0, &match);
    if (status == KVSTORE_MISS) {
        CHECK_EQ(match.blocks_matched, 0);
        return 0;
    }
    CHECK_STATUS(status, KVSTORE_OK);
    CHECK(match.blocks_matched > 0);
    CHECK_EQ(match.lease, 0);
    return match.blocks_matched;
}

void offload_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed, uint64_t blocks) {
    uint32_t *tokens = make_tokens(seed, (size_t)blocks * shape->tokens_per_block);
    offload_prompt(ns, shape, tokens, blocks, seed);
    free(tokens);
}

uint64_t peek_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed, uint64_t blocks) {
    size_t token_count = (size_t)blocks * shape->tokens_per_block;
    uint32_t *tokens = make_tokens(seed, token_count);
    uint64_t stored = peek_blocks(ns, tokens, token_count);
    free(tokens);
    return stored;
}

void check_restore_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed, uint64_t blocks) {
    uint32_t *tokens = make_tokens(seed, (size_t)blocks * shape->tokens_per_block);
    check_restore(ns, shape, tokens, blocks, seed);
    free(tokens);
}

uint64_t check_stored_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed, uint64_t blocks) {
    uint32_t *tokens = make_tokens(seed, (size_t)blocks * shape->tokens_per_block);
    uint64_t stored = check_stored(ns, shape, tokens, blocks, seed);
    free(tokens);
    return stored;
}
