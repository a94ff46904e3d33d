/* Calls of the device tier: sequences in the slots of a simulated device. Whatever is restored into a slot is compared. */
#include "fuzz.h"

#include <string.h>

/* Slots hold a block's regions side by side. */
static unsigned char *region_of(device_t *device, unsigned char *base, uint64_t slot_bytes, uint64_t slot, unsigned region) {
    const shape_t *shape = &shapes[device->space % shape_count];
    unsigned char *at = base + slot * slot_bytes;
    unsigned r;
    for (r = 0; r < region; r++) at += shape->region_bytes[r];
    return at;
}

/* Writes, or compares, the sequence's full blocks from `first` to `end`. The store is not closed meanwhile: see `lending`. */
static void visit(fuzzer_t *fuzzer, device_t *device, const sequence_t *sequence, size_t first, size_t end, bool compares) {
    const shape_t *shape = &shapes[device->space % shape_count];
    uint64_t slots[blocks_max + 1], slot_bytes = 0;
    void *base = NULL;
    size_t count = 0, b;
    unsigned r;
    CALL(sequence_table, device->handle, sequence->id, slots, blocks_max + 1, &count);
    if (fuzzer->status != KVSTORE_OK) return;
    CALL(device_memory, device->handle, &base, &slot_bytes);
    if (fuzzer->status != KVSTORE_OK) return;
    if (base == NULL || count < end) return fail(fuzzer, "a sequence has too few slots", (int64_t)count);
    for (b = first; b < end; b++)
        for (r = 0; r < shape->region_count; r++) {
            unsigned char *at = region_of(device, (unsigned char *)base, slot_bytes, slots[b], r);
            if (!compares) fill_payload(device->space, sequence->number, (unsigned)b, r, at, shape->region_bytes[r]);
            else if (!payload_is_right(device->space, sequence->number, (unsigned)b, r, at, shape->region_bytes[r]))
                return fail(fuzzer, "wrong bytes in a slot of a device", (int64_t)sequence->number);
        }
    if (compares) atomic_fetch_add(&checked_blocks, end - first);
}

static void attach(fuzzer_t *fuzzer, device_t *device) {
    kvstore_device_config_t config;
    kvstore_device_t *handle = NULL;
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &device->space);
    memset(&config, 0, sizeof config);
    config.slot_count = one_in(fuzzer, 20) ? wild_number(fuzzer) | (UINT64_C(1) << 62) : 1 + below(fuzzer, 24);
    if (one_in(fuzzer, 20)) config.flags = (uint32_t)wild_number(fuzzer);
    CALL(device_attach, ns, (const kvstore_device_config_t *)as_struct(fuzzer, &config, sizeof config),
         one_in(fuzzer, 50) ? NULL : &handle);
    if ((fuzzer->status == KVSTORE_OK) != (handle != NULL) && handle != NULL) fail(fuzzer, "attach and its handle disagree", fuzzer->status);
    device->handle = handle;
    memset(device->sequences, 0, sizeof device->sequences);
}

static void detach(fuzzer_t *fuzzer, device_t *device) {
    CALL(device_detach, device->handle);
    remember(fuzzer, device->handle);
    device->handle = NULL;
}

/* The next tokens of the prompt that the sequence follows, and their KV. */
static void append(fuzzer_t *fuzzer, device_t *device, sequence_t *sequence) {
    size_t most = (size_t)blocks_max * tokens_per_block, count, i, full;
    uint32_t *tokens;
    if (sequence->token_count == most) return;
    count = 1 + below(fuzzer, most - sequence->token_count);
    tokens = (uint32_t *)guarded(fuzzer, 4 * count, 0);
    for (i = 0; i < count; i++) tokens[i] = token_at(sequence->number, sequence->token_count + i);
    CALL(sequence_append, device->handle, sequence->id, tokens, count, one_in(fuzzer, 4) ? 1 + below(fuzzer, 2000000) : 0);
    if (fuzzer->status != KVSTORE_OK) return;
    full = (sequence->token_count + count) / tokens_per_block;
    visit(fuzzer, device, sequence, sequence->token_count / tokens_per_block, full, false);
    sequence->token_count += count;
}

static void restore(fuzzer_t *fuzzer, device_t *device, sequence_t *sequence) {
    kvstore_transfer_result_t result;
    const kvstore_prompt_t *prompt;
    sequence->number = pick_number(fuzzer);
    prompt = pick_prompt(fuzzer, device->space, sequence->number, 1 + (unsigned)below(fuzzer, blocks_max), true);
    memset(&result, 0, sizeof result);
    result.struct_size = (uint32_t)sizeof result;
    CALL(sequence_restore, device->handle, sequence->id, prompt, one_in(fuzzer, 4) ? 1 + below(fuzzer, 2000000) : 0, &result);
    if (fuzzer->status < 0) return;
    if (result.blocks_done > blocks_max) return fail(fuzzer, "more blocks than the prompt has", (int64_t)result.blocks_done);
    sequence->token_count = result.blocks_done * tokens_per_block;
    visit(fuzzer, device, sequence, 0, result.blocks_done, true);
}

static void use_any(fuzzer_t *fuzzer, kvstore_device_t *device) {
    uint64_t id = wild_number(fuzzer), *slots = (uint64_t *)guarded(fuzzer, 16, 0);
    size_t count = 0;
    switch (below(fuzzer, 8)) {
    case 0: CALL(sequence_create, device, NULL); break;
    case 1: CALL(sequence_fork, device, id, &id); break;
    case 2: CALL(sequence_free, device, id); break;
    case 3: CALL(sequence_append, device, id, one_in(fuzzer, 2) ? NULL : (uint32_t *)slots, below(fuzzer, 5), 1); break;
    case 4: CALL(sequence_table, device, id, slots, 2, one_in(fuzzer, 10) ? NULL : &count); break;
    case 5: CALL(sequence_offload, device, id, 1, (kvstore_transfer_result_t *)result_struct(fuzzer, sizeof(kvstore_transfer_result_t))); break;
    case 6: CALL(device_memory, device, NULL, &id); break;
    default: CALL(device_copy_done, id, (kvstore_status_t)wild_number(fuzzer));
    }
}

void use_device(fuzzer_t *fuzzer) {
    device_t *device = &fuzzer->device;
    sequence_t *sequence = &device->sequences[below(fuzzer, sequence_count)], *other;
    if (one_in(fuzzer, 10)) return use_any(fuzzer, one_in(fuzzer, 2) ? device->handle : (kvstore_device_t *)pick_any(fuzzer));
    /* A store that is closed takes the memory of its devices with it. */
    pthread_rwlock_rdlock(&lending);
    if (device->handle == NULL) {
        attach(fuzzer, device);
    } else if (one_in(fuzzer, 200)) {
        detach(fuzzer, device);
    } else if (sequence->id == 0) {
        memset(sequence, 0, sizeof *sequence);
        sequence->number = pick_number(fuzzer);
        CALL(sequence_create, device->handle, &sequence->id);
        /* Its store was closed. */
        if (fuzzer->status == KVSTORE_E_BAD_HANDLE) detach(fuzzer, device);
        else if (one_in(fuzzer, 2)) restore(fuzzer, device, sequence);
    } else {
        switch (below(fuzzer, 8)) {
        case 0:
            CALL(sequence_free, device->handle, sequence->id);
            sequence->id = 0;
            break;
        case 1:
            other = &device->sequences[below(fuzzer, sequence_count)];
            if (other->id != 0) break;
            *other = *sequence;
            other->id = 0;
            CALL(sequence_fork, device->handle, sequence->id, &other->id);
            break;
        case 2:
            CALL(sequence_offload, device->handle, sequence->id, one_in(fuzzer, 4) ? 1 + below(fuzzer, 2000000) : 0,
                 (kvstore_transfer_result_t *)result_struct(fuzzer, sizeof(kvstore_transfer_result_t)));
            break;
        case 3: visit(fuzzer, device, sequence, 0, sequence->token_count / tokens_per_block, true); break;
        default: append(fuzzer, device, sequence);
        }
    }
    pthread_rwlock_unlock(&lending);
}
