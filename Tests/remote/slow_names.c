/* Name servers that do not answer for a minute; addresses in digits need none. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <unistd.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    if (hints == NULL || (hints->ai_flags & AI_NUMERICHOST) == 0) sleep(60);
    return real(node, service, hints, result);
}
