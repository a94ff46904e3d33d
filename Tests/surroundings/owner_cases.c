/* Who is alive, and which numbers are whose: beside processes that are slow, stopped or killed, and after repairs. */
#include "peer.h"
#include "surroundings.h"

#include <sys/stat.h>

static int role_slow_opener(int argc, char **argv) {
    shape_t shape = shape_large();
    kvstore_t *store;
    (void)argc;
    setenv("STEPS", argv[0], 1);
    store = open_for_peers();
    offload_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS);
    flush_store(store);
    make_file(path_in(argv[0], "open"));
    await_file(path_in(argv[0], "end"));
    close_store(store);
    return 0;
}

static int start_slow_opener(const char *steps, const char *step) {
    char shim[4096];
    int pid;
    const char *folder = getenv("KVSTORE_SHIMS");
    if (folder == NULL) skip("KVSTORE_SHIMS names no folder of shims: Tests/surroundings/run does");
    snprintf(shim, sizeof shim, "%s/owner_steps.so", folder);
    CHECK(mkdir(steps, 0700) == 0);
    make_file(path_in(steps, step));
    setenv("LD_PRELOAD", shim, 1);
    pid = spawn_role("slow_opener", steps, NULL, NULL);
    unsetenv("LD_PRELOAD");
    return pid;
}

/* One looks for the files of dead owners while another has made its own and not locked it yet: the other stays known as alive. */
static void a_file_is_locked_late(void) {
    char *looking = path_in_dir("looking"), *late = path_in_dir("late"), *store = path_in_dir("store");
    int looker, latecomer;
    looker = start_slow_opener(looking, "list.wait");
    await_file(path_in(looking, "list.here"));
    latecomer = start_slow_opener(late, "lock.wait");
    await_file(path_in(late, "lock.here"));
    CHECK(unlink(path_in(looking, "list.wait")) == 0);
    await_file(path_in(looking, "open"));
    CHECK(unlink(path_in(late, "lock.wait")) == 0);
    await_file(path_in(late, "open"));
    CHECK_EQ(owner_count(store), 2);
    make_file(path_in(looking, "end"));
    make_file(path_in(late, "end"));
    CHECK_EQ(wait_for(looker), 0);
    CHECK_EQ(wait_for(latecomer), 0);
    CHECK_EQ(owner_count(store), 0);
}

static void repair_store(const char *store) {
    const char *command = getenv("KVSTORE_COMMAND");
    if (command == NULL) skip("KVSTORE_COMMAND names no command");
    CHECK_EQ(run_shell("'%s' repair '%s' > '%s.log'", command, store, store), 0);
}

/* Owners' numbers are never given twice, also when nothing is left of the catalog. */
static void numbers_go_on_after_a_repair(void) {
    shape_t shape = shape_large();
    char *path = path_in_dir("store");
    unsigned long before = 0;
    int i;
    for (i = 0; i < 5; i++) {
        kvstore_t *store = open_for_peers();
        offload_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS);
        flush_store(store);
        CHECK(owner_number(path) > before);
        before = owner_number(path);
        close_store(store);
    }
    for (i = 0; i < 2; i++) {
        kvstore_t *store;
        CHECK(unlink(path_in(path, "catalog.mdb")) == 0);
        repair_store(path);
        store = open_for_peers();
        CHECK(owner_number(path) > before);
        before = owner_number(path);
        CHECK_EQ(check_stored_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS), PEER_BLOCKS);
        close_store(store);
    }
}

static void survives(const char *what) {
    shape_t shape = shape_large();
    kvstore_t *store = open_for_peers();
    kvstore_namespace_t *ns = open_namespace(store, &shape);
    peer_t peer = peer_start();
    uint64_t seed, gone = 0;
    /* The peer's generations are reserved far ahead with its first offload; what it writes with them later is after the removal. */
    CHECK_EQ(peer_ask(&peer, "offload", 1), PEER_BLOCKS);
    peer_ask(&peer, "flush", 0);
    if (strcmp(what, "purge") == 0) {
        CHECK_STATUS(kvstore_namespace_purge(ns, &gone), KVSTORE_OK);
    } else {
        uint32_t *tokens = make_tokens(1, (size_t)PEER_BLOCKS * shape.tokens_per_block);
        kvstore_prompt_t prompt = prompt_of(tokens, (size_t)PEER_BLOCKS * shape.tokens_per_block);
        prompt.token_count = shape.tokens_per_block;
        CHECK_STATUS(kvstore_forget(ns, &prompt, &gone), KVSTORE_OK);
        free(tokens);
    }
    CHECK_EQ(gone, PEER_BLOCKS);
    EVENTUALLY(peer_ask(&peer, "peek", 1) == 0);
    for (seed = 1; seed < 5; seed++) {
        CHECK_EQ(peer_ask(&peer, "offload", seed), PEER_BLOCKS);
        peer_ask(&peer, "flush", 0);
    }
    peer_end(&peer);
    close_store(store);
    CHECK(unlink(path_in(path_in_dir("store"), "catalog.mdb")) == 0);
    repair_store(path_in_dir("store"));
    store = open_for_peers();
    ns = open_namespace(store, &shape);
    for (seed = 1; seed < 5; seed++)
        CHECK_EQ(check_stored_seed(ns, &shape, seed, PEER_BLOCKS), PEER_BLOCKS);
    close_store(store);
}

/* What one process stored after another's removal is given back by a repair, whenever its generations were reserved. */
static void stored_after_a_purge(void) { survives("purge"); }
static void stored_after_a_forget(void) { survives("forget"); }

const test_case_t owner_cases[] = {
    {"a_file_is_locked_late", a_file_is_locked_late},
    {"numbers_go_on_after_a_repair", numbers_go_on_after_a_repair},
    {"stored_after_a_purge", stored_after_a_purge},
    {"stored_after_a_forget", stored_after_a_forget},
    {NULL, NULL},
};

const child_role_t owner_roles[] = {{"slow_opener", role_slow_opener}, {NULL, NULL}};
