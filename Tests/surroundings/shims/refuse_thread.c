/* Preloaded: the $KVSTORE_REFUSE_THREAD-th pthread_create answers EAGAIN, as it does at a limit of threads or of memory; with
 * $KVSTORE_REFUSE_ALL all behind it as well. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

typedef int (*create_t)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

int pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
    static int count;
    create_t create = (create_t)dlsym(RTLD_NEXT, "pthread_create");
    const char *refused = getenv("KVSTORE_REFUSE_THREAD");
    int number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (refused != NULL) {
        int first = atoi(refused);
        if (number == first || (number > first && getenv("KVSTORE_REFUSE_ALL") != NULL)) return EAGAIN;
    }
    return create(id, attributes, body, argument);
}
