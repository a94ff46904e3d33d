/* What a process asks the system for is refused, one call after the other: descriptors, locks, memory that is mapped,
 * reads, writes. Once, or from there on.
 *
 * Each call of the library answers with a status and a message, wrong bytes come never, what was confirmed stays, and
 * without the refusal the store opens and takes blocks. Beside a server every other time. Each third call, of writes and
 * descriptors each eleventh, from $KVSTORE_STEPS_FIRST on; all with $KVSTORE_STEPS=all. (Memory that malloc hands out is
 * not among them: Swift's allocator ends the process where there is none.) */
#include "folder.h"
#include "surroundings.h"

#include <dlfcn.h>

#define BLOCKS 4
#define KEPT 2

static void config_of_refused(kvstore_config_t *config) {
    small_config(config, path_in_dir("store"));
    config->capacity_bytes = 512 * MIB;
    config->catalog_bytes = 16 * MIB;
    config->host_bytes = 8 * MIB;
    config->offload_timeout_nanoseconds = UINT64_C(1000000000);
    config->wait_timeout_nanoseconds = UINT64_C(5000000000);
}

/* ---------------------------------------------------------------- the process that is refused */

/* A refusal is one of these; damage is never a refusal's name, nor is an invariant. */
#define REFUSED(call) \
    CHECK_ONE_OF(call, 8, KVSTORE_OK, KVSTORE_MISS, KVSTORE_BUSY, KVSTORE_FULL, KVSTORE_PARENT_MISSING, KVSTORE_E_IO, \
                 KVSTORE_E_NO_SPACE, KVSTORE_E_OUT_OF_MEMORY)

static void call_of_shim(const char *name) {
    void (*call)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, name);
    if (call == NULL) fail(__FILE__, __LINE__, "the shim is not there");
    call();
}

/* How many blocks come; those that do are right. */
static uint64_t read_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed) {
    size_t count = BLOCKS * (size_t)shape->tokens_per_block;
    uint32_t *tokens = make_tokens(seed, count);
    kvstore_prompt_t prompt = prompt_of(tokens, count);
    kvstore_transfer_result_t result = result_zero();
    pieces_t pieces = pieces_new(shape, 0, BLOCKS, 0, shape->region_count);
    kvstore_transfer_t transfer;
    pieces_clear(&pieces);
    transfer = transfer_of(&pieces);
    REFUSED(kvstore_restore(ns, &prompt, &transfer, &result));
    if (result.blocks_done > 0 && !pieces_match(&pieces, seed, result.blocks_done))
        fail(__FILE__, __LINE__, "wrong bytes of prompt %" PRIu64, seed);
    pieces_free(&pieces);
    free(tokens);
    return result.blocks_done;
}

/* Says whether its own prompt was confirmed, and how many calls were refused. */
static int role_refused(int argc, char **argv) {
    shape_t shape = shape_large(), other = shape_mha();
    kvstore_config_t config;
    kvstore_namespace_config_t space;
    kvstore_t *store = NULL;
    kvstore_namespace_t *ns = NULL;
    uint64_t seed = strtoull(argv[0], NULL, 10), kept;
    size_t count = BLOCKS * (size_t)shape.tokens_per_block;
    uint32_t *tokens = make_tokens(seed, count);
    kvstore_prompt_t prompt = prompt_of(tokens, count);
    kvstore_match_t match = match_zero();
    long (*met)(void) = (long (*)(void))dlsym(RTLD_DEFAULT, "steps_met");
    int isConfirmed = 0;
    (void)argc;
    config_of_refused(&config);
    call_of_shim("steps_arm");
    if (REFUSED(kvstore_open(&config, &store)) == KVSTORE_OK) {
        namespace_config(&shape, &space);
        if (REFUSED(kvstore_namespace_open(store, &space, &ns)) == KVSTORE_OK) {
            kvstore_transfer_result_t result = result_zero();
            kvstore_flush_result_t flushed = flush_zero();
            for (kept = 1; kept <= KEPT; kept++) (void)read_seed(ns, &shape, kept);
            REFUSED(offload_blocks(ns, &shape, tokens, count, 0, BLOCKS, seed, &result));
            if (REFUSED(kvstore_flush(store, 0, &flushed)) == KVSTORE_OK && result.blocks_done == BLOCKS)
                isConfirmed = flushed.blocks_durable == BLOCKS;
            (void)read_seed(ns, &shape, seed);
            REFUSED(kvstore_match(ns, &prompt, 0, 0, &match));
            if (match.lease != 0) REFUSED(kvstore_lease_release(store, match.lease));
        }
        namespace_config(&other, &space);
        if (REFUSED(kvstore_namespace_open(store, &space, &ns)) == KVSTORE_OK) {
            kvstore_transfer_result_t result = result_zero();
            REFUSED(offload_blocks(ns, &other, tokens, count, 0, BLOCKS, seed, &result));
        }
        REFUSED(kvstore_close(store));
    }
    call_of_shim("steps_disarm");
    printf("%d %ld\n", isConfirmed, met());
    return 0;
}

/* ---------------------------------------------------------------- the case's own part */

static bool is_long(void) {
    const char *steps = getenv("KVSTORE_STEPS");
    return steps != NULL && strcmp(steps, "all") == 0;
}

static void check_seed(kvstore_namespace_t *ns, const shape_t *shape, uint64_t seed, const char *what, unsigned at) {
    uint64_t there = check_stored_seed(ns, shape, seed, BLOCKS);
    if (there != BLOCKS)
        fail(__FILE__, __LINE__, "%s, call %u: %" PRIu64 " of %d blocks of prompt %" PRIu64 " are left", what, at, there,
             BLOCKS, seed);
}

enum {
    STAYS,     /* all that was confirmed */
    MAY_LEAVE, /* for new blocks, where the file system has no room for both, unless it is pinned */
    MAY_FAIL,  /* a read that fails is a failed check: what was read is stored again by the next request */
};

static void pin_kept(kvstore_namespace_t *ns, const shape_t *shape) {
    uint64_t kept, pin, blocks;
    for (kept = 1; kept <= KEPT; kept++) {
        size_t count = BLOCKS * (size_t)shape->tokens_per_block;
        uint32_t *tokens = make_tokens(kept, count);
        kvstore_prompt_t prompt = prompt_of(tokens, count);
        CHECK_STATUS(kvstore_pin(ns, &prompt, UINT64_C(3600000000000), &pin, &blocks), KVSTORE_OK);
        CHECK_EQ(blocks, BLOCKS);
        free(tokens);
    }
}

static unsigned refuse(const char *kinds, const char *refusal, bool all, int what_is_kept) {
    unsigned at, count = 0, stride = strchr("ow", *kinds) != NULL ? 11 : 3;
    char what[64], text[32];
    shape_t shape = shape_large();
    snprintf(what, sizeof what, "%s refused with %s%s", kinds, refusal, all ? ", and all behind" : "");
    CHECK_EQ(run_shell("rm -rf '%s'", path_in_dir("store")), 0);
    for (at = getenv("KVSTORE_STEPS_FIRST") != NULL ? (unsigned)atoi(getenv("KVSTORE_STEPS_FIRST")) : 1;;
         at += is_long() ? 1 : stride) {
        kvstore_config_t config;
        kvstore_t *store;
        kvstore_namespace_t *ns;
        uint64_t seed = 1000 + at, kept;
        int out, pid, isConfirmed = 0, status;
        long met = 0;
        FILE *answer;
        config_of_refused(&config);
        store = open_store(&config);
        ns = open_namespace(store, &shape);
        for (kept = 1; kept <= KEPT; kept++) offload_seed(ns, &shape, kept, BLOCKS);
        flush_store(store);
        if (what_is_kept == MAY_LEAVE) pin_kept(ns, &shape);
        if (count % 2 == 1) close_store(store), store = NULL;
        snprintf(text, sizeof text, "%u", at);
        setenv("STEPS_AT", text, 1);
        setenv("STEPS_DO", refusal, 1);
        setenv("STEPS_KINDS", kinds, 1);
        if (all) setenv("STEPS_ALL", "1", 1);
        run_with_shim("steps");
        snprintf(text, sizeof text, "%" PRIu64, seed);
        pid = spawn_role("refused", text, NULL, &out);
        run_without_shim();
        unsetenv("STEPS_ALL");
        answer = fdopen(out, "r");
        CHECK(answer != NULL);
        if (fscanf(answer, "%d %ld", &isConfirmed, &met) != 2) met = -1;
        fclose(answer);
        status = wait_for(pid);
        if (status != 0 || met < 0) fail(__FILE__, __LINE__, "%s, call %u: ended with %d", what, at, status);
        if (store == NULL) store = open_store(&config);
        ns = open_namespace(store, &shape);
        for (kept = 1; kept <= KEPT && what_is_kept != MAY_FAIL; kept++) check_seed(ns, &shape, kept, what, at);
        if (isConfirmed && what_is_kept == STAYS) check_seed(ns, &shape, seed, what, at);
        offload_seed(ns, &shape, 500 + at, BLOCKS);
        flush_store(store);
        check_restore_seed(ns, &shape, 500 + at, BLOCKS);
        CHECK_STATUS(kvstore_namespace_purge(ns, NULL), KVSTORE_OK);
        close_store(store);
        if (met == 0) break;
        count++;
    }
    CHECK(count > 0);
    printf("  %s: %u\n", what, count);
    return count;
}

static void verify_store(void) {
    const char *command = getenv("KVSTORE_COMMAND");
    if (command == NULL) return;
    CHECK_EQ(run_shell("'%s' verify '%s' > '%s.log' 2>&1 || { cat '%s.log' >&2; exit 1; }", command,
                       path_in_dir("store"), path_in_dir("store"), path_in_dir("store")),
             0);
}

static void refuse_once_and_on(const char *kinds, int code, int what_is_kept) {
    char text[16];
    (void)alarm(is_long() ? 0 : 600);
    snprintf(text, sizeof text, "%d", code);
    (void)refuse(kinds, text, false, what_is_kept);
    verify_store();
    (void)refuse(kinds, text, true, what_is_kept);
    verify_store();
}

static void descriptors_are_refused(void) { refuse_once_and_on("o", EMFILE, STAYS); }
static void locks_are_refused(void) { refuse_once_and_on("l", ENOLCK, STAYS); }
static void locks_are_interrupted(void) {
    (void)alarm(is_long() ? 0 : 600);
    (void)refuse("l", "4", false, STAYS); /* EINTR */
    verify_store();
}
static void mappings_are_refused(void) { refuse_once_and_on("m", ENOMEM, STAYS); }
static void reads_fail(void) { refuse_once_and_on("r", EIO, MAY_FAIL); }
static void reads_are_short(void) {
    (void)refuse("r", "short", false, STAYS);
    verify_store();
}
static void writes_fail(void) { refuse_once_and_on("w", EIO, STAYS); }
static void writes_find_no_room(void) { refuse_once_and_on("w", ENOSPC, MAY_LEAVE); }
static void writes_find_no_quota(void) { refuse_once_and_on("w", EDQUOT, MAY_LEAVE); }
static void writes_are_short(void) {
    (void)refuse("w", "short", false, STAYS);
    verify_store();
}
static void names_are_refused(void) { refuse_once_and_on("n", EROFS, STAYS); }

const child_role_t refused_roles[] = {{"refused", role_refused}, {NULL, NULL}};

const test_case_t refused_cases[] = {
    {"descriptors_are_refused", descriptors_are_refused},
    {"locks_are_refused", locks_are_refused},
    {"locks_are_interrupted", locks_are_interrupted},
    {"mappings_are_refused", mappings_are_refused},
    {"reads_fail", reads_fail},
    {"reads_are_short", reads_are_short},
    {"writes_fail", writes_fail},
    {"writes_find_no_room", writes_find_no_room},
    {"writes_find_no_quota", writes_find_no_quota},
    {"writes_are_short", writes_are_short},
    {"names_are_refused", names_are_refused},
    {NULL, NULL},
};
