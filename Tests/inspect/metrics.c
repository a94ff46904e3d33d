/* Prints the metrics of a store as an engine serves them: metrics STORE. */
#include <kvstore.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    static char text[1 << 20];
    kvstore_config_t config;
    kvstore_t *store;
    size_t length;
    if (argc != 2 || kvstore_config_init(&config, sizeof config) < 0) return 2;
    config.path = argv[1];
    /* Nobody is there: a remote tier that is configured has its metrics all the same. */
    config.remote_url = "redis://127.0.0.1:1";
    if (kvstore_open(&config, &store) < 0 || kvstore_metrics_text(store, text, sizeof text, &length) < 0) {
        fprintf(stderr, "metrics: %s\n", kvstore_last_error_message());
        return 1;
    }
    fwrite(text, 1, length, stdout);
    return kvstore_close(store) < 0;
}
