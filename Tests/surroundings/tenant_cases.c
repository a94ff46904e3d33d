/* A salt for each user: namespaces come, hold nothing, and leave, beside processes that have theirs open. */
#include "peer.h"
#include "surroundings.h"

#include <signal.h>

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
    {"strangers_leave_nothing", strangers_leave_nothing},
    {NULL, NULL},
};
