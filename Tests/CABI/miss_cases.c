/* Moves that cannot bring everything: a parent or blocks that are missing, too little room, damaged files. */
#include "harness.h"

#include <dirent.h>

static void parent_missing(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_transfer_result_t result = result_zero();
    pieces_t pieces = pieces_new(&shape, 4, 3, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    int i;
    pieces_fill(&pieces, 1);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &result), KVSTORE_PARENT_MISSING);
    CHECK_EQ(result.blocks_done, 0);
    for (i = 0; i < 3; i++) CHECK_EQ(pieces.block_status[i], KVSTORE_PARENT_MISSING);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 0);
    /* Three of the four that are needed. */
    offload_prompt(ns, &shape, tokens, 3, 1);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &result), KVSTORE_PARENT_MISSING);
    CHECK_EQ(peek_blocks(ns, tokens, 160), 3);
    CHECK_STATUS(offload_blocks(ns, &shape, tokens, 64, 3, 1, 1, NULL), KVSTORE_OK);
    CHECK_STATUS(kvstore_offload(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK_EQ(result.blocks_done, 3);
    for (i = 0; i < 3; i++) CHECK_EQ(pieces.block_status[i], KVSTORE_OK);
    flush_store(store);
    check_restore(ns, &shape, tokens, 7, 1);
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}

static void restore_of_what_is_not_there(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 160);
    kvstore_prompt_t prompt = prompt_of(tokens, 160);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    kvstore_transfer_result_t result = result_zero();
    pieces_t pieces = pieces_new(&shape, 0, 10, 0, 0), behind = pieces_new(&shape, 6, 4, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    int i;
    pieces_clear(&pieces);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_MISS);
    CHECK_EQ(result.blocks_done, 0);
    for (i = 0; i < 10; i++) CHECK_EQ(pieces.block_status[i], KVSTORE_MISS);
    CHECK(stats_of(store).misses_absent > 0);
    offload_prompt(ns, &shape, tokens, 6, 1);
    pieces_clear(&pieces);
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_MISS);
    CHECK_EQ(result.blocks_done, 6);
    CHECK(pieces_match(&pieces, 1, 6));
    for (i = 0; i < 10; i++) CHECK_EQ(pieces.block_status[i], i < 6 ? KVSTORE_OK : KVSTORE_MISS);
    transfer = transfer_of(&behind); /* a range that begins behind what is stored */
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_MISS);
    CHECK_EQ(result.blocks_done, 0);
    close_store(store);
    pieces_free(&pieces);
    pieces_free(&behind);
    free(tokens);
}

static void restore_into_too_little_room(void) {
    shape_t shape = shape_mha();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t pieces = pieces_new(&shape, 0, 4, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    offload_prompt(ns, &shape, tokens, 4, 1);
    pieces_clear(&pieces);
    pieces.spans[2 * 8 + 5].capacity = 4095; /* block 2, region 5 */
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK_EQ(pieces.spans[2 * 8 + 5].length, 4096); /* says how many bytes */
    CHECK_EQ(pieces.block_status[2], KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK(result.blocks_done <= 2);
    CHECK_EQ(((unsigned char *)pieces.spans[2 * 8 + 5].data)[4095], 0xA5); /* not written behind the end */
    pieces.spans[2 * 8 + 5].capacity = 4096;
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK(pieces_match(&pieces, 1, 4));
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}

/* An opaque blob's length is not known beforehand: it is what `length` is for. */
static void blob_into_too_little_room(void) {
    shape_t shape = shape_blob();
    uint32_t *tokens = make_tokens(1, 64);
    kvstore_prompt_t prompt = prompt_of(tokens, 64);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t pieces = pieces_new(&shape, 0, 4, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    uint64_t length = region_length(&shape, 1, 2, 0);
    offload_prompt(ns, &shape, tokens, 4, 1);
    pieces_clear(&pieces);
    pieces.spans[2].capacity = (size_t)length - 1;
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_E_BUFFER_TOO_SMALL);
    CHECK_EQ(pieces.spans[2].length, length);
    pieces.spans[2].capacity = (size_t)length; /* exactly enough */
    CHECK_STATUS(kvstore_restore(ns, &prompt, &transfer, &result), KVSTORE_OK);
    CHECK(pieces_match(&pieces, 1, 4));
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}

/* Bytes on disk that were changed behind the store's back: a miss, never other bytes. */
static void damaged_files_are_misses(void) {
    enum { blocks = 16 };
    shape_t shape = shape_mla();
    uint32_t *tokens = make_tokens(1, blocks * 16);
    kvstore_prompt_t prompt = prompt_of(tokens, blocks * 16);
    kvstore_t *store = open_small(path_in_dir("store"));
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    pieces_t pieces = pieces_new(&shape, 0, blocks, 0, 0);
    kvstore_transfer_t transfer = transfer_of(&pieces);
    kvstore_transfer_result_t result = result_zero();
    DIR *folder;
    struct dirent *entry;
    size_t changed = 0;
    kvstore_status_t status;
    offload_prompt(ns, &shape, tokens, blocks, 1);
    close_store(store);
    folder = opendir(path_in_dir("store/slots"));
    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL) {
        char file_path[4096];
        FILE *file;
        long at;
        if (entry->d_name[0] == '.') continue;
        CHECK((size_t)snprintf(file_path, sizeof file_path, "%s/store/slots/%s", test_dir, entry->d_name) <
              sizeof file_path);
        file = fopen(file_path, "r+b");
        CHECK(file != NULL);
        /* One byte in each 64 KiB from 200,000 on: a few blocks in the middle of the chain. */
        for (at = 200000; at < 700000; at += 65536) {
            int byte;
            if (fseek(file, at, SEEK_SET) != 0 || (byte = fgetc(file)) == EOF) break;
            CHECK(fseek(file, at, SEEK_SET) == 0);
            CHECK(fputc(byte ^ 0x40, file) != EOF);
            changed++;
        }
        CHECK(fclose(file) == 0);
    }
    closedir(folder);
    CHECK(changed > 0);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    pieces_clear(&pieces);
    status = kvstore_restore(ns, &prompt, &transfer, &result);
    CHECK_ONE_OF(status, 2, KVSTORE_OK, KVSTORE_MISS);
    CHECK(pieces_match(&pieces, 1, result.blocks_done));
    CHECK_STATUS(status, KVSTORE_MISS);
    CHECK(result.blocks_done > 0 && result.blocks_done < blocks);
    CHECK(stats_of(store).misses_corrupt > 0);
    /* It is hidden at once, and can be computed and offloaded anew. */
    CHECK(peek_blocks(ns, tokens, blocks * 16) <= result.blocks_done);
    flush_store(store);
    offload_prompt(ns, &shape, tokens, blocks, 1);
    flush_store(store);
    close_store(store);
    store = open_small(path_in_dir("store"));
    ns = open_namespace(store, &shape);
    /* Blocks behind the first damaged one went along with it, so all of them are new and whole. */
    check_restore(ns, &shape, tokens, blocks, 1);
    close_store(store);
    pieces_free(&pieces);
    free(tokens);
}
const test_case_t miss_cases[] = {
    {"parent_missing", parent_missing},
    {"restore_of_what_is_not_there", restore_of_what_is_not_there},
    {"restore_into_too_little_room", restore_into_too_little_room},
    {"blob_into_too_little_room", blob_into_too_little_room},
    {"damaged_files_are_misses", damaged_files_are_misses},
    {NULL, NULL},
};
