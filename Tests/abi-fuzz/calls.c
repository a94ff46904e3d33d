/* Calls that move no bytes: opening and closing, look-ups, keeping, events. */
#include "fuzz.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---------------------------------------------------------------- stores and namespaces */

static void open_store(fuzzer_t *fuzzer, unsigned number, bool is_wild) {
    kvstore_config_t config;
    kvstore_t *handle = NULL, *none = NULL;
    char path[4096];
    snprintf(path, sizeof path, "%s/%u", folder, number);
    /* Where the process is does not matter to a store that is open. */
    if (chdir(one_in(fuzzer, 2) ? "/" : folder) != 0) abort();
    kvstore_config_init(&config, sizeof config);
    config.path = path;
    config.capacity_bytes = UINT64_C(64) << 20;
    config.catalog_bytes = UINT64_C(8) << 20;
    config.host_bytes = UINT64_C(4) << 20;
    config.inline_payload_bytes_max = 2048;
    config.offload_timeout_nanoseconds = 20000000;
    if (!is_wild) {
        CALL(open, &config, &handle);
        if (fuzzer->status != KVSTORE_OK) fail(fuzzer, "open", fuzzer->status);
    } else {
        switch (below(fuzzer, 6)) {
        case 0: config.path = one_in(fuzzer, 2) ? NULL : "/proc/self/none"; break;
        case 1: config.flags = (uint32_t)wild_number(fuzzer); break;
        case 2: config.capacity_bytes = below(fuzzer, UINT64_C(64) << 20); break; /* too small: refused */
        case 3: config.catalog_bytes = UINT64_MAX >> below(fuzzer, 20); break;
        default: break;
        }
        atomic_store(&fuzzer->call, "open");
        fuzzer->status = kvstore_open((const kvstore_config_t *)as_struct(fuzzer, &config, sizeof config),
                                      one_in(fuzzer, 50) ? NULL : &handle);
        /* A path that cannot be one is an I/O error rightly. */
        note(fuzzer, "open", fuzzer->status == KVSTORE_E_IO ? KVSTORE_E_NOT_A_STORE : fuzzer->status);
        if (fuzzer->status != KVSTORE_OK && handle != NULL) fail(fuzzer, "a refused open gave a handle", fuzzer->status);
        if (config.flags & KVSTORE_OPEN_READ_ONLY && handle != NULL) {
            /* A second handle on an open store; nothing is kept in it. */
            CALL(close, handle);
            return;
        }
    }
    if (handle == NULL) return;
    if (!atomic_compare_exchange_strong(&stores[number], &none, handle)) {
        CALL(close, handle);
        remember(fuzzer, handle);
    }
}

static void open_namespace(fuzzer_t *fuzzer, unsigned space, bool is_wild) {
    const shape_t *shape = &shapes[space % shape_count];
    kvstore_namespace_config_t config;
    kvstore_namespace_t *handle = NULL, *old;
    unsigned char salt = (unsigned char)space;
    uint64_t *bytes = (uint64_t *)guarded(fuzzer, 8 * shape->region_count, 0);
    memcpy(bytes, shape->region_bytes, 8 * shape->region_count);
    kvstore_namespace_config_init(&config, sizeof config);
    config.model_name = "fuzz";
    config.flags = shape->variable ? KVSTORE_NAMESPACE_REGIONS_VARIABLE : 0;
    config.identity_mode = shape->digests ? KVSTORE_IDENTITY_DIGEST : KVSTORE_IDENTITY_TOKENS;
    config.digest_bytes = shape->digests ? 32 : 0;
    config.tokens_per_block = tokens_per_block;
    config.region_count = shape->region_count;
    config.region_bytes = bytes;
    config.salt.data = &salt;
    config.salt.length = 1;
    if (is_wild) {
        switch (below(fuzzer, 11)) {
        case 0: config.flags = (uint32_t)wild_number(fuzzer); break;
        case 1: config.identity_mode = (uint32_t)wild_number(fuzzer); break;
        case 2: config.tokens_per_block = (uint32_t)(1 << below(fuzzer, 32)); break;
        case 3: config.region_count = shape->region_count + 4096 + (uint32_t)wild_number(fuzzer) % 1000; break;
        case 4: bytes[0] = wild_number(fuzzer); break;
        case 5: config.tensor_parallel_rank = (uint32_t)wild_number(fuzzer); break;
        case 6: config.salt.length = (size_t)UINT64_MAX >> below(fuzzer, 40); break;
        case 7: config.model_name = "\xC3\x28"; break;
        case 8: config.digest_bytes = (uint32_t)below(fuzzer, 100); break;
        case 9: {
            kvstore_group_t group = {(uint32_t)below(fuzzer, 3), (uint32_t)below(fuzzer, 3), (uint32_t)wild_number(fuzzer), 0};
            kvstore_group_t *groups = (kvstore_group_t *)guarded(fuzzer, sizeof group, 0);
            if (one_in(fuzzer, 4)) group.first_region = (uint32_t)wild_number(fuzzer);
            if (one_in(fuzzer, 4)) group.region_count = (uint32_t)wild_number(fuzzer);
            memcpy(groups, &group, sizeof group);
            config.groups = one_in(fuzzer, 10) ? NULL : groups;
            config.group_count = one_in(fuzzer, 4) ? (size_t)UINT64_MAX >> below(fuzzer, 10) : 1;
            break;
        }
        default: config.quota_bytes = below(fuzzer, 2) ? 0 : UINT64_C(1) << below(fuzzer, 64);
        }
        CALL(namespace_open, pick_store(fuzzer),
             (const kvstore_namespace_config_t *)as_struct(fuzzer, &config, sizeof config), one_in(fuzzer, 50) ? NULL : &handle);
        if (handle == NULL) return;
        CALL(namespace_close, handle);
        return remember(fuzzer, handle);
    }
    CALL(namespace_open, atomic_load(&stores[space % store_count]), &config, &handle);
    if (handle == NULL) return;
    old = atomic_exchange(&namespaces[space], handle);
    if (old != NULL) {
        CALL(namespace_close, old);
        remember(fuzzer, old);
    }
}

static void close_store(fuzzer_t *fuzzer) {
    unsigned number = (unsigned)below(fuzzer, store_count);
    kvstore_t *handle;
    /* What views and reservations lend is not touched by anybody now. */
    if (pthread_rwlock_trywrlock(&lending) != 0) return;
    handle = atomic_exchange(&stores[number], NULL);
    if (handle != NULL) {
        CALL(close, handle);
        if (fuzzer->status != KVSTORE_OK && fuzzer->status != KVSTORE_BUSY) fail(fuzzer, "close", fuzzer->status);
        remember(fuzzer, handle);
    }
    pthread_rwlock_unlock(&lending);
    open_store(fuzzer, number, false);
}

void open_stores(fuzzer_t *fuzzer) {
    unsigned i;
    for (i = 0; i < store_count; i++)
        if (atomic_load(&stores[i]) == NULL) open_store(fuzzer, i, false);
    for (i = 0; i < namespace_count; i++) open_namespace(fuzzer, i, false);
}

/* ---------------------------------------------------------------- everything else */

static uint64_t pick_lease(fuzzer_t *fuzzer) {
    return one_in(fuzzer, 10) ? wild_number(fuzzer) : atomic_load(&leases[below(fuzzer, 64)]);
}

static uint32_t match_flags(fuzzer_t *fuzzer) {
    return one_in(fuzzer, 50) ? (uint32_t)wild_number(fuzzer) : (uint32_t)below(fuzzer, 4);
}

static uint64_t lease_time(fuzzer_t *fuzzer) {
    return one_in(fuzzer, 10) ? wild_number(fuzzer) : 1 + below(fuzzer, 20000000);
}

static void match(fuzzer_t *fuzzer) {
    unsigned space, i, count;
    uint64_t number = pick_number(fuzzer);
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &space), *several[4];
    const kvstore_prompt_t *prompt = pick_prompt(fuzzer, space, number, 1 + (unsigned)below(fuzzer, blocks_max), false);
    kvstore_match_t *found = (kvstore_match_t *)result_struct(fuzzer, sizeof *found), *all;
    switch (below(fuzzer, 5)) {
    case 0: {
        size_t digest_count = below(fuzzer, blocks_max + 1);
        void *digests = guarded(fuzzer, 32 * digest_count, (int)below(fuzzer, 256));
        CALL(match_keys, ns, digests, one_in(fuzzer, 50) ? SIZE_MAX - digest_count : digest_count, match_flags(fuzzer),
             lease_time(fuzzer), found);
        break;
    }
    case 1:
        count = 1 + (unsigned)below(fuzzer, 4);
        all = (kvstore_match_t *)guarded(fuzzer, count * sizeof *all, 0);
        for (i = 0; i < count; i++) {
            unsigned other;
            several[i] = one_in(fuzzer, 2) ? ns : pick_namespace(fuzzer, &other);
            all[i].struct_size = (uint32_t)(one_in(fuzzer, 50) ? wild_number(fuzzer) : sizeof *all);
        }
        CALL(match_all, several, one_in(fuzzer, 50) ? SIZE_MAX : count, prompt, match_flags(fuzzer), lease_time(fuzzer), all);
        found = NULL;
        break;
    case 3: use_sections(fuzzer, ns, prompt); return;
    default: CALL(match, ns, prompt, match_flags(fuzzer), lease_time(fuzzer), found);
    }
    if (found == NULL || fuzzer->status < 0) return;
    if (found->blocks_matched > blocks_max) fail(fuzzer, "more blocks matched than asked for", (int64_t)found->blocks_matched);
    if (found->lease != 0) atomic_store(&leases[below(fuzzer, 64)], found->lease);
}

static void look(fuzzer_t *fuzzer) {
    unsigned space;
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &space);
    const kvstore_prompt_t *prompt = pick_prompt(fuzzer, space, pick_number(fuzzer), (unsigned)below(fuzzer, blocks_max + 1), false);
    uint64_t *blocks = one_in(fuzzer, 4) ? NULL : (uint64_t *)guarded(fuzzer, 8, 0);
    size_t count = 0, capacity = below(fuzzer, blocks_max + 2);
    kvstore_block_key_t *keys = (kvstore_block_key_t *)guarded(fuzzer, capacity * sizeof *keys, 0);
    switch (below(fuzzer, 8)) {
    case 5:
        if (one_in(fuzzer, 8)) CALL(explain, ns, prompt, one_in(fuzzer, 20) ? (uint32_t)wild_number(fuzzer) : 0,
                                    (kvstore_explanation_t *)result_struct(fuzzer, sizeof(kvstore_explanation_t)));
        break;
    case 6:
        /* For a moment mostly, and for ever hardly ever: what is pinned is in nobody's way for long. */
        if (one_in(fuzzer, 8)) CALL(pin, ns, prompt, one_in(fuzzer, 1000) ? wild_number(fuzzer) : 1 + below(fuzzer, 20000000),
                                    one_in(fuzzer, 50) ? NULL : (uint64_t *)guarded(fuzzer, 8, 0), blocks);
        break;
    case 7:
        if (one_in(fuzzer, 16))
            CALL(purge, ns, prompt, one_in(fuzzer, 10) ? (uint32_t)wild_number(fuzzer) : (uint32_t)below(fuzzer, 2), blocks);
        break;
    case 0: CALL(block_keys, ns, prompt, keys, capacity, one_in(fuzzer, 50) ? NULL : &count); break;
    case 1: CALL(prefetch, ns, prompt, blocks); break;
    case 2:
        if (!one_in(fuzzer, 4)) break;
        CALL(forget, ns, prompt, blocks);
        break;
    case 3: CALL(namespace_id, ns, one_in(fuzzer, 20) ? NULL : (uint32_t *)guarded(fuzzer, 4, 0)); break;
    default: CALL(touch, ns, prompt, blocks);
    }
}

static kvstore_session_t *_Atomic sessions[16];

/* Sessions that all threads step, touch and end under each other. */
static void use_session(fuzzer_t *fuzzer) {
    unsigned space, number = (unsigned)below(fuzzer, 16);
    kvstore_session_t *session = atomic_load(&sessions[number]);
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &space);
    const kvstore_prompt_t *prompt = pick_prompt(fuzzer, space, pick_number(fuzzer), (unsigned)below(fuzzer, blocks_max + 1), false);
    kvstore_match_t *found = (kvstore_match_t *)result_struct(fuzzer, sizeof *found);
    uint64_t *out = one_in(fuzzer, 4) ? NULL : (uint64_t *)guarded(fuzzer, 8, 0);
    size_t name_count = below(fuzzer, 80);
    char *name = (char *)guarded(fuzzer, name_count + 1, 'n');
    if (one_in(fuzzer, 20)) session = (kvstore_session_t *)pick_any(fuzzer);
    switch (below(fuzzer, 6)) {
    case 0:
        session = NULL;
        if (one_in(fuzzer, 20)) name[0] = (char)0xC3;
        name[name_count] = '\0';
        CALL(session_begin, ns, one_in(fuzzer, 4) ? NULL : name, one_in(fuzzer, 50) ? NULL : &session, out);
        if (session == NULL) return;
        session = atomic_exchange(&sessions[number], session);
        if (session == NULL) return;
        CALL(session_end, session);
        return remember(fuzzer, session);
    case 1: CALL(session_step, session, one_in(fuzzer, 2) ? UINT64_MAX : wild_number(fuzzer), out); return;
    case 2: CALL(session_touch, session, out); return;
    default:
        CALL(session_match, session, prompt, match_flags(fuzzer), lease_time(fuzzer), found);
        if (found != NULL && fuzzer->status >= 0 && found->lease != 0) atomic_store(&leases[below(fuzzer, 64)], found->lease);
    }
}

static void ask_store(fuzzer_t *fuzzer) {
    kvstore_t *store = pick_store(fuzzer);
    size_t count = 0, capacity = below(fuzzer, 40), byte_count = 0;
    uint64_t cursor = one_in(fuzzer, 4) ? wild_number(fuzzer) : below(fuzzer, 1000);
    kvstore_event_t *events = (kvstore_event_t *)guarded(fuzzer, capacity * sizeof *events, 0);
    void *base = NULL;
    switch (below(fuzzer, 10)) {
    case 9:
        if (!one_in(fuzzer, 8)) break;
        capacity = one_in(fuzzer, 4) ? 0 : below(fuzzer, 40000);
        CALL(metrics_text, store, (char *)guarded(fuzzer, capacity, 0), capacity, one_in(fuzzer, 50) ? NULL : &byte_count);
        if (fuzzer->status == KVSTORE_OK && byte_count >= capacity) fail(fuzzer, "a text longer than its memory", (int64_t)byte_count);
        break;
    case 8: CALL(unpin, store, below(fuzzer, 2) ? below(fuzzer, 200) : wild_number(fuzzer)); break;
    case 0: CALL(stats, store, (kvstore_stats_t *)result_struct(fuzzer, sizeof(kvstore_stats_t))); break;
    case 1:
        CALL(events_read, store, one_in(fuzzer, 50) ? NULL : &cursor, one_in(fuzzer, 50) ? NULL : events,
             one_in(fuzzer, 20) ? (size_t)wild_number(fuzzer) : sizeof *events, capacity, one_in(fuzzer, 50) ? NULL : &count);
        if (fuzzer->status == KVSTORE_OK && count > capacity) fail(fuzzer, "more events than asked for", (int64_t)count);
        break;
    case 2: CALL(lease_release, store, pick_lease(fuzzer)); break;
    case 3: CALL(lease_extend, store, pick_lease(fuzzer), lease_time(fuzzer)); break;
    case 4:
        if (one_in(fuzzer, 8))
            CALL(flush, store, one_in(fuzzer, 2) ? 0 : 1 + wild_number(fuzzer) % 5000000,
                 (kvstore_flush_result_t *)result_struct(fuzzer, sizeof(kvstore_flush_result_t)));
        break;
    case 5: CALL(host_memory, store, one_in(fuzzer, 20) ? NULL : &base, one_in(fuzzer, 20) ? NULL : &byte_count); break;
    case 6:
        if (strlen(kvstore_status_string((kvstore_status_t)wild_number(fuzzer))) == 0) fail(fuzzer, "a status has no name", 0);
        CALL(config_init, (kvstore_config_t *)guarded(fuzzer, 4200, 0), one_in(fuzzer, 2) ? below(fuzzer, 4200) : (size_t)wild_number(fuzzer));
        break;
    default:
        CALL(namespace_config_init, (kvstore_namespace_config_t *)guarded(fuzzer, 5000, 0),
             one_in(fuzzer, 2) ? below(fuzzer, 5000) : (size_t)wild_number(fuzzer));
    }
}

/* Handles of every kind to functions of every kind. A store that is open is not closed here: who closes it holds `lending`. */
static void use_any_handle(fuzzer_t *fuzzer) {
    void *handle = pick_any(fuzzer);
    uint64_t blocks = 0;
    switch (below(fuzzer, 7)) {
    case 0: CALL(poll, (kvstore_operation_t *)handle, (kvstore_transfer_result_t *)result_struct(fuzzer, sizeof(kvstore_transfer_result_t))); break;
    case 1:
        CALL(wait, (kvstore_operation_t *)handle, 1 + below(fuzzer, 100000),
             (kvstore_transfer_result_t *)result_struct(fuzzer, sizeof(kvstore_transfer_result_t)));
        break;
    case 2: CALL(cancel, (kvstore_operation_t *)handle); break;
    case 3: CALL(view_release, (kvstore_view_t *)handle); break;
    case 4: CALL(offload_commit, (kvstore_reservation_t *)handle, NULL, 0, NULL); break;
    case 5: CALL(namespace_close, (kvstore_namespace_t *)handle); break;
    default:
        CALL(namespace_purge, (kvstore_namespace_t *)handle, &blocks);
    }
}

/* A fork among the calls of all threads: in the child every handle is refused at once, whoever held which lock. */
static void fork_a_child(fuzzer_t *fuzzer) {
    unsigned space;
    uint32_t words[8] = {0};
    kvstore_prompt_t prompt;
    kvstore_namespace_t *ns = pick_namespace(fuzzer, &space);
    kvstore_t *store = atomic_load(&stores[below(fuzzer, store_count)]);
    kvstore_transfer_t transfer;
    pid_t child;
    int status = 0;
    memset(&prompt, 0, sizeof prompt);
    prompt.struct_size = (uint32_t)sizeof prompt;
    prompt.tokens = words;
    prompt.token_count = 8;
    memset(&transfer, 0, sizeof transfer);
    transfer.struct_size = (uint32_t)sizeof transfer;
    atomic_store(&fuzzer->call, "fork");
    child = fork();
    if (child == 0) {
        kvstore_match_t found;
        memset(&found, 0, sizeof found);
        found.struct_size = (uint32_t)sizeof found;
        alarm(60);
        signal(SIGALRM, SIG_DFL);
        if (ns != NULL && kvstore_match(ns, &prompt, 0, 0, &found) >= 0) _exit(2);
        if (ns != NULL && kvstore_offload(ns, &prompt, &transfer, NULL) >= 0) _exit(3);
        if (store != NULL && kvstore_flush(store, 0, NULL) >= 0) _exit(4);
        if (store != NULL && kvstore_close(store) >= 0) _exit(5);
        _exit(0);
    }
    if (child > 0 && waitpid(child, &status, 0) == child && status != 0) fail(fuzzer, "a forked child", status);
}

void call_something(fuzzer_t *fuzzer) {
    uint64_t chance = below(fuzzer, 100000);
    unsigned space;
    if (chance < 15) return close_store(fuzzer);
    if (chance >= 1050 && chance < 1070) return fork_a_child(fuzzer);
    if (chance < 30) {
        CALL(namespace_purge, pick_namespace(fuzzer, &space), NULL);
        return;
    }
    if (chance < 500) return open_namespace(fuzzer, (unsigned)below(fuzzer, namespace_count), false);
    if (chance < 1000) return open_namespace(fuzzer, (unsigned)below(fuzzer, namespace_count), true);
    if (chance < 1050) return open_store(fuzzer, (unsigned)below(fuzzer, store_count), true);
    if (chance < 10000) return use_any_handle(fuzzer);
    if (chance < 30000) return ask_store(fuzzer);
    if (chance < 45000) return look(fuzzer);
    if (chance < 62000) return match(fuzzer);
    if (chance < 72000) return use_device(fuzzer);
    if (chance < 76000) return use_session(fuzzer);
    move_something(fuzzer);
}
