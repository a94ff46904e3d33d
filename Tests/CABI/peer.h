/* A peer: another process on the case's store, which does as it is told. */
#ifndef KVSTORE_TESTS_PEER_H
#define KVSTORE_TESTS_PEER_H

#include "harness.h"

/* Of the prompts that a case and its peer move, named by their seed; their shape is shape_large. */
#define PEER_BLOCKS 8

typedef struct {
    int pid;
    FILE *orders, *answers;
} peer_t;

/* The store that both of them open. */
void config_for_peers(kvstore_config_t *config);
kvstore_t *open_for_peers(void);

peer_t peer_start(void);
/* Gives an order: role_peer has the verbs. */
void peer_order(peer_t *peer, const char *verb, uint64_t number);
uint64_t peer_answer(peer_t *peer);
/* Both. */
uint64_t peer_ask(peer_t *peer, const char *verb, uint64_t number);
void peer_end(peer_t *peer);

#endif
