/* Ends the program: a measurement that is wrong is none. */
#include <stdio.h>
#include <stdlib.h>

#include "peer.h"

_Noreturn void fail(const char *what, const char *why) {
    fprintf(stderr, "kvstore-peers: %s: %s\n", what, why);
    exit(1);
}
