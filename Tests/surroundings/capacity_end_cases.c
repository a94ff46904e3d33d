/* Numbers at the ends of their ranges, given by a caller. */
#include "harness.h"

/* A capacity that the machine cannot have is refused or taken; the process lives on. */
static void huge_capacities(void) {
    uint64_t capacity;
    unsigned bit;
    for (bit = 50; bit < 64; bit++)
        for (capacity = ((uint64_t)1 << bit) - 1; capacity <= ((uint64_t)1 << bit) + 1; capacity++) {
            kvstore_config_t config;
            kvstore_t *store = NULL;
            kvstore_status_t status;
            small_config(&config, path_in_dir("store"));
            config.capacity_bytes = capacity;
            status = kvstore_open(&config, &store);
            if (status == KVSTORE_OK)
                close_store(store);
            else
                CHECK_ONE_OF(status, 2, KVSTORE_E_INVALID_ARGUMENT, KVSTORE_E_NO_SPACE);
        }
}

const test_case_t capacity_end_cases[] = {{"huge_capacities", huge_capacities}, {NULL, NULL}};
