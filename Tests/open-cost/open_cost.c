/* Counts the bytes that are read from disk between opening a store and the first verified hit.
 *
 *   open_cost fill STORE BLOCKS     makes a store of so many blocks of 64 bytes, 16 tokens each
 *   open_cost measure STORE         drops the page cache, opens, matches and restores one block, prints the bytes read */
#define _GNU_SOURCE
#include <fcntl.h>
#include <kvstore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { tokens_per_block = 16, blocks_per_prompt = 4096, payload_bytes = 64 };

static void must(kvstore_status_t status, const char *what) {
    if (status == KVSTORE_OK) return;
    fprintf(stderr, "open_cost: %s: %s: %s\n", what, kvstore_status_string(status), kvstore_last_error_message());
    exit(1);
}

static kvstore_t *open_store(const char *path) {
    kvstore_config_t config;
    kvstore_t *store;
    must(kvstore_config_init(&config, sizeof config), "config_init");
    config.path = path;
    config.capacity_bytes = UINT64_C(8) << 30;
    config.catalog_bytes = UINT64_C(4) << 30;
    must(kvstore_open(&config, &store), "open");
    return store;
}

static kvstore_namespace_t *open_namespace(kvstore_t *store) {
    static const uint64_t region = payload_bytes;
    kvstore_namespace_config_t config;
    kvstore_namespace_t *ns;
    must(kvstore_namespace_config_init(&config, sizeof config), "namespace_config_init");
    config.tokens_per_block = tokens_per_block;
    config.region_count = 1;
    config.region_bytes = &region;
    must(kvstore_namespace_open(store, &config, &ns), "namespace_open");
    return ns;
}

static void fill_tokens(uint32_t *tokens, uint32_t prompt) {
    uint32_t i;
    for (i = 0; i < tokens_per_block * blocks_per_prompt; i++) tokens[i] = prompt * 1000003u + i;
}

static void fill(const char *path, unsigned long blocks) {
    kvstore_t *store = open_store(path);
    kvstore_namespace_t *ns = open_namespace(store);
    uint32_t *tokens = malloc(sizeof *tokens * tokens_per_block * blocks_per_prompt);
    kvstore_span_t *spans = calloc(blocks_per_prompt, sizeof *spans);
    char payload[payload_bytes];
    uint32_t prompt, b;
    memset(payload, 7, sizeof payload);
    for (prompt = 0; blocks > 0; prompt++) {
        uint32_t count = blocks < blocks_per_prompt ? (uint32_t)blocks : blocks_per_prompt;
        kvstore_prompt_t p = {.struct_size = sizeof p, .tokens = tokens, .token_count = (size_t)count * tokens_per_block};
        kvstore_transfer_t t = {.struct_size = sizeof t, .spans = spans, .span_count = count};
        fill_tokens(tokens, prompt);
        for (b = 0; b < count; b++) spans[b] = (kvstore_span_t){payload, 0, payload_bytes};
        must(kvstore_offload(ns, &p, &t, NULL), "offload");
        blocks -= count;
    }
    must(kvstore_flush(store, 0, NULL), "flush");
    must(kvstore_close(store), "close");
    free(tokens);
    free(spans);
}

static unsigned long long bytes_read(void) {
    char line[128];
    unsigned long long count = 0;
    FILE *io = fopen("/proc/self/io", "r");
    while (io != NULL && fgets(line, sizeof line, io) != NULL) sscanf(line, "read_bytes: %llu", &count);
    if (io != NULL) fclose(io);
    return count;
}

static void measure(const char *path) {
    char catalog[4096], payload[payload_bytes];
    uint32_t *tokens = malloc(sizeof *tokens * tokens_per_block * blocks_per_prompt);
    kvstore_span_t span = {payload, sizeof payload, 0};
    kvstore_prompt_t p = {.struct_size = sizeof p, .tokens = tokens, .token_count = tokens_per_block};
    kvstore_transfer_t t = {.struct_size = sizeof t, .spans = &span, .span_count = 1};
    kvstore_match_t match = {.struct_size = sizeof match};
    unsigned long long before;
    kvstore_t *store;
    kvstore_namespace_t *ns;
    int fd;
    snprintf(catalog, sizeof catalog, "%s/catalog.mdb", path);
    fd = open(catalog, O_RDONLY);
    if (fd < 0 || fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) exit(1);
    close(fd);
    fill_tokens(tokens, 1);
    before = bytes_read();
    store = open_store(path);
    ns = open_namespace(store);
    must(kvstore_match(ns, &p, 0, 0, &match), "match");
    must(kvstore_restore(ns, &p, &t, NULL), "restore");
    printf("%llu\n", bytes_read() - before);
    must(kvstore_close(store), "close");
    free(tokens);
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "fill") == 0) {
        fill(argv[2], strtoul(argv[3], NULL, 10));
    } else if (argc == 3 && strcmp(argv[1], "measure") == 0) {
        measure(argv[2]);
    } else {
        fprintf(stderr, "usage: open_cost fill STORE BLOCKS | open_cost measure STORE\n");
        return 2;
    }
    return 0;
}
