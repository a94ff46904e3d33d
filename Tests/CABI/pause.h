/* Holds a process at its next read of a slot, or at its next commit of the catalog, with the lock of the catalog held. */
#ifndef KVSTORE_TESTS_PAUSE_H
#define KVSTORE_TESTS_PAUSE_H

#ifdef __cplusplus
extern "C" {
#endif

#define PAUSE_READ "read"
#define PAUSE_COMMIT "commit"

/* In the process that is to be held: obey the orders given in `folder`. */
void pause_in(const char *folder);

/* In the other one: order a pause; wait until it is held; let it go on. */
void pause_order(const char *folder, const char *where);
void pause_wait(const char *folder, const char *where);
void pause_end(const char *folder, const char *where);

#ifdef __cplusplus
}
#endif
#endif
