/* Calls that move bytes: copied, lent, reserved, asynchronous. Whatever comes back is compared. */
#include "fuzz.h"

#include <sched.h>
#include <string.h>

static void fill_move(unsigned space, uint64_t number, const move_t *move, unsigned char *memory) {
    unsigned b, r;
    for (b = 0; b < move->block_count; b++)
        for (r = 0; r < move->region_count; r++)
            fill_payload(space, number, move->first_block + b, move->first_region + r,
                         memory + (size_t)(b * move->region_count + r) * region_bytes_max, region_bytes_max);
}

/* `capacity` false: the memory is the store's, and as long as it says. */
static void compare(fuzzer_t *fuzzer, unsigned space, uint64_t number, unsigned first_block, unsigned first_region,
                    unsigned region_count, const kvstore_span_t *spans, uint64_t blocks, bool capacity) {
    uint64_t b;
    unsigned r;
    for (b = 0; b < blocks; b++)
        for (r = 0; r < region_count; r++) {
            const kvstore_span_t *span = &spans[b * region_count + r];
            if (span->data == NULL || (capacity && span->length > span->capacity)) continue;
            if (span->length > region_bytes_max) return fail(fuzzer, "a region is too long", (int64_t)span->length);
            if (!payload_is_right(space, number, first_block + (unsigned)b, first_region + r, span->data, span->length))
                return fail(fuzzer, "wrong bytes", (int64_t)number);
        }
    atomic_fetch_add(&checked_blocks, blocks);
}

static uint64_t blocks_done(fuzzer_t *fuzzer, const move_t *move, const kvstore_transfer_result_t *result) {
    /* A wrong struct would have been refused. */
    if (result == NULL || fuzzer->status < 0) return 0;
    /* With block_count 0 the transfer goes to the prompt's end; spans that do not fit that are refused. */
    if (result->blocks_done > blocks_max) fail(fuzzer, "more blocks than the prompt has", (int64_t)result->blocks_done);
    return result->blocks_done < move->block_count ? result->blocks_done : move->block_count;
}

static void copy(fuzzer_t *fuzzer, bool is_offload) {
    unsigned space;
    uint64_t number = pick_number(fuzzer);
    kvstore_span_t spans[blocks_max * regions_max];
    kvstore_status_t *statuses = (kvstore_status_t *)guarded(fuzzer, sizeof *statuses * blocks_max, 0);
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &space);
    move_t move = pick_move(fuzzer, space, is_offload, fuzzer->payload, spans, statuses);
    const kvstore_prompt_t *prompt = pick_prompt(fuzzer, space, number, move.first_block + move.block_count, is_offload);
    const kvstore_transfer_t *transfer = (const kvstore_transfer_t *)as_struct(fuzzer, &move.transfer, sizeof move.transfer);
    kvstore_transfer_result_t *result = (kvstore_transfer_result_t *)result_struct(fuzzer, sizeof *result);
    uint64_t done;
    if (is_offload) {
        fill_move(space, number, &move, fuzzer->payload);
        CALL(offload, ns, prompt, transfer, result);
        return;
    }
    CALL(restore, ns, prompt, transfer, result);
    done = blocks_done(fuzzer, &move, result);
    compare(fuzzer, space, number, move.first_block, move.first_region, move.region_count, spans, done, true);
}

/* A prompt layer by layer, as several threads do with the same one at the same time; now and then one stops half way. */
static void layers(fuzzer_t *fuzzer) {
    unsigned space, n;
    uint64_t number = below(fuzzer, 4);
    kvstore_span_t spans[blocks_max * regions_max];
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &space);
    const shape_t *shape = &shapes[space % shape_count];
    unsigned count = 1 + (unsigned)below(fuzzer, blocks_max), first = (unsigned)below(fuzzer, shape->region_count);
    const kvstore_prompt_t *prompt = pick_prompt(fuzzer, space, number, count, true);
    for (n = 0; n < shape->region_count; n++) {
        unsigned region = (first + n) % shape->region_count, b;
        kvstore_transfer_t transfer;
        if (one_in(fuzzer, 20)) break;
        memset(&transfer, 0, sizeof transfer);
        transfer.struct_size = (uint32_t)sizeof transfer;
        transfer.block_count = count;
        transfer.first_region = region;
        transfer.region_count = 1;
        transfer.spans = spans;
        transfer.span_count = count;
        transfer.timeout_nanoseconds = one_in(fuzzer, 2) ? 1 + below(fuzzer, 3000000) : 0;
        for (b = 0; b < count; b++) {
            spans[b].data = fuzzer->payload + (size_t)b * region_bytes_max;
            spans[b].capacity = spans[b].length = shape->region_bytes[region];
            if (shape->variable) spans[b].length = 1 + mix(number * 64 + b * 4 + region) % shape->region_bytes[region];
            fill_payload(space, number, b, region, spans[b].data, region_bytes_max);
        }
        CALL(offload, ns, prompt, &transfer, NULL);
        if (one_in(fuzzer, 8)) sched_yield();
    }
}

static void view(fuzzer_t *fuzzer) {
    unsigned space;
    uint64_t number = pick_number(fuzzer);
    kvstore_span_t spans[blocks_max * regions_max];
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &space);
    move_t move = pick_move(fuzzer, space, false, NULL, spans, NULL);
    const kvstore_prompt_t *prompt = pick_prompt(fuzzer, space, number, move.first_block + move.block_count, false);
    const kvstore_transfer_t *transfer = (const kvstore_transfer_t *)as_struct(fuzzer, &move.transfer, sizeof move.transfer);
    kvstore_transfer_result_t *result = (kvstore_transfer_result_t *)result_struct(fuzzer, sizeof *result);
    kvstore_view_t *handle = NULL;
    pthread_rwlock_rdlock(&lending);
    CALL(restore_view, ns, prompt, transfer, one_in(fuzzer, 100) ? NULL : &handle, result);
    if (handle != NULL) {
        uint64_t done = blocks_done(fuzzer, &move, result);
        compare(fuzzer, space, number, move.first_block, move.first_region, move.region_count, spans, done, false);
        if (!one_in(fuzzer, 50)) CALL(view_release, handle);
        remember(fuzzer, handle); /* some are left to whoever finds them, or to the close */
    }
    pthread_rwlock_unlock(&lending);
}

static void reserve(fuzzer_t *fuzzer) {
    unsigned space, s;
    uint64_t number = pick_number(fuzzer), time = one_in(fuzzer, 4) ? 1 + below(fuzzer, 2000000) : 0;
    kvstore_span_t spans[blocks_max * regions_max];
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &space);
    const shape_t *shape = &shapes[space % shape_count];
    move_t move = pick_move(fuzzer, space, false, NULL, spans, NULL);
    const kvstore_prompt_t *prompt = pick_prompt(fuzzer, space, number, move.first_block + move.block_count, true);
    const kvstore_transfer_t *transfer = (const kvstore_transfer_t *)as_struct(fuzzer, &move.transfer, sizeof move.transfer);
    kvstore_transfer_result_t *result = (kvstore_transfer_result_t *)result_struct(fuzzer, sizeof *result), committed;
    kvstore_reservation_t *handle = NULL;
    pthread_rwlock_rdlock(&lending);
    CALL(offload_reserve, ns, prompt, transfer, one_in(fuzzer, 20) && time > 0 ? UINT64_MAX : time, &handle, result);
    if (handle != NULL && time > 0) {
        /* It may have run out, and then its memory is another's: nobody writes to it. */
        CALL(offload_abort, handle);
    } else if (handle != NULL) {
        unsigned count = move.block_count * move.region_count;
        for (s = 0; s < count; s++) {
            unsigned block = move.first_block + s / move.region_count, region = move.first_region + s % move.region_count;
            if (spans[s].data == NULL) continue;
            if (spans[s].capacity > region_bytes_max) fail(fuzzer, "a reserved region is too long", (int64_t)spans[s].capacity);
            fill_payload(space, number, block, region, spans[s].data, spans[s].capacity);
            spans[s].length = shape->variable ? 1 + below(fuzzer, spans[s].capacity) : spans[s].capacity;
            if (one_in(fuzzer, 100)) spans[s].length = (size_t)wild_number(fuzzer);
        }
        memset(&committed, 0, sizeof committed);
        committed.struct_size = (uint32_t)sizeof committed;
        if (!one_in(fuzzer, 5)) {
            CALL(offload_commit, handle, one_in(fuzzer, 4) ? NULL : spans, one_in(fuzzer, 8) ? 0 : count, &committed);
            if (fuzzer->status == KVSTORE_E_INVALID_ARGUMENT) CALL(offload_abort, handle);
        } else {
            CALL(offload_abort, handle);
        }
    }
    if (handle != NULL) remember(fuzzer, handle);
    pthread_rwlock_unlock(&lending);
}

/* ---------------------------------------------------------------- operations */

static void start(fuzzer_t *fuzzer, operation_t *operation) {
    uint64_t number = pick_number(fuzzer);
    bool is_restore = one_in(fuzzer, 2);
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &operation->space);
    move_t move = pick_move(fuzzer, operation->space, !is_restore, operation->memory, operation->spans, operation->statuses);
    const kvstore_prompt_t *prompt =
        pick_prompt(fuzzer, operation->space, number, move.first_block + move.block_count, !is_restore);
    const kvstore_transfer_t *transfer;
    unsigned s;
    /* A borrowed piece outlives this call: it lies in the operation's own memory. */
    for (s = 0; s < move.block_count * move.region_count; s++)
        if (operation->spans[s].data != NULL) operation->spans[s].data = operation->memory + (size_t)s * region_bytes_max;
    transfer = (const kvstore_transfer_t *)as_struct(fuzzer, &move.transfer, sizeof move.transfer);
    operation->number = number;
    operation->is_restore = is_restore;
    operation->first_block = move.first_block;
    operation->first_region = move.first_region;
    operation->region_count = move.region_count;
    operation->handle = NULL;
    if (is_restore) {
        CALL(restore_start, ns, prompt, transfer, &operation->handle);
    } else {
        fill_move(operation->space, number, &move, operation->memory);
        CALL(offload_start, ns, prompt, transfer, &operation->handle);
    }
    if ((fuzzer->status == KVSTORE_OK) != (operation->handle != NULL)) fail(fuzzer, "start and its handle disagree", fuzzer->status);
    if (operation->handle != NULL) remember(fuzzer, operation->handle);
}

/* Asks for the end; afterwards the memory is ours again if `handle` is NULL. */
static void finish(fuzzer_t *fuzzer, operation_t *operation, bool to_the_end) {
    kvstore_transfer_result_t result;
    memset(&result, 0, sizeof result);
    result.struct_size = (uint32_t)sizeof result;
    if (to_the_end || one_in(fuzzer, 3)) {
        CALL(wait, operation->handle, to_the_end ? 0 : 1 + below(fuzzer, 1000000), &result);
    } else if (one_in(fuzzer, 6)) {
        CALL(cancel, operation->handle);
        return;
    } else {
        CALL(poll, operation->handle, &result);
    }
    if (fuzzer->status == KVSTORE_RUNNING) return;
    operation->handle = NULL;
    if (fuzzer->status == KVSTORE_E_BAD_HANDLE) {
        /* Somebody else was told its end; or its store is being closed, and then it is over with the close. */
        pthread_rwlock_rdlock(&lending);
        pthread_rwlock_unlock(&lending);
    } else if (operation->is_restore && fuzzer->status >= 0 && result.blocks_done <= blocks_max) {
        compare(fuzzer, operation->space, operation->number, operation->first_block, operation->first_region,
                operation->region_count, operation->spans, result.blocks_done, true);
    }
}

void end_operations(fuzzer_t *fuzzer) {
    unsigned i;
    for (i = 0; i < operation_count; i++)
        while (fuzzer->operations[i].handle != NULL) finish(fuzzer, &fuzzer->operations[i], true);
}

void move_something(fuzzer_t *fuzzer) {
    operation_t *operation = &fuzzer->operations[below(fuzzer, operation_count)];
    switch (below(fuzzer, 11)) {
    case 0:
    case 1: copy(fuzzer, true); break;
    case 2:
    case 3:
    case 4: copy(fuzzer, false); break;
    case 5: view(fuzzer); break;
    case 6: reserve(fuzzer); break;
    case 7: layers(fuzzer); break;
    default:
        if (operation->handle == NULL) start(fuzzer, operation);
        else finish(fuzzer, operation, one_in(fuzzer, 20));
    }
}
