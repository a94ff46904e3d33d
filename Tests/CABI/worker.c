#include "worker.h"

static bool is_gone(const worker_t *worker, kvstore_status_t status) {
    return worker->may_close && status == KVSTORE_E_BAD_HANDLE;
}

/* Random operations; what comes back must be the right bytes. */
static void *worker_run(void *argument) {
    worker_t *worker = (worker_t *)argument;
    uint64_t state = (uint64_t)worker->number, step;
    for (step = 0; step < worker->operations; step++) {
        uint64_t seed, blocks, b;
        uint32_t *tokens;
        kvstore_prompt_t prompt;
        kvstore_match_t match = match_zero();
        kvstore_status_t status;
        state = mix64(state);
        seed = (state >> 8) % worker->prompts;
        tokens = make_tokens(seed, PROMPT_TOKENS);
        prompt = prompt_of(tokens, PROMPT_TOKENS);
        switch (state % 8) {
        case 0:
        case 1:
        case 2: {
            pieces_t pieces = pieces_new(&worker->shape, 0, PROMPT_BLOCKS, 0, 0);
            kvstore_transfer_t transfer = transfer_of(&pieces);
            pieces_fill(&pieces, seed);
            status = kvstore_offload(worker->ns, &prompt, &transfer, NULL);
            /* PARENT_MISSING: another thread forgot the prefix meanwhile. */
            if (!is_gone(worker, status))
                CHECK_ONE_OF(status, 4, KVSTORE_OK, KVSTORE_BUSY, KVSTORE_FULL, KVSTORE_PARENT_MISSING);
            pieces_free(&pieces);
            break;
        }
        case 3:
        case 4:
        case 5: {
            pieces_t pieces = pieces_new(&worker->shape, 0, PROMPT_BLOCKS, 0, 0);
            kvstore_transfer_t transfer = transfer_of(&pieces);
            kvstore_transfer_result_t result = result_zero();
            status = kvstore_match(worker->ns, &prompt, 0, 0, &match);
            if (!is_gone(worker, status)) CHECK_ONE_OF(status, 3, KVSTORE_OK, KVSTORE_MISS, KVSTORE_FULL);
            status = kvstore_restore(worker->ns, &prompt, &transfer, &result);
            if (!is_gone(worker, status)) {
                CHECK_ONE_OF(status, 2, KVSTORE_OK, KVSTORE_MISS);
                for (b = 0; b < result.blocks_done; b++) CHECK_EQ(pieces.block_status[b], KVSTORE_OK);
                CHECK(pieces_match(&pieces, seed, result.blocks_done));
            }
            if (match.lease != 0) {
                status = kvstore_lease_release(worker->store, match.lease);
                if (!is_gone(worker, status)) CHECK_STATUS(status, KVSTORE_OK);
            }
            pieces_free(&pieces);
            break;
        }
        case 6:
            blocks = 0;
            prompt.token_count = 16 * (1 + (state >> 20) % PROMPT_BLOCKS);
            if (step % 4 == 0)
                status = kvstore_forget(worker->ns, &prompt, &blocks);
            else
                status = kvstore_touch(worker->ns, &prompt, &blocks);
            if (!is_gone(worker, status)) CHECK_ONE_OF(status, 2, KVSTORE_OK, KVSTORE_MISS);
            break;
        default: {
            kvstore_stats_t stats = stats_zero();
            status = step % 8 == 0 ? kvstore_flush(worker->store, 0, NULL)
                                   : kvstore_stats(worker->store, &stats);
            if (!is_gone(worker, status)) CHECK_STATUS(status, KVSTORE_OK);
        }
        }
        free(tokens);
    }
    return NULL;
}

void workers_start(worker_t *workers, int count, const worker_t *like) {
    int i;
    for (i = 0; i < count; i++) {
        workers[i] = *like;
        workers[i].number = like->number + i;
        if (like->ns == NULL) workers[i].ns = open_namespace(like->store, &like->shape);
        CHECK(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]) == 0);
    }
}

void workers_join(worker_t *workers, int count) {
    int i;
    for (i = 0; i < count; i++) CHECK(pthread_join(workers[i].thread, NULL) == 0);
}
