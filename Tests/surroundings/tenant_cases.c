/* A salt for each user: namespaces come, hold nothing, and leave, beside processes that have theirs open. */
#include "peer.h"
#include "surroundings.h"

#include <signal.h>
#include <sys/stat.h>

enum { STRANGERS = 300 };

static void open_strangers(kvstore_t *store, int round) {
    shape_t shape = shape_gqa();
    int i;
    for (i = 0; i < STRANGERS; i++) {
        kvstore_namespace_config_t config;
        kvstore_namespace_t *ns;
        char salt[32];
        snprintf(salt, sizeof salt, "stranger %d of %d", i, round);
        namespace_config(&shape, &config);
        config.salt.data = salt;
        config.salt.length = strlen(salt);
        CHECK_STATUS(kvstore_namespace_open(store, &config, &ns), KVSTORE_OK);
        kvstore_namespace_close(ns);
    }
}

/* The peer has its empty namespace open; others make and close theirs meanwhile, also while it is stopped. What it offloads
 * then is found by all. */
static void a_peer_keeps_its_empty_namespace(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_for_peers();
    peer_t peer = peer_start();
    CHECK_EQ(peer_ask(&peer, "peek", 1), 0);
    open_strangers(store, 0);
    CHECK(kill(peer.pid, SIGSTOP) == 0);
    open_strangers(store, 1);
    CHECK(kill(peer.pid, SIGCONT) == 0);
    CHECK_EQ(peer_ask(&peer, "offload", 1), PEER_BLOCKS);
    peer_ask(&peer, "flush", 0);
    CHECK_EQ(check_stored_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS), PEER_BLOCKS);
    peer_end(&peer);
    close_store(store);
}

/* Has the namespace open for reading only, before anything is in it, and sees what comes. */
static int role_early_reader(int argc, char **argv) {
    shape_t shape = shape_large();
    kvstore_config_t config;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    (void)argc;
    config_for_peers(&config);
    config.flags |= KVSTORE_OPEN_READ_ONLY;
    store = open_store(&config);
    ns = open_namespace(store, &shape);
    make_file(path_in(argv[0], "open"));
    await_file(path_in(argv[0], "stored"));
    EVENTUALLY(peek_seed(ns, &shape, 1, PEER_BLOCKS) == PEER_BLOCKS);
    kvstore_namespace_close(ns);
    close_store(store);
    return 0;
}

static void a_reader_keeps_what_it_has_open(void) {
    shape_t shape = shape_large();
    kvstore_t *store = open_for_peers();
    char *steps = path_in_dir("steps");
    int reader;
    CHECK(mkdir(steps, 0700) == 0);
    kvstore_namespace_close(open_namespace(store, &shape));
    reader = spawn_role("early_reader", steps, NULL, NULL);
    await_file(path_in(steps, "open"));
    open_strangers(store, 0);
    offload_seed(open_namespace(store, &shape), &shape, 1, PEER_BLOCKS);
    flush_store(store);
    make_file(path_in(steps, "stored"));
    CHECK_EQ(wait_for(reader), 0);
    close_store(store);
}

static uint64_t catalog_bytes(kvstore_t *store) { return stats_of(store).catalog_bytes_used; }

/* Tenants without end: neither the catalog nor the disk grows with them. */
static void strangers_leave_nothing(void) {
    kvstore_config_t config;
    kvstore_t *store;
    uint64_t before;
    small_config(&config, path_in_dir("store"));
    config.catalog_bytes = 1 * MIB;
    store = open_store(&config);
    open_strangers(store, 0);
    before = catalog_bytes(store);
    open_strangers(store, 1);
    open_strangers(store, 2);
    CHECK(catalog_bytes(store) <= before + 64 * 1024);
    close_store(store);
}

const test_case_t tenant_cases[] = {
    {"a_peer_keeps_its_empty_namespace", a_peer_keeps_its_empty_namespace},
    {"a_reader_keeps_what_it_has_open", a_reader_keeps_what_it_has_open},
    {"strangers_leave_nothing", strangers_leave_nothing},
    {NULL, NULL},
};

const child_role_t tenant_roles[] = {{"early_reader", role_early_reader}, {NULL, NULL}};
