#include "folder.h"

void run_with_shim(const char *name) {
    char path[4200];
    const char *folder = getenv("KVSTORE_SHIMS");
    if (folder == NULL) fail(__FILE__, __LINE__, "KVSTORE_SHIMS is not set");
    snprintf(path, sizeof path, "%s/%s.so", folder, name);
    if (access(path, R_OK) != 0) fail(__FILE__, __LINE__, "%s: %s", path, strerror(errno));
    setenv("LD_PRELOAD", path, 1);
}

void run_without_shim(void) { unsetenv("LD_PRELOAD"); }
