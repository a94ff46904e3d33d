/* Opens a store and prints the status; with `hold`, keeps it open until standard input ends. */
#include <kvstore.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    kvstore_config_t config;
    kvstore_t *store = NULL;
    kvstore_status_t status;
    if (argc < 2 || kvstore_config_init(&config, sizeof config) != KVSTORE_OK) return 2;
    config.path = argv[1];
    status = kvstore_open(&config, &store);
    printf("%s\n", kvstore_status_string(status));
    fflush(stdout);
    if (status < 0) fprintf(stderr, "%s\n", kvstore_last_error_message());
    if (argc > 2 && strcmp(argv[2], "hold") == 0)
        while (getchar() != EOF) {
        }
    kvstore_close(store);
    return 0;
}
